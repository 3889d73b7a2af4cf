"""A draft that is read behind any of its layers, and its session: deeper layers are caught up only when needed.

The cache holds a chain: slot = position. Every exit knows how many slots its layers have run, and keeps the residual
stream of those that the layers behind it have not read yet. Going back only cuts these counters.

Letters: N rows of this call, M rows left behind, V vocabulary, K tokens of the draft, C features, E exits.
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
from backend.protocols import Exit
from backend.types import Sampling


class NestedDraft(Draft):
    """A draft whose norm and head were trained to be read behind every layer."""

    @property
    def num_layers(self) -> int:
        """Its layers, each with an exit behind it."""
        return self.model.config.num_layers

    @torch.inference_mode()
    def enter(self, ids_N: Tensor) -> Tensor:
        """What the first layer reads of these target tokens, [N, C]."""
        return self.model.embeddings(self.rows_V[ids_N])

    @torch.inference_mode()
    def climb(self, h_NC: Tensor, positions_N: Tensor, cache: KVCache, layer: int, read: bool) -> Tensor:
        """Run one layer on rows that are appended to the cache, and turn h_NC into what is behind it.

        Returns:
            Logits of the last row over the draft's own tokens, [1, K]; [0, K] unless `read`.
        """
        return self.model.forward_rows(h_NC, positions_N, cache, None, int(read), [layer])[0]


class NestedChain:
    """A `NestedSession` over such a draft."""

    def __init__(
        self,
        backbone: NestedDraft,
        model_id: str,
        vocab_size: int,
        prompt: Sequence[int],
        sampling: Sampling,
        meter: Meter,
        room: int,
    ) -> None:
        """Open the session; the prompt is run with the first score. Arguments as of `TrieSession`."""
        self.tokens: list[int] = list(prompt)
        self.exits: Sequence[int] = range(1, backbone.num_layers + 1)
        self._backbone = backbone
        self._id = model_id
        self._vocab_size = vocab_size
        self._sampling = sampling
        self._meter = meter
        self._cache = backbone.open_cache(min(len(prompt) + room, backbone.context) + SCRATCH)
        self._text: list[int] = []  # tokens of the slots in the cache
        self._ran = [0 for _ in self.exits]  # slots that the layer in front of each exit has run
        empty_0C = backbone.enter(torch.zeros(0, dtype=torch.long, device=backbone.device))
        self._behind_EMC = [empty_0C for _ in self.exits]  # what the next layer has still to read
        self._asked: Sequence[float] = ()
        self._answer: Exit | None = None  # to `_text` and `_asked`

    def score(self, draft: Sequence[int] = (), thresholds: Sequence[float] = ()) -> Exit:
        """See `NestedSession.score`."""
        text, asked = [*self.tokens, *draft], list(thresholds)
        if len(asked) != len(self.exits) - 1:
            raise UserError(
                f"{self._id} has {len(self.exits)} exits and takes {len(self.exits) - 1} thresholds, but {len(asked)} "
                "were given; pick a draft with as many exits as the strategy has thresholds and one more."
            )
        if self._answer is None or (text, asked) != (self._text, self._asked):
            self._go_back(text)
            with self._meter.call(len(text) - self._ran[0]):
                self._answer = self._climb(text, asked)
            self._asked = asked
        return self._answer

    def commit(self, tokens: Sequence[int]) -> None:
        """See `NestedSession.commit`; what was run of them is found again by the next score."""
        self.tokens.extend(tokens)

    def _go_back(self, text: Sequence[int]) -> None:
        """Forget all slots that do not begin `text`, and its last one, which has to be read now."""
        common = 0
        while common < min(len(text) - 1, len(self._text)) and text[common] == self._text[common]:
            common += 1
        for e, ran in enumerate(self._ran):
            self._ran[e] = min(ran, common)
        for e, deeper in enumerate(self._ran[1:]):
            self._behind_EMC[e] = self._behind_EMC[e][: self._ran[e] - deeper]
        self._cache.truncate(common)

    @torch.inference_mode()
    def _climb(self, text: list[int], thresholds: Sequence[float]) -> Exit:
        """Run the slots that are new, layer by layer, with what earlier calls left behind, until an exit is sure."""
        device = self._backbone.device
        end = self._backbone.context - 1  # guesses behind the end of the context are never committed
        h_NC = self._backbone.enter(torch.tensor(text[self._ran[0] :], device=device))
        self._text = text
        for e, (depth, threshold) in enumerate(zip(self.exits, [*thresholds, 0.0], strict=True)):
            read = threshold < 1.0
            positions_N = torch.arange(self._ran[e], len(text), device=device).clamp(max=end)
            self._cache.truncate(self._ran[e])
            raw_1K = self._backbone.climb(h_NC, positions_N, self._cache, depth - 1, read)
            self._ran[e] = len(text)
            if read:
                sure = float((raw_1K.amax() - raw_1K.logsumexp(dim=1)).exp())
                if sure >= threshold or depth == self.exits[-1]:
                    self._behind_EMC[e] = torch.cat((self._behind_EMC[e], h_NC))
                    p_1V = self._backbone.laws(raw_1K, self._sampling, text, self._vocab_size)
                    return Exit(p_1V[0], depth, sure)
            h_NC, self._behind_EMC[e] = torch.cat((self._behind_EMC[e], h_NC)), h_NC[:0]
        raise AssertionError("the last exit always stops")
