"""Random order: exact with one slot a call, also given some slots; several at once cost what the closed form says."""

from __future__ import annotations

import itertools

import pytest

from tests.exact import total_variation
from tests.toys_image import ToyGrid, grouped, paint, painted_law


def test_inpainting_has_the_law_of_the_rest_given_the_known() -> None:
    toy = ToyGrid(zeros=0.0)
    given = toy.law({1: 1})
    filled = painted_law("random_order", [toy], [-1, 1, -1, -1], lambda trace: trace.steps[-1].frame)
    assert total_variation(filled, given) < 1e-12


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_several_slots_a_call_have_the_mean_law_of_all_groupings(steps: int) -> None:
    toy = ToyGrid(grid=(1, 3), zeros=0.0)
    sizes = {1: [3], 2: [1, 2], 3: [1, 1, 1]}[steps]  # 3 cos(pi/4) = 2.1 are left of three after the first of two calls
    expected: dict[tuple[int, ...], float] = {}
    for order in itertools.permutations(range(3)):
        slots = iter(order)
        for canvas, p in grouped(toy, [list(itertools.islice(slots, size)) for size in sizes]).items():
            expected[canvas] = expected.get(canvas, 0.0) + p / 6
    assert total_variation(painted_law("random_order", [toy], steps=steps), expected) < 1e-12


def test_fewer_calls_lose_more() -> None:
    toy = ToyGrid(grid=(2, 2), zeros=0.0)
    lost = [total_variation(painted_law("random_order", [toy], steps=steps), toy.law()) for steps in (1, 2, 3, 4)]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 0.1
    assert lost[-1] < 1e-12


def test_calls() -> None:
    assert len(paint("random_order", [ToyGrid(grid=(4, 3))]).steps) == 12
    assert [len(s.marks) for s in paint("random_order", [ToyGrid(grid=(4, 3))], steps=4).steps] == [1, 3, 4, 4]
