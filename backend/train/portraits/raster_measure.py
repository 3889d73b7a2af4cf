"""What a painter is worth: its loss on fresh portraits, how well a draft follows it, what it paints.

Letters: A attributes, L slots of the canvas, V codes, B portraits of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.chance import Ask, Seeded
from backend.codecs.atlas import Pixels
from backend.codecs.portraits import Which
from backend.meter import Meter
from backend.models.house.llama import Llama
from backend.models.house.portrait_judge import accuracy, fd_house, judge_of
from backend.models.house.raster import Raster
from backend.models.house.raster_fleet import paint_many
from backend.models.raster import RasterModel, guided
from backend.protocols import CausalSession, Prompt
from backend.registry import find
from backend.train.portraits.subjects import PIXELS, Subject
from backend.types import Sampling

Laws = Callable[[Llama, Tensor, Tensor], Tensor]
Draw = Callable[[int, np.random.Generator, Which], tuple[Tensor, Tensor]]
FRESH = 20_000_000  # seed of what measures are taken on; training draws from streams of three numbers
AT_ONCE = 32  # portraits a forward
GAMMA = 4  # pixels drafted before each call
SCALES = (1.0, 2.0, 3.0)  # of guidance, convention A


def fresh(draw: Draw, portraits: int, which: Which = "seen", half_open: bool = False) -> tuple[Tensor, Tensor]:
    """Conditions [B, A] and canvases [B, L] that are always the same; half_open: with each attribute open or not."""
    rng = np.random.default_rng([FRESH, which == "seen"])
    rows_BA, canvas_BL = draw(portraits, rng, which)
    if half_open:
        rows_BA = rows_BA * torch.from_numpy(rng.random(rows_BA.shape) < 0.5)
    return rows_BA, canvas_BL


def in_parts(conditions_BA: Tensor, canvas_BL: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Both, AT_ONCE portraits at a time."""
    return zip(torch.split(conditions_BA, AT_ONCE), torch.split(canvas_BL, AT_ONCE), strict=True)


@torch.inference_mode()
def nats(model: Llama, laws: Laws, conditions_BA: Tensor, canvas_BL: Tensor) -> float:
    """Mean loss a pixel."""
    device = next(model.parameters()).device
    total = 0.0
    for asked_BA, told_BL in in_parts(conditions_BA, canvas_BL):
        logits_BLV = laws(model, asked_BA.to(device), told_BL.to(device))
        total += float(F.cross_entropy(logits_BLV.flatten(0, 1), told_BL.flatten().to(device), reduction="sum"))
    return round(total / canvas_BL.numel(), 4)


def held_out(model: Llama, laws: Laws, draw: Draw, portraits: int) -> dict[str, Any]:
    """Losses on fresh portraits, by what of them is named."""
    named_BA, canvas_BL = fresh(draw, portraits)
    half_BA, _ = fresh(draw, portraits, half_open=True)
    return {
        "portraits": portraits,
        "nats_per_pixel_named": nats(model, laws, named_BA, canvas_BL),
        "nats_per_pixel_half_open": nats(model, laws, half_BA, canvas_BL),
        "nats_per_pixel_open": nats(model, laws, torch.zeros_like(named_BA), canvas_BL),
        "nats_per_pixel_held_out_pairs": nats(model, laws, *fresh(draw, portraits, "held_out")),
    }


@torch.inference_mode()
def agreement(
    draft: Llama, target: Llama, laws: Laws, subject: Subject, portraits: int, pictures: int
) -> dict[str, float | int]:
    """How well a draft follows its target.

    On fresh portraits with half of the attributes open, how often both think the same code best, and the overlap
    sum(min(p, q)) at temperature 1; and new pixels a target call when speculative decoding paints such prompts.
    """
    device = next(draft.parameters()).device
    conditions_BA, canvas_BL = fresh(subject.draw, portraits, half_open=True)
    same, overlap = 0.0, 0.0
    for asked_BA, told_BL in in_parts(conditions_BA, canvas_BL):
        q_BLV, p_BLV = (laws(m, asked_BA.to(device), told_BL.to(device)).softmax(-1) for m in (draft, target))
        same += float((q_BLV.argmax(-1) == p_BLV.argmax(-1)).sum())
        overlap += float(torch.minimum(p_BLV, q_BLV).sum())
    models, lengths = (painter(target, "target", subject), painter(draft, "draft", subject)), {}
    for temperature in (1.0, 0.0):
        told = [drafted(*models, asked, i, temperature) for i, asked in enumerate(conditions_BA[:pictures])]
        lengths[f"mean_acceptance_length_gamma{GAMMA}_temperature_{temperature:g}"] = round(
            sum(pixels for pixels, _ in told) / sum(calls for _, calls in told), 3
        )
    return {
        "agreement": round(same / canvas_BL.numel(), 4),
        "overlap_temperature_1": round(overlap / canvas_BL.numel(), 4),
        **lengths,
        "pictures": min(pictures, portraits),
    }


