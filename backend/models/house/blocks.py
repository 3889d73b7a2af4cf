"""A draft that guesses a whole block in one call: the last token and masks behind it go through it together.

The row of the last token says the first place and the row of mask j place j + 1, so that a block of k places costs
k rows beside those of the text committed since. Masks see the text and the masks before them, never the guesses; each
has an embedding of its own. Only the text stays in the cache.

Letters: G places of a block, V vocabulary, K tokens of the draft, N tokens of the text, M rows of a call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.cache import KVCache
from backend.models.house.draft import Draft
from backend.models.session import SCRATCH
from backend.protocols import Scores
from backend.types import Sampling


class BlockDraft(Draft):
    """A draft with masks: as many as the places that it guesses behind the first."""

    @property
    def reach(self) -> int:
        """Most places that it can guess."""
        return self.masks + 1

    @torch.inference_mode()
    def forward_block(self, ids_N: Tensor, cache: KVCache, length: int) -> Tensor:
        """Append N tokens to the cache and guess the `length` places behind them. Returns their logits [length, K]."""
        start = cache.length
        sizes = self.model.config
        first = sizes.vocab_size + sizes.extra_inputs - self.masks
        mask_rows = torch.arange(first, first + length - 1, device=self.device)
        rows_M = torch.cat((self.rows_V[ids_N], mask_rows))
        positions_M = torch.arange(start, start + len(rows_M), device=self.device).clamp(max=self.context - 1)
        raw_GK, _ = self.model.forward_rows(rows_M, positions_M, cache, last=length)
        cache.truncate(start + len(ids_N))
        return raw_GK


class BlockChain:
    """A `BlockSession` over such a draft."""

    def __init__(
        self,
        backbone: BlockDraft,
        model_id: str,
        vocab_size: int,
        prompt: Sequence[int],
        sampling: Sampling,
        meter: Meter,
        room: int,
    ) -> None:
        """Open the session; the prompt is run with the first guess. Arguments as of `TrieSession`."""
        self.tokens: list[int] = list(prompt)
        self.reach = backbone.reach
        self._backbone = backbone
        self._id = model_id
        self._vocab_size = vocab_size
        self._sampling = sampling
        self._meter = meter
        self._cache = backbone.open_cache(min(len(prompt) + room, backbone.context) + SCRATCH)
        self._guessed: Scores | None = None  # of the text as it is

    def guess(self, length: int) -> Scores:
        """See `BlockSession.guess`."""
        if not 1 <= length <= self.reach:
            raise UserError(
                f"{self._id} guesses blocks of 1 to {self.reach} tokens, but {length} were asked for; "
                "choose shorter blocks or another block draft."
            )
        if self._guessed is None or len(self._guessed.p_NV) != length:
            self._cache.truncate(min(self._cache.length, len(self.tokens) - 1))  # the last row is read again
            pending = self.tokens[self._cache.length :]
            with self._meter.call(len(pending) + length - 1):
                ids_N = torch.tensor(pending, device=self._backbone.device)
                raw_GK = self._backbone.forward_block(ids_N, self._cache, length)
            p_GV = self._backbone.laws(raw_GK, self._sampling, self.tokens, self._vocab_size)
            self._guessed = Scores(p_GV, raw_GK, ids_K=self._backbone.ids_K)
        return self._guessed

    def commit(self, tokens: Sequence[int]) -> None:
        """See `BlockSession.commit`."""
        self.tokens.extend(tokens)
        self._guessed = None
