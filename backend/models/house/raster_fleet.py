"""Many portraits at once by plain decoding: one row of each in every call, so that hundreds can be judged.

No strategy and nothing that is timed: the law, and with a slot's own noise even the pixels, are those of the strategy
`autoregressive` for each portrait alone. Under guidance every portrait is two sequences side by side.

Letters: B portraits, A attributes, T = A + L positions, V codes, C features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from backend.chance import Seeded
from backend.models.guided import Guided
from backend.models.house.fleet import FleetCache, forward_fleet
from backend.models.house.layers import wide
from backend.models.house.llama import Llama
from backend.models.house.raster import Raster
from backend.models.raster import RasterModel
from backend.sampling import distribution
from backend.types import Sampling

AT_ONCE = 32  # portraits


def can_paint(model: object) -> bool:
    """Whether `paint_many` takes the model: a raster model with all of its layers, guided or not."""
    return isinstance(model, RasterModel) and isinstance(_backbone(model), Raster)


def paint_many(
    model: RasterModel, conditions: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
) -> tuple[list[list[int]], list[float]]:
    """Canvases of L codes for rows of A conditions, and their mean log probability at temperature 1, in nats a code."""
    canvases, nats = list[list[int]](), list[float]()
    for start in range(0, len(conditions), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        found = _paint(model, conditions[part], [Seeded(seed) for seed in seeds[part]], sampling)
        canvases += found[0]
        nats += found[1]
    return canvases, nats


@torch.inference_mode()
def _paint(
    model: RasterModel, conditions: Sequence[Sequence[int]], chances: Sequence[Seeded], sampling: Sampling
) -> tuple[list[list[int]], list[float]]:
    raster, layout = _backbone(model), model.layout
    assert isinstance(raster, Raster)
    guided = model.backbone if isinstance(model.backbone, Guided) else None
    packed = raster.llama.weights()
    llama = Llama(raster.llama.config, packed)  # our own, whose embedding is told the place of each position in turn
    sides = 1 if guided is None else 2
    cache = FleetCache(llama, sides * len(conditions), layout.context)
    embed_VC = packed.embed_VC.to(wide(packed.dtype))
    rows_LC, columns_LC = (llama.embeddings(at_L.to(llama.device)) for at_L in layout.places())
    place_LC = rows_LC + columns_LC
    opened = layout.opened()
    hidden_BA = torch.tensor([layout.rows(row) for row in conditions])
    canvases: list[list[int]] = [[] for _ in conditions]
    nats_B = torch.zeros(len(conditions), dtype=torch.float64)
    for at in range(layout.context - 1):
        ids_B = hidden_BA[:, at] if at < layout.hidden else torch.tensor([canvas[-1] for canvas in canvases])
        both = [ids_B] if guided is None else [ids_B, opened[ids_B]]
        if at + 1 >= layout.hidden:
            llama.packed = replace(packed, embed_VC=embed_VC + place_LC[at + 1 - layout.hidden])
        raw_MV = forward_fleet(llama, torch.cat(both).tolist(), cache, 0, [True] * cache.kv_LAZHSD.shape[1])
        if at + 1 < layout.hidden:
            continue
        raw_BV = raw_MV[: len(conditions), : layout.num_codes]
        if guided is not None:
            scale = guided.scale if guided.scale_T is None else float(guided.scale_T[at])
            raw_BV = torch.lerp(raw_MV[len(conditions) :, : layout.num_codes], raw_BV, scale)
        p_BV = distribution(raw_BV, sampling, canvases if sampling.repetition_penalty != 1.0 else [])
        slot = at + 1 - layout.hidden
        drawn = [chance.pick(p_V, slot) for chance, p_V in zip(chances, p_BV, strict=True)]
        nats_B += _log_chances(raw_BV, drawn)
        for canvas, token in zip(canvases, drawn, strict=True):
            canvas.append(token)
    return canvases, (nats_B / layout.length).tolist()


def _log_chances(raw_BV: Tensor, tokens: Sequence[int]) -> Tensor:
    return raw_BV.double().log_softmax(-1)[range(len(tokens)), list(tokens)].cpu()


def _backbone(model: RasterModel) -> object:
    return model.backbone.backbone if isinstance(model.backbone, Guided) else model.backbone
