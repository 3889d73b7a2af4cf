"""Sessions that decode a block transformer as it was made to: one global call a block, then one local call a token.

They are causal sessions too, which run both levels in one call; see `house.two_level`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from backend.models.house.two_level import PREFIX, TwoLevelDecoder
from backend.models.session import TrieSession
from backend.protocols import Scores


class TwoLevelTrie(TrieSession):
    """A `TwoLevelSession` over a block transformer. Local calls count under the part "tokens"."""

    _backbone: TwoLevelDecoder

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        backbone = self._backbone
        self.length = backbone.config.length
        self.kv_bytes = 0
        most = min(len(self.tokens) + args[-1], backbone.context)
        self._globe = backbone.globe.open_cache(most // self.length + 2)
        self._local = backbone.local.open_cache(PREFIX + self.length)
        self._inside: list[int] = []  # tokens of the open block whose rows are in the local cache
        self._said: dict[tuple[int, ...], Scores] = {}  # what was read in the open block, by its tokens

    def plain_bytes(self, length: int) -> int:
        """See `TwoLevelSession.plain_bytes`."""
        return length * self._backbone.twin_row_bytes

    @torch.inference_mode()
    def think(self) -> int:
        """See `TwoLevelSession.think`."""
        backbone, ready = self._backbone, self._globe.length
        whole = len(self.tokens) // self.length
        if ready <= whole:
            first = max(ready - 1, 0) * self.length
            read_GC = backbone.block_vectors(self.tokens[first : whole * self.length])
            if not ready:
                begin_1C = backbone.globe.embeddings(torch.zeros(1, dtype=torch.long, device=backbone.device))
                read_GC = torch.cat((begin_1C, read_GC))
            with self._meter.call(len(read_GC)):
                places_G = torch.arange(ready, whole + 1, device=backbone.device)
                _, context_GC = backbone.globe.forward_rows(read_GC, places_G, self._globe, last=1)
            self.kv_bytes += self._globe.length * backbone.row_bytes
            self._prefix_ZC = backbone.prefixes(context_GC[-1:])[0]
            self._local.truncate(0)
            self._inside.clear()
            self._said.clear()
        return self.length - len(self.tokens) % self.length

    @torch.inference_mode()
    def write(self, block: Sequence[int]) -> Scores:
        """See `TwoLevelSession.write`. Raises UserError if the model returns numbers that are no probabilities."""
        text = (*self.tokens[len(self.tokens) // self.length * self.length :], *block)
        assert len(text) < self.length
        assert self._globe.length == len(self.tokens) // self.length + 1, "the block before was not read yet"
        if text not in self._said:
            self._said[text] = self._speak(text, [*self.tokens, *block])
        return self._said[text]

    def _speak(self, text: Sequence[int], seen: Sequence[int]) -> Scores:
        """One local call: the rows of the open block that were not run yet."""
        backbone, local = self._backbone, self._local
        same = 0
        while same < min(len(self._inside), len(text) - 1) and self._inside[same] == text[same]:
            same += 1
        fresh_MC = backbone.local.embeddings(torch.tensor(text[same:], dtype=torch.long, device=backbone.device))
        if local.length and text:
            local.truncate(PREFIX + same)
        else:
            local.truncate(0)
            fresh_MC = torch.cat((self._prefix_ZC, fresh_MC))
        places_M = torch.arange(local.length, local.length + len(fresh_MC), device=backbone.device)
        with self._meter.part("tokens").call(len(fresh_MC)):
            raw_1V, hidden_MC = backbone.local.forward_rows(fresh_MC, places_M, local, last=1)
        self.kv_bytes += local.length * backbone.row_bytes
        self._inside = list(text)
        raw_1V = raw_1V[:, : self._vocab_size]
        return Scores(self._laws(raw_1V, [list(seen)]), raw_1V, hidden_MC[-1:])
