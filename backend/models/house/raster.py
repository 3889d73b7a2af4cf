"""Pictures as sequences: conditions, then a grid of tokens row by row, each of which is told the place it predicts.

A `Llama` whose embedding has further rows behind the vocabulary: one for every code of every attribute (0 is "left
open", and has a row of its own), then one for every row and every column of the grid. A sequence starts with one token
an attribute; from the last of these on, an input is its token's vector plus those of the place that comes next.

Rotary positions alone say how far apart two tokens are, so that "the one above" is always 16 back; but not where a
line ends, and pictures are aligned, so that much is known from the place alone. The 32 place vectors are 0.4 % of the
weights of `house/portraits` and one addition a call; a second rotation, by row and column, would touch every layer.

Letters: A attributes, L slots of the canvas, T = A + L positions, V codes of the canvas, N rows of a call, B batch,
S cache slots, C features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.codecs.image import ImageCodec
from backend.models.house.cache import KVCache
from backend.models.house.llama import Llama, LlamaConfig


@dataclass(frozen=True)
class Layout:
    """Where everything stands in the embedding and in a sequence.

    Args:
        num_codes: V. choices: by attribute, how many codes it has, 0 included. grid: (height, width) of the canvas.
    """

    num_codes: int
    choices: tuple[int, ...]
    grid: tuple[int, int]

    @classmethod
    def of(cls, codec: ImageCodec) -> Layout:
        """Of the canvases of a codec, described by the attributes of its style."""
        return cls(codec.size, codec.style.choices, codec.grid)

    @property
    def hidden(self) -> int:
        """A, the tokens in front of the canvas."""
        return len(self.choices)

    @property
    def length(self) -> int:
        """L."""
        return self.grid[0] * self.grid[1]

    @property
    def context(self) -> int:
        """T, positions of a sequence."""
        return self.hidden + self.length

    @property
    def extra_inputs(self) -> int:
        """Rows of the embedding behind the vocabulary."""
        return sum(self.choices) + sum(self.grid)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """By attribute, its first row in the embedding: that of "left open"."""
        return tuple(self.num_codes + sum(self.choices[:i]) for i in range(self.hidden))

    def rows(self, conditions: Sequence[int]) -> list[int]:
        """The tokens in front of a canvas with these codes, one an attribute."""
        assert len(conditions) == self.hidden, conditions
        assert all(0 <= code < most for code, most in zip(conditions, self.choices, strict=True)), conditions
        return [start + code for start, code in zip(self.starts, conditions, strict=True)]

    def opened(self) -> Tensor:
        """By token, the same with nothing asked: a condition's attribute left open, a code itself. [V + codes]."""
        attributes = zip(self.starts, self.choices, strict=True)
        return torch.tensor([*range(self.num_codes), *(start for start, most in attributes for _ in range(most))])

    def places(self) -> tuple[Tensor, Tensor]:
        """Rows in the embedding, [L] each, of the grid row and the grid column of every slot."""
        first = self.num_codes + sum(self.choices)
        slots_L = torch.arange(self.length)
        return first + slots_L // self.grid[1], first + self.grid[0] + slots_L % self.grid[1]

    def config(self, dim: int, num_layers: int, num_heads: int, ffn_dim: int) -> LlamaConfig:
        """Sizes of a model of such pictures, heads of dim / num_heads numbers."""
        return LlamaConfig(
            vocab_size=self.num_codes,
            dim=dim,
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=dim // num_heads,
            ffn_dim=ffn_dim,
            context=self.context,
            extra_inputs=self.extra_inputs,
        )


def logits_of(llama: Llama, layout: Layout, conditions_BA: Tensor, canvas_BL: Tensor) -> Tensor:
    """Logits [B, L, V] of every slot given the conditions and the slots before it, differentiable."""
    return F.linear(features_of(llama, layout, conditions_BA, canvas_BL), llama.head_weight())


def features_of(llama: Llama, layout: Layout, conditions_BA: Tensor, canvas_BL: Tensor) -> Tensor:
    """The features [B, L, C] that the head reads for every slot, differentiable."""
    asked_BA = conditions_BA + torch.tensor(layout.starts, device=conditions_BA.device)
    read_BTC = llama.embed(torch.cat((asked_BA, canvas_BL[:, :-1]), dim=1))
    rows_L, columns_L = (at_L.to(canvas_BL.device) for at_L in layout.places())
    place_LC = llama.embed(rows_L) + llama.embed(columns_L)
    placed_BTC = read_BTC + F.pad(place_LC, (0, 0, layout.hidden - 1, 0))
    return llama.features(placed_BTC)[:, layout.hidden - 1 :]


class Raster:
    """The backbone of a causal session over such sequences: a model, usually packed, that is told the places."""

    def __init__(self, llama: Llama, layout: Layout) -> None:
        assert llama.config.extra_inputs == layout.extra_inputs, "a model of other conditions or another grid"
        self.llama = llama
        self.layout = layout
        self.config = llama.config
        self.vocab_size = llama.vocab_size
        self.context = llama.context
        self.device = llama.device
        with torch.no_grad():
            rows_L, columns_L = (llama.embeddings(at_L.to(llama.device)) for at_L in layout.places())
            place_LC = rows_L + columns_L
        # behind the last slot nothing is predicted; guesses there still have to be run
        self._place_TC = torch.cat((place_LC.new_zeros(layout.hidden - 1, place_LC.shape[1]), place_LC, place_LC[-1:]))

    def open_cache(self, capacity: int) -> KVCache:
        """An empty cache for one sequence."""
        return self.llama.open_cache(capacity)

    @torch.inference_mode()
    def forward_rows(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cache: KVCache,
        visible_NS: Tensor | None = None,
        last: int | None = None,
        layers: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Backbone.forward_rows`. layers: run only these."""
        read_NC = self.llama.embeddings(ids_N).add_(self._place_TC[positions_N])
        return self.llama.forward_rows(read_NC, positions_N, cache, visible_NS, last, layers)
