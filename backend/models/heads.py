"""Draft heads as the catalog hands them out, and their sessions.

Hydra and EAGLE stand behind the same trie of evaluated guesses as causal models do, with two differences: a row also
reads what its parent hands on, and rows of guesses are never kept, since the accepted tokens are run again with the
hidden states that the target really had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import cast

import torch
from torch import Tensor

from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.heads import Chained, Eagle, Hydra, Medusa
from backend.models.session import Backbone, TrieSession
from backend.protocols import Codec, HeadsSession, Prompt, Scores
from backend.sampling import distribution
from backend.trees import depths
from backend.types import Sampling

PLAIN = Sampling(temperature=1.0)  # laws of draft heads are ranked, whatever the request's temperature


class HeadsModel:
    """Packed heads behind the heads protocol. Shared by all sessions, never written.

    Args:
        heads: packed. odds: measured, see `HeadsSession`. codec: of the target. num_params: trained weights.
    """

    speaks: frozenset[type] = frozenset({HeadsSession})

    def __init__(
        self,
        model_id: str,
        heads: Medusa | Hydra | Eagle,
        odds: Sequence[Sequence[float]],
        codec: Codec,
        num_params: int,
    ) -> None:
        self.id = model_id
        self.heads = heads
        self.odds = odds
        self.codec = codec
        self.num_params = num_params
        self.context = heads.config.context

    def open(
        self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int
    ) -> MedusaSession | ChainedSession:
        """A session on the prompt, which must be the target's."""
        assert protocol is HeadsSession, protocol
        if isinstance(self.heads, Medusa):
            return MedusaSession(self, self.heads, prompt.tokens, meter)
        return ChainedSession(self, self.heads, prompt.tokens, meter, room)

    def check(self, hidden_NC: Tensor) -> None:
        """Raises UserError if hidden states are not of the width that the heads were trained on."""
        if hidden_NC.shape[1] != self.heads.config.dim:
            raise UserError(
                f"{self.id} reads hidden states of {self.heads.config.dim} numbers, but this target's have "
                f"{hidden_NC.shape[1]}; take SmolLM2-135M as target, or another drafter."
            )


class MedusaSession:
    """Laws of all places from the newest hidden state: one call serves every guess until the next commit."""

    def __init__(self, model: HeadsModel, heads: Medusa, prompt: Sequence[int], meter: Meter) -> None:
        self.tokens: list[int] = list(prompt)
        self.reach = heads.config.reach
        self.odds = model.odds
        self._model, self._heads, self._meter = model, heads, meter
        self._newest_1C: Tensor | None = None
        self._laws: tuple[Tensor, Tensor] | None = None  # laws and logits [R, K]

    def score(self, draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> Scores:
        """See `HeadsSession.score`."""
        assert self._newest_1C is not None, "heads were asked before they were told what the target thought"
        if self._laws is None:
            with self._meter.call(1):
                raw_RK = self._heads.laws(self._newest_1C)
            self._laws = distribution(raw_RK, PLAIN), raw_RK
        places = [0, *(d + 1 for d in depths(range(-1, len(draft) - 1) if parents is None else parents))]
        p_RK, raw_RK = self._laws
        return Scores(p_RK[places], raw_RK[places], ids_K=self._heads.words.ids_K)

    def commit(self, tokens: Sequence[int], hidden_NC: Tensor) -> None:
        """See `HeadsSession.commit`."""
        self._model.check(hidden_NC)
        self.tokens.extend(tokens)
        if len(hidden_NC):
            words = self._heads.words
            self._newest_1C = hidden_NC[-1:].to(words.embed_VC.device, self._heads.dtype)
            self._laws = None


class ChainedSession(TrieSession):
    """A `HeadsSession` of Hydra or EAGLE: one call for the text and one for each depth of guesses."""

    def __init__(self, model: HeadsModel, heads: Hydra | Eagle, prompt: Sequence[int], meter: Meter, room: int) -> None:
        super().__init__(cast(Backbone, heads), model.id, heads.vocab_size, prompt, PLAIN, meter, room)
        self.reach = heads.config.reach
        self.odds = model.odds
        self._model, self._heads = model, heads
        self._told_NC: Tensor | None = None  # states from which tokens were read that are not in the cache yet

    @torch.inference_mode()
    def score(self, draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> Scores:
        """See `HeadsSession.score`."""
        return replace(super().score(draft, parents), ids_K=self._heads.words.ids_K)

    def commit(self, tokens: Sequence[int], hidden_NC: Tensor) -> None:  # type: ignore[override]
        """See `HeadsSession.commit`. Rows of guesses are dropped, also of those that were accepted."""
        self._model.check(hidden_NC)
        known = self._ready + (0 if self._told_NC is None else len(self._told_NC))
        self.tokens.extend(tokens)
        fresh_NC = hidden_NC.to(self._heads.device, self._heads.dtype)
        if known == 0:  # nothing was read before the first token
            fresh_NC = torch.cat((fresh_NC.new_zeros(1, fresh_NC.shape[1]), fresh_NC))
        missing = len(self.tokens) - known
        assert missing <= len(fresh_NC), "the heads were not told what the target thought about all tokens"
        fresh_NC = fresh_NC[len(fresh_NC) - missing :]
        self._told_NC = fresh_NC if self._told_NC is None else torch.cat((self._told_NC, fresh_NC))
        self._cache.truncate(min(self._ready, self._cache.length))
        self._forget(None)

    def _run(self, new: list[tuple[int, int]]) -> None:
        """Run what the target wrote since the last call, then the new guesses, one call a depth."""
        if self._ready < len(self.tokens):
            self._run_text()
        for position, level in groupby(new, key=lambda node: self._depths[self._nodes[node]]):
            self._run_level(list(level), position)

    def _run_text(self) -> None:
        assert self._told_NC is not None, "heads were asked before they were told what the target thought"
        device, pending = self._heads.device, self.tokens[self._ready :]
        with self._meter.call(len(pending)):
            raw_1K, state_1S = self._heads.text_rows(
                torch.tensor(pending, device=device),
                self._told_NC,
                torch.arange(self._ready, len(self.tokens), device=device),
                self._cache,
            )
        self._ready, self._told_NC = len(self.tokens), None
        self._remember([self._root], raw_1K, state_1S)

    def _run_level(self, level: list[tuple[int, int]], position: int) -> None:
        start, device = self._cache.length, self._heads.device
        place = position - self._root
        assert place < self.reach, f"a guess for place {place} is out of reach"
        states = self._rows.held[2][[self._row_at[parent] for parent, _ in level]]
        positions_N = torch.full((len(level),), min(position, self._heads.context - 1), device=device)
        with self._meter.call(len(level)):
            raw_NK, state_NS = self._heads.draft_rows(
                torch.tensor([token for _, token in level], device=device),
                states,
                positions_N,
                self._cache,
                self._visible(start, 0, level),
                place,
            )
        self._remember(range(start, start + len(level)), raw_NK, state_NS)


__all__ = ["Chained", "ChainedSession", "HeadsModel", "MedusaSession"]
