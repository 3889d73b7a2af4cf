"""Tiny masked painters of portraits with random weights."""

from __future__ import annotations

from typing import Any

import torch

from backend.meter import Meter
from backend.models.house.llama import Llama
from backend.models.house.masked import Mural, config_of
from backend.models.masked import MaskedModel, MuralSession
from backend.protocols import GridSession
from backend.types import Sampling
from tests.toys_raster import CELLS, CODEC, LAYOUT, PROMPT

WARM = Sampling(temperature=1.0)


def mural_net(seed: int = 0, num_layers: int = 2) -> Llama:
    """Random weights, unpacked, float32."""
    torch.manual_seed(seed)
    net = Llama(config_of(LAYOUT, dim=16, num_layers=num_layers, num_heads=2, ffn_dim=24))
    for name, weight in net.named_parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.5 if "embed" in name else 0.4)
    return net


def mural(name: str = "toy/mural", seed: int = 0, dtype: torch.dtype = torch.float64) -> MaskedModel:
    """A model that is packed."""
    packed = mural_net(seed).pack(dtype)
    return MaskedModel(name, Mural(packed, LAYOUT), CODEC, packed.num_params)


def opened(
    model: MaskedModel, raw: Any = PROMPT, sampling: Sampling = WARM, meter: Meter | None = None, room: int = 1
) -> MuralSession:
    """A session on a prompt, or on a given picture of which a part is painted again."""
    return model.open(GridSession, CODEC.encode(raw), sampling, meter or Meter(), room)


def half_known(seed: int = 0) -> list[int]:
    """A canvas of which about half of the cells are known."""
    chance = torch.Generator().manual_seed(seed)
    canvas_L = torch.randint(CODEC.size, (CELLS,), generator=chance)
    return torch.where(torch.rand(CELLS, generator=chance) < 0.5, canvas_L, -1).tolist()