def painter(net: Llama, name: str, subject: Subject = PIXELS) -> RasterModel:
    """The model as it is decoded from, in float32."""
    packed = net.pack(torch.float32)
    return RasterModel(name, Raster(packed, subject.layout), subject.codec, packed.num_params)


def drafted(
    target: RasterModel, draft: RasterModel, conditions_A: Tensor, seed: int, temperature: float
) -> tuple[int, int]:
    """Pixels that speculative decoding paints, and target calls that it takes."""
    prompt, meter = Prompt((), {"conditions": conditions_A.tolist()}), Meter()
    sessions = [
        model.open(CausalSession, prompt, Sampling(temperature), counted, model.context)
        for model, counted in ((target, meter), (draft, Meter()))
    ]
    for _ in find("speculative").run(*sessions, Ask(target.context, Seeded(seed)), gamma=GAMMA):
        pass
    return len(sessions[0].tokens), meter.calls


def paint(model: RasterModel, conditions_A: Tensor, seed: int, temperature: float = 1.0) -> list[int]:
    """A canvas painted by plain decoding."""
    prompt = Prompt((), {"conditions": conditions_A.tolist()})
    session = model.open(CausalSession, prompt, Sampling(temperature), Meter(), model.context)
    for _ in find("autoregressive").run(session, Ask(model.context, Seeded(seed))):
        pass
    return list(session.tokens)


def painted(net: Llama, subject: Subject, folder: Path, pictures: int) -> dict[str, Any]:
    """Attributes that come out as asked for, by guidance: as the judge of the style in the folder reads the pictures.

    Prompts are those of fresh pictures with half of the attributes open; the house distance is to these pictures, and
    beside it stands that of as many others, which is what a perfect painter reaches. best: the guidance under which
    most attributes are right, the weakest of equals. Empty where there is no judge.
    """
    judge = judge_of(subject.style, folder)
    if judge is None or not pictures:
        return {}
    model, found = painter(net.cpu(), "painter", subject), dict[float, float]()
    asked_BA, _ = fresh(subject.draw, pictures, half_open=True)
    told: dict[str, Any] = {"pictures": pictures, "temperature": 1.0}
    real, others = (judge.features_of(part) for part in _real(subject, pictures))
    if pictures > 1:
        told["fd_house_of_as_many_real_pictures"] = round(fd_house(others, real), 4)
    for scale in SCALES:
        used = model if scale == 1 else guided(model, scale)
        canvases, _ = paint_many(used, asked_BA.tolist(), range(pictures), Sampling(1.0))
        pixels = model.codec.tokenizer.decode(np.asarray(canvases))
        right = accuracy(judge, pixels, asked_BA.numpy())
        told[f"accuracy_cfg_{scale:g}"] = {name: round(value, 4) for name, value in right.items()}
        if pictures > 1:
            told[f"fd_house_cfg_{scale:g}"] = round(fd_house(judge.features_of(pixels), real), 4)
        found[scale] = right.get("all", 0.0)
    return told | {"best": f"@cfg={max(found, key=lambda scale: found[scale]):g}"}


def _real(subject: Subject, pictures: int) -> tuple[Pixels, Pixels]:
    """The fresh pictures whose prompts `fresh` gives, and as many others where there are."""
    pixels, _ = subject.fresh(pictures, np.random.default_rng([FRESH, True]))
    more, _ = subject.fresh(2 * pictures, np.random.default_rng([FRESH, 2]))
    return pixels, more[pictures:]
