"""Next block: rows from the top, whole or in passes; one slot a block, or as many passes as slots, is exact."""

from __future__ import annotations

from tests.exact import total_variation
from tests.toys_image import ToyGrid, grouped, paint, painted_law


def test_rows_in_order() -> None:
    trace = paint("next_block", [ToyGrid(grid=(3, 4))], block=4)
    assert [[mark.slot for mark in step.marks] for step in trace.steps] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [step.figures["block"] for step in trace.steps] == [1.0, 2.0, 3.0]


def test_blocks_of_one_slot_are_raster_order() -> None:
    trace = paint("next_block", [ToyGrid(grid=(2, 3))], block=1)
    assert [mark.slot for step in trace.steps for mark in step.marks] == list(range(6))


def test_the_law_is_that_of_its_rows() -> None:
    toy = ToyGrid(grid=(2, 2), zeros=0.0)
    found = painted_law("next_block", [toy], block=2)
    assert total_variation(found, grouped(toy, [[0, 1], [2, 3]])) < 1e-12
    assert total_variation(found, toy.law()) > 0.01


def test_as_many_passes_as_slots_are_exact() -> None:
    toy = ToyGrid(grid=(2, 2), zeros=0.0)
    assert total_variation(painted_law("next_block", [toy], block=4, passes=4), toy.law()) < 1e-12


def test_blocks_are_places_of_the_canvas_also_where_slots_are_given() -> None:
    trace = paint("next_block", [ToyGrid(grid=(2, 3), zeros=0.0)], [-1, 0, -1, -1, -1, 1], budget=4, block=3, passes=2)
    assert [sorted(mark.slot for mark in step.marks) for step in trace.steps[:2]] in ([[0], [2]], [[2], [0]])
    assert sorted(mark.slot for step in trace.steps[2:] for mark in step.marks) == [3, 4]
