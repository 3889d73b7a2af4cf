"""Causal sessions that can do more than score guesses, for backbones that can do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from backend.models.house.cache import KVCache
from backend.models.house.llama import Llama
from backend.models.house.skipping import forward_skipping
from backend.models.session import TrieSession
from backend.protocols import Scores


class SkippingTrie(TrieSession):
    """A `SkippingSession` over our lean forward."""

    _backbone: Llama

    @property
    def num_layers(self) -> int:
        """Layers of the model, each with one feed-forward net."""
        return self._backbone.config.num_layers

    @torch.inference_mode()
    def skim(self, similarity: float, region: range) -> tuple[Scores, tuple[float, ...]]:
        """See `SkippingSession.skim`."""
        if self._ready != self._root or not self._ready:  # nothing to run, or a prompt
            return self.score(), ()
        with self._meter.call(1):
            raw_1V, hidden_1C, cosines = forward_skipping(
                self._backbone, self.tokens[-1], self._root, cast(KVCache, self._cache), similarity, region
            )
        self._ready = len(self.tokens)
        self._remember([self._root], raw_1V[:, : self._vocab_size], hidden_1C)
        return self.score(), cosines


@runtime_checkable
class Mixer(Protocol):
    """A backbone whose `forward_rows` takes embeddings in the place of ids."""

    def embeddings(self, ids_N: Tensor) -> Tensor:
        """What the first layer reads of these tokens, [N, C]."""
        ...


class MixingTrie(TrieSession):
    """A `MixingSession` over such a backbone. Mixtures stand in the cache behind the text and behind all guesses."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._mixtures: list[int] = []  # their slots

    @torch.inference_mode()
    def blend(self, tokens: Sequence[int], weights: Sequence[float]) -> Scores:
        """See `MixingSession.blend`."""
        if self._ready <= self._root:
            self.score()
        backbone, slot = self._backbone, self._cache.length
        assert isinstance(backbone, Mixer)
        each_KC = backbone.embeddings(torch.tensor(tokens, device=backbone.device))
        weights_K = torch.tensor(weights, dtype=each_KC.dtype, device=backbone.device)
        position = min(len(self.tokens) + len(self._mixtures), backbone.context - 1)
        visible_1S = None
        if slot != len(self.tokens) + len(self._mixtures):  # guesses stand between
            visible_1S = torch.zeros(1, slot + 1, dtype=torch.bool, device=backbone.device)
            visible_1S[0, [*range(len(self.tokens)), *self._mixtures, slot]] = True
        with self._meter.call(1):
            raw_1V, hidden_1C = backbone.forward_rows(
                (weights_K @ each_KC)[None],
                torch.tensor([position], device=backbone.device),
                self._cache,
                visible_1S,
                last=1,
            )
        self._mixtures.append(slot)
        raw_1V = raw_1V[:, : self._vocab_size]
        return Scores(self._laws(raw_1V, [self.tokens]), raw_1V, hidden_1C)

    def commit(self, tokens: Sequence[int]) -> None:
        """See `CausalSession.commit`."""
        super().commit(tokens)
        self._mixtures.clear()
