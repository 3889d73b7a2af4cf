"""Portraits painted together are those that plain decoding paints one by one, with the same seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backend.models.house import raster_fleet
from backend.models.house.raster_fleet import can_paint, paint_many
from backend.models.raster import RasterModel, guided
from backend.quality import log_likelihood
from backend.run import record
from backend.types import Fate, Mark, Request, Sampling, Step
from tests.toys import causal_pair
from tests.toys_raster import CELLS, CODEC, Painters, painter

PROMPTS = ("brown skin, short blue hair", "no hat, a red shirt", "bald, no beard, frowning, mint background")


@pytest.mark.parametrize(("scale", "schedule"), [(None, None), (2.5, None), (2.5, "cosine")])
def test_paints_what_the_strategy_paints(scale: float | None, schedule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster_fleet, "AT_ONCE", 2)
    model = painter() if scale is None else guided(painter(), scale, schedule)
    catalog = Painters(model)
    sampling = Sampling(temperature=0.8, top_k=60)
    model.context, cells = 24, 24  # of the pictures painted one by one
    asked = [CODEC.encode(prompt).extras["conditions"] for prompt in PROMPTS]
    canvases, nats = paint_many(model, asked, [4, 5, 6], sampling)
    for prompt, seed, canvas, worth in zip(PROMPTS, (4, 5, 6), canvases, nats, strict=True):
        request = Request("autoregressive", prompt, {"target": model.id}, {}, sampling, cells, seed)
        trace = record(request, catalog)  # type: ignore[arg-type]
        assert canvas[:cells] == trace.replay()
        marks = tuple(Mark(slot, token, Fate.BONUS) for slot, token in enumerate(canvas))
        model.context = CELLS
        whole = replace(trace, steps=(Step(marks),))
        assert worth == pytest.approx(log_likelihood(whole, catalog))  # type: ignore[arg-type]
        model.context = cells


def test_takes_whole_raster_models_only() -> None:
    model = painter()
    assert can_paint(model)
    assert can_paint(guided(model, 3.0))
    assert not can_paint(causal_pair()[0])
    twin = RasterModel("toy/twin", causal_pair()[0], CODEC, 1)  # type: ignore[arg-type]
    assert not can_paint(twin)
