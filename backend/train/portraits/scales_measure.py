"""What a painter of maps is worth: its loss on fresh portraits by map, what it paints, what its pyramid loses.

Letters: A attributes, K maps, L cells of all maps, V codes, B portraits of a batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.chance import Ask, Seeded
from backend.codecs.atlas import Pixels
from backend.codecs.pyramid import UNKNOWN
from backend.codecs.scales import ScaleCodec
from backend.meter import Meter
from backend.models.house.scales import Scales, logits_of
from backend.models.scales import ScaleModel, guided
from backend.protocols import Prompt, RedrawingSession, ScaleSession
from backend.registry import find
from backend.train.portraits.judged import judged
from backend.train.portraits.raster import CODEC, draw_batch
from backend.train.portraits.raster_measure import AT_ONCE, fresh, in_parts
from backend.types import Sampling

SCALES = (1.0, 2.0, 3.0)  # of guidance, convention A
REDRAWN = 0.5  # share of the cells that are masked where a mask branch is measured


@torch.inference_mode()
def held_out(model: Scales, portraits: int) -> dict[str, Any]:
    """Mean nats a token of fresh portraits by map, in all, and by what of them is named."""
    named_BA, cells_BL = fresh(draw_batch, portraits)
    half_BA, _ = fresh(draw_batch, portraits, half_open=True)
    kinds = {
        "named": (named_BA, cells_BL),
        "half_open": (half_BA, cells_BL),
        "open": (torch.zeros_like(named_BA), cells_BL),
        "held_out_pairs": fresh(draw_batch, portraits, "held_out"),
    }
    told: dict[str, Any] = {"portraits": portraits}
    for name, (conditions_BA, part_BL) in kinds.items():
        canvas_BL = torch.from_numpy(model.pyramid.encode(CODEC.tokenizer.decode(part_BL.numpy())))
        told[f"nats_per_token_{name}"] = by_map(model, nats_of(model, conditions_BA, canvas_BL))
        if model.config.redraws and name == "half_open":
            told[f"nats_per_masked_token_{name}"] = redrawn_nats(model, conditions_BA, canvas_BL)
    return told


def nats_of(model: Scales, conditions_BA: Tensor, canvas_BL: Tensor) -> Tensor:
    """The loss of every token, [B, L]."""
    parts = [
        F.cross_entropy(
            logits_of(model, asked_BA.to(model.device), told_BL.to(model.device)).float().transpose(1, 2),
            told_BL.to(model.device),
            reduction="none",
        ).cpu()
        for asked_BA, told_BL in in_parts(conditions_BA, canvas_BL)
    ]
    return torch.cat(parts)


def by_map(model: Scales, nats_BL: Tensor) -> dict[str, float]:
    """Means by map, and of all tokens."""
    starts = model.pyramid.starts
    told = {
        f"{height}x{width}": round(float(nats_BL[:, starts[at] : starts[at + 1]].mean()), 4)
        for at, (height, width) in enumerate(model.pyramid.sizes)
    }
    return told | {"all": round(float(nats_BL.mean()), 4), "picture": round(float(nats_BL.sum(1).mean()), 2)}


def redrawn_nats(model: Scales, conditions_BA: Tensor, canvas_BL: Tensor) -> dict[str, float]:
    """Mean nats of cells of which half are masked, by the mask branch and, the same cells, without it; by map."""
    plain_BL, told = nats_of(model, conditions_BA, canvas_BL), {}
    masked_BL = torch.from_numpy(np.random.default_rng(len(canvas_BL)).random(canvas_BL.shape) < REDRAWN)
    device, starts = model.device, model.pyramid.starts
    for at in range(1, len(model.pyramid.sizes)):
        span, total = slice(starts[at], starts[at + 1]), 0.0
        for asked_BA, part_BL, hidden_BL in zip(
            *(torch.split(x, AT_ONCE) for x in (conditions_BA, canvas_BL, masked_BL)), strict=True
        ):
            maps = model.totals(part_BL.to(device), range(at + 1))[-1:]
            partial_BN = part_BL.masked_fill(hidden_BL, UNKNOWN)[:, span].to(device)
            features_BNC = model.redrawn(asked_BA.to(device), maps, [partial_BN])[0]
            logits_BNV = model.logits(features_BNC, at, redrawn=True).float().cpu()
            nats_BN = F.cross_entropy(logits_BNV.transpose(1, 2), part_BL[:, span], reduction="none")
            total += float(nats_BN[hidden_BL[:, span]].sum())
        height, width = model.pyramid.sizes[at]
        count = int(masked_BL[:, span].sum())
        told[f"{height}x{width}"] = round(total / max(count, 1), 4)
        without = float(plain_BL[:, span][masked_BL[:, span]].sum()) / max(count, 1)
        told[f"{height}x{width}_first_draw"] = round(without, 4)
    return told


def painted(net: Scales, folder: Path, pictures: int) -> dict[str, Any]:
    """What it paints with `next_scale`, by guidance, as the judge in the folder sees it; empty where there is none.

    A model with a mask branch paints with `masked_scale`, too.
    """
    codec = ScaleCodec(net.pyramid)
    plain = ScaleModel("portraits", net.cpu(), codec)
    ways = []
    for scale in SCALES:
        model = plain if scale == 1 else guided(plain, scale)
        ways.append((f"cfg_{scale:g}", lambda asked, seed, model=model: paint(model, asked, seed)))
        if net.config.redraws:
            again = f"cfg_{scale:g}_masked_scale"
            ways.append((again, lambda asked, seed, model=model: paint(model, asked, seed, "masked_scale")))
    told = judged(ways, folder, pictures)
    return {"strategy": "next_scale", "sampling_temperature": 1.0, **told} if told else {}


def paint(model: ScaleModel, conditions_A: list[int], seed: int, strategy: str = "next_scale") -> Pixels:
    """The picture [16, 16, 3] that a strategy paints at temperature 1."""
    prompt = Prompt((), {"conditions": conditions_A})
    protocol = RedrawingSession if strategy == "masked_scale" else ScaleSession
    session = model.open(protocol, prompt, Sampling(1.0), Meter(), model.context)
    found = find(strategy)
    for _ in found.run(session, Ask(model.context, Seeded(seed)), **found.settle({})):
        pass
    assert session.at == len(session.sizes)
    return model.codec.pyramid.shown(session.total)
