"""What finished output is worth: a text to the model that wrote it, a picture to the judge that reads it.

That is the price that lossy decoding pays for its speed. Nothing here is part of a timed run.

Letters: A attributes, L slots of a canvas, N slots of a scale, V vocabulary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backend.catalog import ASSETS, Catalog
from backend.codecs.atlas import Pixels
from backend.codecs.image import UNKNOWN, ImageCodec
from backend.codecs.of_models import style_of_model
from backend.codecs.styles import PIXEL, STYLES
from backend.entries import preferred
from backend.errors import UserError
from backend.image_prompts import named
from backend.meter import Meter
from backend.models.house.portrait_judge import PortraitJudge, judge_name, judge_of
from backend.protocols import CausalSession, FlexibleSession, Model, Prompt, ScaleSession
from backend.registry import strategies
from backend.trace import Trace
from backend.types import Guarantee, Request, Sampling

AT_ONCE = 64  # tokens a call
JUDGES = ASSETS / "house"
PLAIN = Sampling(temperature=1.0)


def is_lossy(request: Request) -> bool:
    """Whether the strategy, with these knobs, promises nothing about the law of its output."""
    known = strategies().get(request.strategy)
    return known is not None and known.promises(request.knobs) is Guarantee.LOSSY


def is_worth_weighing(request: Request, catalog: Catalog) -> bool:
    """Whether a lane shows what its output is worth: lossy ones, and all that paint, whose target is then loaded."""
    target = request.models.get("target")
    return is_lossy(request) or (target is not None and catalog.get(target).codec.modality == "image")


def weighed(trace: Trace, catalog: Catalog) -> Trace:
    """The trace with what its output is worth, as far as that can be said.

    "log_likelihood": nats a token under the target. "by_painter": of a picture, nats a cell under the plain painter.
    "attributes": of those that the prompt of a picture names, the share that the judge reads back from it.
    """
    found = {
        "log_likelihood": log_likelihood(trace, catalog),
        "by_painter": by_painter(trace, catalog),
        "attributes": attributes_right(trace, catalog),
    }
    worth = {name: value for name, value in found.items() if value is not None}
    return replace(trace, worth=worth) if worth else trace


# --------------------------------------------------------------------------------------------------------- likelihood
def log_likelihood(trace: Trace, catalog: Catalog) -> float | None:
    """Mean log probability, in nats a token, of what was written, under the target at temperature 1 without filters.

    Causal targets tell it token by token, scale targets map by map, each with a token of its own meaning. None where
    nothing was written, and where the target gives no such law: a masked one has another for every order.
    """
    model = catalog.get(trace.request.models["target"])
    if CausalSession in model.speaks:
        total, count = _along_text(trace, model)
    elif ScaleSession in model.speaks:
        total, count = _along_scales(trace, model)
    else:
        return None
    return total / count if count and math.isfinite(total) else None


def _along_text(trace: Trace, model: Model) -> tuple[float, int]:
    """Sum of log probabilities and number of tokens; 0 tokens where there are none, or some are missing."""
    prompt = replace(model.codec.encode(trace.request.prompt), tokens=trace.prompt)  # with the codec's conditions
    canvas = trace.replay()
    room = sum(token >= 0 for token in canvas[len(trace.prompt) :])
    if not room:
        return 0.0, 0
    session = model.open(CausalSession, prompt, PLAIN, Meter(), room)
    written = canvas[len(session.tokens) :]  # a picture may start from cells that are given
    if -1 in written:
        return 0.0, 0
    total = 0.0
    for start in range(0, len(written), AT_ONCE):
        tokens = written[start : start + AT_ONCE]
        total += _log_chances(session.score(tokens).p_NV[:-1], tokens)
        session.commit(tokens)
    return total, len(written)


def _along_scales(trace: Trace, model: Model) -> tuple[float, int]:
    """The same for maps written coarse to fine, as many as there are."""
    written, sizes = trace.written(), _sizes(trace)
    if not written or -1 in written or sum(height * width for height, width in sizes) != len(written):
        return 0.0, 0
    protocol = FlexibleSession if FlexibleSession in model.speaks else ScaleSession
    session = model.open(protocol, model.codec.encode(trace.request.prompt), PLAIN, Meter(), len(written))
    if list(session.sizes)[: len(sizes)] != sizes:
        if not isinstance(session, FlexibleSession):
            return 0.0, 0
        session.plan(sizes)
    total, start = 0.0, 0
    for height, width in sizes:
        tokens = written[start : start + height * width]
        total, start = total + _log_chances(session.score(), tokens), start + len(tokens)
        session.commit(tokens)
    return total, len(written)


def _log_chances(p_NV: Tensor, tokens: Sequence[int]) -> float:
    """Sum of the log probabilities of one token a row."""
    chances_N = p_NV[range(len(tokens)), list(tokens)].clamp_min(torch.finfo(p_NV.dtype).tiny)
    return float(chances_N.double().log().sum())


def painter_of(target: str) -> str:
    """The painter that writes pictures of the target's style cell by cell, under as much guidance as the target."""
    scale = re.search(r"@cfg=[\d.]+", target)
    style = style_of_model(target)
    return preferred("house/portraits" if style == PIXEL else f"house/{style}") + (scale.group() if scale else "")


