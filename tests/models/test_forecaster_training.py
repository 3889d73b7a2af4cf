"""Training of the forecasters over patches: what a batch holds, what is learned in a few steps, and resuming."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from backend.models.forecaster import load_forecaster
from backend.models.house.forecaster import Forecaster, read_forecaster
from backend.train.forecast import patches, patches_measure
from backend.train.forecast.held_out import Case
from backend.train.forecast.patches import HELD, TINY, Job, build, draw, held_out_loss, scaled, spans, walks

WINDOWS = walks(200).numpy()
WINDOWS[::3, :600] = math.nan  # short series stand at the end of their windows
WINDOWS[1::7, 650:660] = math.nan


def job(tmp_path: Path, model: str = "target", steps: int = 12) -> Job:
    recipe = replace(TINY[model], steps=steps)
    return Job(model, recipe, WINDOWS, spans(WINDOWS), tmp_path, tmp_path)


def test_spans_end_with_the_window() -> None:
    assert spans(WINDOWS)[0] == 168
    assert spans(WINDOWS)[1] == 768


def test_a_batch_has_one_number_of_patches_in_front_and_short_series_too(tmp_path: Path) -> None:
    fronts = set()
    for i in range(30):
        batch_BNP, front = draw(job(tmp_path), (0, i))
        fronts.add(front)
        assert batch_BNP.shape[1:] == (front + 4, 16)
        assert len(batch_BNP) == 512 // (front + 4)
        known_BN = torch.isfinite(batch_BNP).any(-1)
        assert bool(known_BN[:, front - 1].all()), "an origin with nothing known before it"
        assert known_BN[:, front].float().mean() > 0.9, "nothing to forecast"
    assert min(fronts) == 2
    assert max(fronts) > 16


def test_the_scale_is_that_of_the_past(tmp_path: Path) -> None:
    y_BT = torch.randn(5, 64).cumsum(1)
    z_BT = scaled(y_BT, 40)
    later_BT = y_BT.clone()
    later_BT[:, 40:] *= 3.0
    assert torch.equal(scaled(later_BT, 40)[:, :40], z_BT[:, :40])
    location_B = y_BT[:, :40].median(1).values
    spread_B = (y_BT[:, :40] - location_B[:, None]).abs().mean(1)
    assert torch.allclose(z_BT, torch.arcsinh((y_BT - location_B[:, None]) / spread_B[:, None]), atol=1e-5)
    flat_BT = y_BT.clone()
    flat_BT[0, :40] = 2.0
    assert bool(torch.isnan(scaled(flat_BT, 40)[0]).all()), "a constant past has no scale"


def test_held_out_windows_are_never_drawn(tmp_path: Path) -> None:
    marked = np.full((200, 768), 1.0, dtype=np.float32)
    marked += np.linspace(0, 1, 768, dtype=np.float32)
    marked[::HELD, 1::2] *= -1.0  # held-out series swing
    own = replace(job(tmp_path), windows_NW=marked, span_N=spans(marked))
    swings = {}
    for held in (False, True):
        batch_BNP, _ = draw(own, (0, 1), held)
        swings[held] = float(batch_BNP.flatten(1).diff(dim=1).abs().nanmean())
    assert swings[False] < 0.1 < 1.0 < swings[True]


def test_a_few_steps_learn_and_training_resumes(tmp_path: Path) -> None:
    whole, parts = job(tmp_path / "whole"), job(tmp_path / "parts")
    before = held_out_loss(whole, Forecaster(whole.recipe.config), 2)
    after = held_out_loss(whole, build(whole), 2)
    assert after < before - 0.5
    saved, patches.SAVED_EVERY = patches.SAVED_EVERY, 5
    try:
        build(parts)
    finally:
        patches.SAVED_EVERY = saved
    first, second = (read_forecaster(j.weights).state_dict() for j in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    build(whole)  # nothing is left to do
    again = read_forecaster(whole.weights).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_card_tells_errors(tmp_path: Path) -> None:
    build(job(tmp_path))
    model = load_forecaster("house/forecaster", tmp_path / "forecaster.safetensors", "cpu")
    y_T = walks(1, 100, seed=4)[0].double().numpy()
    cases = [Case("a", y_T[:70], y_T[70:90], 4, "walks"), Case("b", y_T[:60], y_T[60:80], 4, "walks")]
    told = patches_measure.held_out(model, {"walks": cases, "none": []})
    assert set(told) == {"walks"}
    assert set(told["walks"]) == {"recursive", "direct", "seasonal naive"}
    assert told["walks"]["recursive"]["n"] == 2
    assert all(math.isfinite(x) for row in told["walks"].values() for x in row.values())
    json.dumps(told)
