"""A toy block drafter: the law of each place is a table's, read as if the likeliest tokens stood before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from backend.meter import Meter
from backend.protocols import BlockSession, Prompt, Scores
from backend.types import Sampling
from tests.toys import Counting, Toy, ToyCausal


class ToyBlock(Toy):
    """Blocks of up to 8 places; half the target's own law at the first."""

    def __init__(self, model_id: str, target: ToyCausal, seed: int = 11) -> None:
        super().__init__(model_id, BlockSession, target.codec, target.context)
        self.table = ToyCausal(f"{model_id}/table", seed, target.size, target.order, like=target)

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyBlockSession:
        return ToyBlockSession(self, prompt.tokens, sampling, meter)


class ToyBlockSession(Counting):
    """A block session on the table: a guess runs the text since the last one and the masks."""

    def __init__(self, model: ToyBlock, prompt: Sequence[int], sampling: Sampling, meter: Meter) -> None:
        super().__init__(meter)
        self.tokens: list[int] = list(prompt)
        self.reach = 8
        self._model = model
        self._sampling = sampling
        self._ran = 0

    def guess(self, length: int) -> Scores:
        """See `BlockSession.guess`."""
        assert 1 <= length <= self.reach
        assert self._ran < len(self.tokens), "nothing was written since the last guess"
        self.charge(len(self.tokens) - self._ran + length - 1)
        self._ran = len(self.tokens)
        text, rows = list(self.tokens), []
        for _ in range(length):
            rows.append(self._model.table.row(text, self._sampling))
            text.append(int(self._model.table.law(text).argmax()))
        return Scores(torch.stack(rows))

    def commit(self, tokens: Sequence[int]) -> None:
        """See `BlockSession.commit`."""
        self.tokens.extend(tokens)