def by_painter(trace: Trace, catalog: Catalog, painter: str = "") -> float | None:
    """Mean log probability, in nats a cell, of a finished picture under one painter, whoever painted it and how.

    So the pictures of masked, coarse and distilled models have one, and those of all models compare. Cells that were
    given count as well. painter: its id, if not `painter_of` the target. None for what is no picture or not finished,
    and where there is no such painter.
    """
    model = catalog.get(trace.request.models["target"])
    if model.codec.modality != "image":
        return None
    try:
        reader = catalog.get(painter or painter_of(trace.request.models["target"]))
    except UserError:
        return None
    prompt = model.codec.encode(trace.request.prompt)
    raw = trace.request.prompt
    text: str = raw if isinstance(raw, str) else raw["prompt"]
    if model.codec.vocabulary == reader.codec.vocabulary and ScaleSession not in model.speaks:
        canvas = _canvas(trace, model, prompt)
        return None if canvas is None else nats_a_cell(reader, canvas, text)
    picture = finished(trace, model, prompt)
    return None if picture is None else nats_a_cell(reader, tokens_of(reader, picture), text)


def tokens_of(painter: Model, picture: Pixels) -> list[int]:
    """The canvas of a painter that shows a picture [S, S, 3] of its style."""
    assert isinstance(painter.codec, ImageCodec)
    tokens: list[int] = painter.codec.tokenizer.encode(picture[None])[0].tolist()
    return tokens


def nats_a_cell(painter: Model, tokens: Sequence[int], text: str) -> float:
    """Mean log probability of a whole canvas under a causal painter at temperature 1, given a prompt."""
    session = painter.open(CausalSession, painter.codec.encode(text), PLAIN, Meter(), len(tokens))
    return _log_chances(session.score(list(tokens)).p_NV[:-1], tokens) / len(tokens)


def _sizes(trace: Trace) -> list[tuple[int, int]]:
    """The maps that a run wrote, as its steps tell."""
    told = {
        int(step.figures["scale"]): (int(step.figures["height"]), int(step.figures["width"]))
        for step in trace.steps
        if {"scale", "height", "width"} <= step.figures.keys()
    }
    return [told[scale] for scale in sorted(told)]


# ----------------------------------------------------------------------------------------------------------- pictures
def judge(style: str = PIXEL, folder: Path = JUDGES) -> PortraitJudge | None:
    """The judge of a style, read once; None where it is not built."""
    return _read(style, folder) if (folder / f"{judge_name(style)}.safetensors").is_file() else None


_read = cache(judge_of)


def attributes_right(trace: Trace, catalog: Catalog, reader: PortraitJudge | None = None) -> float | None:
    """Of the attributes that the prompt of a finished picture names, the share that the judge reads back from it.

    None for what is no picture or not finished, where the prompt names nothing, and where no judge is built.
    reader: the judge to ask, where not the shipped one.
    """
    model = catalog.get(trace.request.models["target"])
    if model.codec.modality != "image":
        return None
    prompt = model.codec.encode(trace.request.prompt)
    style = style_of_model(trace.request.models["target"])
    asked_A, reader = prompt.extras.get("conditions", ()), reader or judge(style)
    if not named(asked_A, style) or reader is None:
        return None
    picture = finished(trace, model, prompt)
    if picture is None:
        return None
    right, asked = hits(reader, picture[None], [asked_A])[0]
    return right / asked


def hits(reader: PortraitJudge, pictures: Pixels, conditions: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Attributes that the judge reads as asked for, and attributes named, of each of the pictures [B, S, S, 3]."""
    read_BA = reader.attributes(pictures)
    places = [named(asked_A, reader.style) for asked_A in conditions]
    rows = zip(read_BA.tolist(), conditions, places, strict=True)
    return [(sum(read_A[i] == asked_A[i] for i in at), len(at)) for read_A, asked_A, at in rows]


def finished(trace: Trace, model: Model, prompt: Prompt) -> Pixels | None:
    """The picture [S, S, 3] that a run painted, at the side of its style; None while some of it is open."""
    side = STYLES[style_of_model(trace.request.models["target"])].side
    if ScaleSession in model.speaks:
        written = trace.written()
        whole = trace.end in ("budget", "end token") and _ends_whole(trace)
        return small(model.codec.decode(written), side) if whole and UNKNOWN not in written else None
    canvas = _canvas(trace, model, prompt)
    return None if canvas is None else small(model.codec.decode(canvas), side)


def _canvas(trace: Trace, model: Model, prompt: Prompt) -> list[int] | None:
    """The tokens of a finished picture that is one canvas, given ones included; None while some are open."""
    written, given = trace.written(), prompt.extras.get("canvas", ())
    canvas = [*written, *[UNKNOWN] * (len(given) - len(written))]
    canvas = [given[i] if token == UNKNOWN and i < len(given) else token for i, token in enumerate(canvas)]
    return canvas if len(canvas) >= model.context and UNKNOWN not in canvas else None


def _ends_whole(trace: Trace) -> bool:
    """Whether the last of the scales was written, and nothing beside what the steps tell."""
    sizes = _sizes(trace)
    last = trace.steps[-1].figures if trace.steps else {}
    everything = sum(height * width for height, width in sizes)
    return bool(sizes) and last.get("scale") == last.get("scales") and everything == len(trace.written())


def small(picture: Pixels, side: int = 16) -> Pixels:
    """A square picture at the side that a judge reads: the middle of every cell. ValueError where it has none."""
    step, rest = divmod(picture.shape[0], side)
    if rest or not step or picture.shape[0] != picture.shape[1]:
        raise ValueError(f"a picture of {picture.shape} is not made of {side}x{side} cells")
    return np.ascontiguousarray(picture[step // 2 :: step, step // 2 :: step])
