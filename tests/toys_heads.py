"""Toy draft heads: a table that imitates its target a few places ahead, and checks what it is told about the target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.meter import Meter
from backend.protocols import HeadsSession, Prompt, Scores
from backend.trees import depths
from backend.types import Sampling
from tests.toys import Counting, Toy, ToyCausal


class ToyHeads(Toy):
    """Heads with `reach` places whose laws are half the target's own. `odds` fall by half from rank to rank."""

    def __init__(self, model_id: str, target: ToyCausal, seed: int = 7, reach: int = 3) -> None:
        super().__init__(model_id, HeadsSession, target.codec, target.context)
        self.target = target
        self.size = target.size
        self.reach = reach
        self.table = ToyCausal(f"{model_id}/table", seed=seed, size=target.size, order=target.order, like=target)

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyHeadsSession:
        return ToyHeadsSession(self, prompt.tokens, meter)


class ToyHeadsSession(Counting):
    """A heads session on the table. Every commit must bring the target's hidden states of the text since the last."""

    def __init__(self, model: ToyHeads, prompt: Sequence[int], meter: Meter) -> None:
        super().__init__(meter)
        self.tokens: list[int] = list(prompt)
        self.reach = model.reach
        self.odds = [[0.5 ** (rank + 1) for rank in range(model.size)]] * model.reach
        self._model = model
        self._told = 1  # tokens of the text whose origin is known; the first has none
        self._known: set[tuple[int, ...]] = set()

    def score(self, draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> Scores:
        """See `HeadsSession.score`."""
        parents = range(-1, len(draft) - 1) if parents is None else parents
        assert self._told == len(self.tokens), "heads were asked before they were told what the target thought"
        assert max(depths(parents), default=-1) + 1 < self.reach, f"{parents} is deeper than {self.reach} places"
        paths = [tuple(self.tokens)]
        for token, parent in zip(draft, parents, strict=True):
            paths.append((*paths[parent + 1], token))
        if new := set(paths) - self._known:
            self.charge(len(new))
            self._known |= new
        law_NV = torch.stack([self._model.table.law(path) for path in paths])
        return Scores(law_NV)

    def commit(self, tokens: Sequence[int], hidden_NC: Tensor) -> None:
        """See `HeadsSession.commit`."""
        self.tokens.extend(tokens)
        self._known.clear()
        first = len(self.tokens) - len(hidden_NC)
        assert first <= self._told, "the heads were not told about all tokens"
        for i, hidden_C in enumerate(hidden_NC):
            assert torch.equal(hidden_C, self._model.target.law(self.tokens[: first + i])), "hidden states are shifted"
        self._told = len(self.tokens)
