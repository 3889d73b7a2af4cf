"""Special to closed_loop: as many calls as doublings, and the same curve as one step after the other."""

from __future__ import annotations

import math

import pytest
import torch

from backend.models.house.state_space import SpaceConfig, StateSpace
from backend.models.series_space import SpaceModel
from backend.run import record
from backend.trace import Trace
from backend.types import Request
from tests.toys import ToyCatalog
from tests.toys_linear import ToyLoop


def run(model: ToyLoop | SpaceModel, horizon: int, powers: str, prompt: object = "") -> Trace:
    return record(Request("closed_loop", prompt, {}, {"powers": powers}, budget=horizon), ToyCatalog([model]))


@pytest.mark.parametrize("horizon", [1, 2, 3, 8, 9, 100])
def test_calls(horizon: int) -> None:
    """One call for the past; then one a doubling, or one a step."""
    doubled, looped = (run(ToyLoop(), horizon, powers) for powers in ("doubling", "loop"))
    assert len(doubled.steps) == 1 + math.ceil(math.log2(horizon))
    assert len(looped.steps) == horizon
    assert sum(step.rows["target"] for step in doubled.steps[1:]) == horizon - 1  # no state is computed twice


def test_doubling_equals_the_loop_on_a_network() -> None:
    """Random weights in float64, several hundred steps, to 1e-5."""
    torch.manual_seed(3)
    model = SpaceModel("house/series-space", StateSpace(SpaceConfig(24, 6, 8, 1)).double().requires_grad_(False))
    prompt = {"y": torch.sin(torch.arange(40) / 3).tolist(), "season": 19}
    one, other = (run(model, 300, powers, prompt).values() for powers in ("doubling", "loop"))
    assert [one[slot] for slot in range(300)] == pytest.approx([other[slot] for slot in range(300)], rel=1e-5, abs=1e-8)


def test_roots_are_told_and_instability_is_seen() -> None:
    steady, wild = ToyLoop(), ToyLoop(weights=(1.5, -0.2, 0.1))
    told = [run(model, 4, "doubling").steps[0].figures for model in (steady, wild)]
    assert told[0]["root 1"] < 1 < told[1]["root 1"]
    values = run(wild, 200, "doubling").values()
    assert abs(values[199]) > 1e6  # not clipped: it is the model's own forecast
    assert values[199] == pytest.approx(wild.truth(200)[-1], rel=1e-5)
