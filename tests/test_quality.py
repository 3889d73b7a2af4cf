"""What output is worth: likelihoods from the toys' own tables, whoever wrote it; attributes as a judge reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import quality
from backend.codecs.captions import parse
from backend.codecs.portraits import draw_rows, draw_rows_as_pixels, enlarge
from backend.meter import Meter
from backend.models.house.portrait_judge import fd_house
from backend.protocols import CausalSession
from backend.quality import (
    attributes_right,
    by_painter,
    finished,
    hits,
    is_worth_weighing,
    log_likelihood,
    painter_of,
    small,
    tokens_of,
    weighed,
)
from backend.trace import Trace
from backend.types import Fate, Mark, Request, Sampling, Step
from tests.strategies.causal.played import COLD, WARM, play
from tests.toys import ToyCatalog, causal_pair
from tests.toys_continuous import ToyForecaster
from tests.toys_image import ToyFlexible, ToyGrid, paint
from tests.toys_raster import CODEC, Painters, painter


@pytest.mark.parametrize("sampling", [COLD, WARM])
@pytest.mark.parametrize("budget", [1, 7, 130])
def test_is_the_mean_log_probability_under_the_table(sampling: Sampling, budget: int) -> None:
    models = causal_pair(size=4, zeros=0.0)
    for model in models:
        model.context = 200
    trace = play("speculative", models, sampling=sampling, budget=budget)
    text = trace.replay()
    expected = [math.log(models[0].law(text[:i])[text[i]]) for i in range(len(trace.prompt), len(text))]
    got = log_likelihood(trace, ToyCatalog(models))  # type: ignore[arg-type]
    assert len(expected) == budget
    assert got == pytest.approx(sum(expected) / len(expected))


def test_says_nothing_of_empty_texts_open_slots_and_other_models() -> None:
    models = causal_pair()
    catalog = ToyCatalog([*models, ToyForecaster("toy/series")])
    empty = Trace(Request("autoregressive", "0", {"target": models[0].id}), (0,))
    hole = replace(empty, steps=(Step((Mark(2, 1, Fate.BONUS),)),))
    series = replace(hole, request=Request("autoregressive", "0", {"target": "toy/series"}))
    for trace in (empty, hole, series):
        assert log_likelihood(trace, catalog) is None  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------------- pictures
class Reads:
    """A judge that reads off every picture what it is told."""

    style = "pixel"

    def __init__(self, *told: str) -> None:
        self.told = [parse(prompt).row() for prompt in told]

    def attributes(self, pictures: np.ndarray) -> np.ndarray:
        """The same codes for every picture, by its place."""
        assert pictures.shape == (len(self.told), 16, 16, 3)
        return np.asarray(self.told)


def painted(canvas: Sequence[int], prompt: Any = "red shirt, blue hair", **more: Any) -> Trace:
    """A trace that wrote a canvas at once; open cells are -1."""
    marks = tuple(Mark(slot, token, Fate.BONUS) for slot, token in enumerate(canvas) if token >= 0)
    request = Request("autoregressive", prompt, {"target": "toy/painter"})
    return Trace(request, (), steps=(Step(marks, **more),), end="budget")


def test_attributes_are_those_that_the_prompt_names() -> None:
    """Hair and its missing shape, the shirt and its colour: three named, of which the judge sees two."""
    catalog: Any = Painters(painter())
    reader: Any = Reads("red vest, blue hair, dark skin")
    whole = painted([7] * 256)
    assert attributes_right(whole, catalog, reader) == pytest.approx(2 / 3)
    assert attributes_right(painted([7] * 255), catalog, reader) is None
    assert attributes_right(painted([7] * 100 + [-1] + [7] * 155), catalog, reader) is None
    assert attributes_right(painted([7] * 256, "a portrait"), catalog, reader) is None


def test_given_cells_are_part_of_the_picture() -> None:
    """The upper half is given, the strategy paints the rest; its likelihood is that of what it painted."""
    model = painter()
    catalog: Any = Painters(model)
    image = CODEC.decode([3] * 256)
    mask = np.zeros(image.shape[:2], dtype=np.uint8)
    mask[32:] = 255
    prompt = {"prompt": "red shirt", "image": image, "mask": mask}
    trace = painted([-1] * 128 + [5] * 128, prompt)
    picture = finished(trace, model, CODEC.encode(prompt))  # type: ignore[arg-type]
    assert picture is not None
    assert (picture == small(CODEC.decode([3] * 128 + [5] * 128))).all()
    session = model.open(CausalSession, CODEC.encode(prompt), WARM, Meter(), 128)
    p_NV = session.score([5] * 128).p_NV
    assert log_likelihood(trace, catalog) == pytest.approx(float(p_NV[:-1, 5].log().mean()))


def test_worth_is_told_of_everything_that_paints() -> None:
    models = causal_pair()
    catalog: Any = ToyCatalog(models)
    assert not is_worth_weighing(Request("autoregressive", "0", {"target": models[0].id}), catalog)
    assert not is_worth_weighing(Request("autoregressive", "0"), catalog)
    assert is_worth_weighing(Request("judge", "0"), catalog)
    assert is_worth_weighing(Request("autoregressive", "0", {"target": "toy/painter"}), Painters(painter()))  # type: ignore[arg-type]


def test_weighed_tells_what_can_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(quality, "judge", lambda *style: Reads("red shirt, blue hair"))
    catalog: Any = Painters(painter())
    worth = weighed(painted([7] * 256), catalog).worth
    assert worth["attributes"] == 1.0
    assert worth["log_likelihood"] < 0
    assert "attributes" not in weighed(painted([7] * 20), catalog).worth
    monkeypatch.undo()
    assert quality.judge("thumbs", tmp_path) is None


# --------------------------------------------------------------------------------------------------------------- scales
def test_maps_are_told_one_after_the_other() -> None:
    """next_scale on a toy whose tables are known; fewer maps, then those of the model with these maps alone."""
    toy = ToyFlexible(sizes=((1, 1), (1, 2), (2, 2)))
    for strategy, knobs in (("next_scale", {}), ("flexible_scale", {"scales": 2})):
        trace = paint(strategy, [toy], **knobs)
        target = toy if strategy == "next_scale" else toy.only(((1, 1), (2, 2)))
        text, start, total = trace.written(), 0, 0.0
        for at, (height, width) in enumerate(target.sizes):
            tokens = text[start : start + height * width]
            p_NV = target.given(tuple(text[:start]), at)
            total += sum(math.log(float(p_NV[i, token])) for i, token in enumerate(tokens))
            start += len(tokens)
        assert log_likelihood(trace, ToyCatalog([toy])) == pytest.approx(total / len(text))  # type: ignore[arg-type]
        assert log_likelihood(replace(trace, steps=()), ToyCatalog([toy])) is None  # type: ignore[arg-type]


def test_masked_targets_have_no_likelihood() -> None:
    grid = ToyGrid()
    assert log_likelihood(paint("random_order", [grid]), ToyCatalog([grid])) is None  # type: ignore[arg-type]


def test_every_picture_is_worth_something_to_the_painter_that_writes_cell_by_cell() -> None:
    """Under its own law that is the likelihood of its tokens; unfinished pictures and texts have none."""
    own = painter("toy/painter")
    catalog: Any = Painters(own)
    told = log_likelihood(painted([7] * 256), catalog)
    assert by_painter(painted([7] * 256), catalog, "toy/painter") == pytest.approx(told)
    assert tokens_of(own, small(CODEC.decode([7] * 256))) == [7] * 256
    assert by_painter(painted([7] * 255), catalog, "toy/painter") is None  # not finished
    assert by_painter(painted([7] * 256), catalog) is None  # no house model here
    text = Trace(Request("autoregressive", "0", {"target": causal_pair()[0].id}), (0,))
    assert by_painter(text, ToyCatalog(causal_pair())) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "painter_id"),
    [
        ("house/portraits-masked@cfg=3", "house/portraits@cfg=3"),
        ("house/portraits-flex@cfg=2.5-linear", "house/portraits@cfg=2.5"),
        ("house/portraits-student", "house/portraits"),
        ("house/thumbs-masked@cfg=2", "house/thumbs@cfg=2"),
    ],
)
def test_painters_are_those_of_style_and_guidance(target: str, painter_id: str) -> None:
    assert painter_of(target) == painter_id


def test_small_pictures_are_the_middle_of_the_cells() -> None:
    picture = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    assert (small(enlarge(picture, 64)) == picture).all()
    with pytest.raises(ValueError, match="not made of 16x16 cells"):
        small(np.zeros((20, 20, 3), dtype=np.uint8))


@pytest.mark.skipif(quality.judge() is None, reason="the judge of portraits is not built")
def test_the_shipped_judge_reads_drawn_portraits() -> None:
    rows = draw_rows(64, np.random.default_rng(5))
    reader = quality.judge()
    assert reader is not None
    pixels = CODEC.tokenizer.decode(CODEC.tokenizer.encode(draw_rows_as_pixels(rows, np.random.default_rng(6))))
    scores = hits(reader, pixels, rows.tolist())
    assert sum(right for right, _ in scores) > 0.97 * sum(asked for _, asked in scores)
    half, others, turned = (reader.features_of(each) for each in (pixels[:32], pixels[32:], 255 - pixels[32:]))
    assert fd_house(half, others) < fd_house(half, turned)
