"""EAGLE's layer on the hidden states of a raster painter: it reads a code together with the place that comes next.

As in the painter itself (`raster`), an input is the code's vector plus those of the row and column of the slot that is
predicted; neither is in the layer's file. Conditions stand in the hidden states alone.

Letters: L slots of the canvas, V codes, C features, N rows of a call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backend.models.house.heads import Eagle, EagleLayer, Words
from backend.models.house.llama import Llama
from backend.models.house.raster import Layout


def words_of(llama: Llama, layout: Layout) -> Words:
    """The painter's embedding and head of all codes; conditions and places are left out."""
    embed_VC = llama.weights().embed_VC.detach()[: layout.num_codes]
    return Words.of(embed_VC, embed_VC, torch.arange(layout.num_codes))


def places_of(llama: Llama, layout: Layout) -> Tensor:
    """By slot of a code, the vector of the place that comes next, [L, C]; behind the last slot nothing is predicted."""
    embed_RC = llama.weights().embed_VC.detach()
    rows_L, columns_L = layout.places()
    place_LC = embed_RC[rows_L] + embed_RC[columns_L]
    return torch.cat((place_LC[1:], place_LC[-1:]))


class RasterEagle(Eagle):
    """The layer packed for decoding, on a painter.

    Args:
        heads: trained. painter: whose hidden states it continues, and whose embedding and head it reads.
    """

    def __init__(self, heads: EagleLayer, painter: Llama, layout: Layout, dtype: torch.dtype) -> None:
        words = words_of(painter, layout)
        super().__init__(heads, Words(words.embed_VC.to(dtype), words.head_KC.to(dtype), words.ids_K), dtype)
        self._place_LC = places_of(painter, layout).to(dtype)

    def _embedded(self, ids_N: Tensor, positions_N: Tensor) -> Tensor:
        return super()._embedded(ids_N, positions_N) + self._place_LC[positions_N]
