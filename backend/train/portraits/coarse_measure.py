"""What house/portraits-coarse is worth: losses and entropies of groups and codes, and what it paints by how it decodes.

Letters: A attributes, L slots of the canvas, V codes, M groups, B portraits of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.chance import Ask, Seeded
from backend.codecs.atlas import Pixels
from backend.meter import Meter
from backend.models.coarse import CoarseModel, coarse_model, guided
from backend.models.house.coarse import CoarseNets
from backend.models.house.llama import Llama
from backend.protocols import CoarseSession, Prompt
from backend.registry import find
from backend.train.portraits.judged import judged, seen
from backend.train.portraits.raster_measure import Draw, fresh, in_parts
from backend.types import Sampling

GUIDANCE = 2.0  # convention A
ROUNDS = 4
GroupLaws = Callable[[Llama, Tensor, Tensor], Tensor]  # net, conditions, groups -> logits [B, L, M]
CodeLaws = Callable[[Llama, Tensor, Tensor, Tensor], Tensor]  # net, conditions, groups, known codes -> logits [N, V]


def held_out(nets: CoarseNets, draw: Draw, laws: tuple[GroupLaws, CodeLaws], portraits: int) -> dict[str, Any]:
    """Losses and entropies on fresh portraits in nats a pixel, by what of them is named."""
    named_BA, canvas_BL = fresh(draw, portraits)
    half_BA, _ = fresh(draw, portraits, half_open=True)
    return {
        "portraits": portraits,
        "named": _told(nets, laws, named_BA, canvas_BL),
        "half_open": _told(nets, laws, half_BA, canvas_BL),
        "open": _told(nets, laws, torch.zeros_like(named_BA), canvas_BL),
        "held_out_pairs": _told(nets, laws, *fresh(draw, portraits, "held_out")),
    }


@torch.inference_mode()
def _told(
    nets: CoarseNets, laws: tuple[GroupLaws, CodeLaws], conditions_BA: Tensor, canvas_BL: Tensor
) -> dict[str, float]:
    group_V, device = torch.tensor(nets.group_V), next(nets.painter.parameters()).device
    totals = dict.fromkeys(("nats_of_group", "nats_of_code", "entropy_of_group", "entropy_of_code"), 0.0)
    for asked_BA, told_BL in in_parts(conditions_BA, canvas_BL):
        groups_BL = group_V[told_BL]
        given = (asked_BA.to(device), groups_BL.to(device))
        raw_NM = laws[0](nets.painter, *given).flatten(0, 1).cpu()
        raw_NV = laws[1](nets.refiner, *given, torch.full_like(given[1], -1)).cpu()
        for name, raw, wanted in (("group", raw_NM, groups_BL), ("code", raw_NV, told_BL)):
            totals[f"nats_of_{name}"] += float(F.cross_entropy(raw, wanted.flatten(), reduction="sum"))
            totals[f"entropy_of_{name}"] += float(torch.special.entr(raw.softmax(-1)).sum())
    told = {name: round(total / canvas_BL.numel(), 4) for name, total in totals.items()}
    return told | {"nats_of_both": round((totals["nats_of_group"] + totals["nats_of_code"]) / canvas_BL.numel(), 4)}


def painted(nets: CoarseNets, name: str, folder: Path, pictures: int) -> dict[str, Any]:
    """What it paints at temperature 1, as the judge in the folder sees it, and calls of both nets a picture.

    `groups_alone` shows every group as its middle code, `any_of_the_group` a random one of its codes. Empty where
    there is no judge.
    """
    plain = coarse_model(name, CoarseNets(nets.painter.cpu(), nets.refiner.cpu(), nets.group_V), torch.float32)
    strong = guided(plain, GUIDANCE)
    ways: dict[str, tuple[CoarseModel, Mapping[str, Any], str]] = {
        "one_round_cfg_1": (plain, {}, ""),
        f"one_round_cfg_{GUIDANCE:g}": (strong, {}, ""),
        f"one_round_likeliest_cfg_{GUIDANCE:g}": (strong, {"fine_temperature": 0.0}, ""),
        f"rounds_{ROUNDS}_cfg_{GUIDANCE:g}": (strong, {"rounds": ROUNDS}, ""),
        f"groups_alone_cfg_{GUIDANCE:g}": (strong, {}, "middle"),
        f"any_of_the_group_cfg_{GUIDANCE:g}": (strong, {}, "any"),
    }
    calls: dict[str, list[tuple[int, int]]] = {way: [] for way in ways}

    def paint(conditions_A: list[int], seed: int, way: str) -> Pixels:
        model, knobs, coarse = ways[way]
        canvas, counted = _canvas(model, conditions_A, seed, knobs)
        calls[way].append(counted)
        if coarse:
            canvas = _coarse(model, canvas, seed if coarse == "any" else None)
        return seen(model.codec.tokenizer, canvas)

    told = judged(((way, partial(paint, way=way)) for way in ways), folder, pictures)
    if not told:
        return {}
    for way, counted in calls.items():
        both = np.mean(counted, axis=0)
        told[way] |= {"calls_for_groups": round(float(both[0]), 1), "calls_for_codes": round(float(both[1]), 1)}
    return {"strategy": "coarse_to_fine", "knobs": find("coarse_to_fine").settle({}), "temperature": 1.0, **told}


def _canvas(
    model: CoarseModel, conditions_A: list[int], seed: int, knobs: Mapping[str, Any]
) -> tuple[list[int], tuple[int, int]]:
    """Codes of one portrait, and calls of both nets."""
    meter, prompt = Meter(), Prompt((), {"conditions": conditions_A})
    session = model.open(CoarseSession, prompt, Sampling(1.0), meter, model.context)
    frames = [step.frame for step in find("coarse_to_fine").run(session, Ask(model.context, Seeded(seed)), **knobs)]
    return list(frames[-1]), (meter.calls, meter.part("fine").calls)


def _coarse(model: CoarseModel, canvas: list[int], seed: int | None) -> list[int]:
    """Every code's group as its middle code, or, with a seed, as any of its codes."""
    if seed is None:
        return [model.medoids[model.members[code]] for code in canvas]
    rng, members = np.random.default_rng([seed]), np.asarray(model.members)
    return [int(rng.choice(np.flatnonzero(members == members[code]))) for code in canvas]
