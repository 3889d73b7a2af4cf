"""Tiny painters of maps with random weights, and runs of them through the real runner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from backend.codecs.pyramid import Kind, shipped
from backend.codecs.scales import ScaleCodec
from backend.models.house.scales import Scales, ScalesConfig
from backend.models.scales import ScaleModel
from backend.registry import find
from backend.run import record
from backend.trace import Trace
from backend.types import Request, Sampling
from tests.toys_raster import PROMPT, Painters

WARM = Sampling(temperature=1.0)
TINY = ScalesConfig("area", dim=16, num_layers=2, num_heads=2, ffn_dim=24)


def scales_net(kind: Kind = "area", seed: int = 0, dtype: torch.dtype = torch.float64, **changes: Any) -> Scales:
    """Random weights, large enough that everything a row reads changes its law."""
    config = ScalesConfig(
        **{**{name: getattr(TINY, name) for name in TINY.__dataclass_fields__}, "kind": kind, **changes}
    )
    torch.manual_seed(seed)
    net = Scales(config, shipped(kind))
    for name, weight in net.named_parameters():
        if weight.dim() == 2 or name.endswith(".own"):
            torch.nn.init.normal_(weight, std=0.8 if "embed" in name else 0.4)
    return net.to(dtype).requires_grad_(False)


def scales_model(name: str = "toy/scales", **options: Any) -> ScaleModel:
    """A model of such weights."""
    net = scales_net(**options)
    return ScaleModel(name, net, ScaleCodec(net.pyramid))


def paint_maps(
    strategy: str,
    models: Sequence[ScaleModel],
    raw: Any = PROMPT,
    sampling: Sampling = WARM,
    seed: int = 3,
    **knobs: Any,
) -> Trace:
    """The trace of a run over the whole canvas; the first model is the target, the last one plays other roles."""
    ids = dict.fromkeys(find(strategy).roles, models[-1].id) | {"target": models[0].id}
    request = Request(strategy, raw, ids, knobs, sampling, models[0].context, seed)
    return record(request, Painters(*models))  # type: ignore[arg-type]
