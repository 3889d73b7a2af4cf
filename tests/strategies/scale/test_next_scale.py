"""Next scale: one call a map, slots one behind the other, never a scale that the budget cannot hold."""

from __future__ import annotations

import pytest

from tests.exact import total_variation
from tests.toys import ToyScale
from tests.toys_image import one_by_one, paint, painted_law


def test_one_call_a_map_and_slots_in_order() -> None:
    toy = ToyScale()
    trace = paint("next_scale", [toy])
    assert [[mark.slot for mark in step.marks] for step in trace.steps] == [[0], [1, 2], [3, 4, 5, 6]]
    assert [step.calls["target"] for step in trace.steps] == [1, 1, 1]
    assert trace.replay() == toy.sessions[-1].written
    shapes = [[step.figures[name] for name in ("scale", "scales", "height", "width")] for step in trace.steps]
    assert shapes == [[1, 3, 1, 1], [2, 3, 1, 2], [3, 3, 2, 2]]
    assert all(step.figures["entropy"] >= 0 for step in trace.steps)


@pytest.mark.parametrize(("budget", "written"), [(1, 1), (2, 1), (3, 3), (6, 3), (7, 7)])
def test_a_map_is_written_whole_or_not_at_all(budget: int, written: int) -> None:
    trace = paint("next_scale", [ToyScale()], budget=budget)
    assert len(trace.replay()) == written
    assert trace.end == "budget"


def test_the_law_is_the_models_own() -> None:
    for seed in range(3):
        toy = ToyScale(seed=seed, sizes=((1, 1), (1, 2), (1, 3)), zeros=0.0)
        assert total_variation(painted_law("next_scale", [toy]), one_by_one(toy)) < 1e-12
