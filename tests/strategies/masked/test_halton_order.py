"""Halton order: the fixed order, cosine many slots a call, the law that this order has by the table."""

from __future__ import annotations

from backend.unmasking import halton
from tests.exact import total_variation
from tests.toys_image import ToyGrid, grouped, paint, painted_law


def test_slots_come_in_the_order_of_the_sequence() -> None:
    trace = paint("halton_order", [ToyGrid(grid=(3, 4))], steps=5)
    assert [mark.slot for step in trace.steps for mark in step.marks] == halton((3, 4))
    assert [len(step.marks) for step in trace.steps] == [1, 2, 2, 4, 3]  # 12 cos(i pi / 10): 11.4, 9.7, 7.05, 3.7


def test_known_slots_leave_the_order_of_the_others_as_it_is() -> None:
    trace = paint("halton_order", [ToyGrid(grid=(2, 3), zeros=0.0)], [-1, -1, 0, -1, 1, -1], budget=4)
    assert [mark.slot for step in trace.steps for mark in step.marks] == [s for s in halton((2, 3)) if s not in (2, 4)]


def test_the_law_is_that_of_its_groups() -> None:
    toy = ToyGrid(grid=(2, 2), size=2)
    order = halton((2, 2))
    law = painted_law("halton_order", [toy], steps=2)  # 4 cos(pi/4) = 2.8: two, then two
    assert total_variation(law, grouped(toy, [order[:2], order[2:]])) < 1e-12
    assert total_variation(law, toy.law()) > 0.01
