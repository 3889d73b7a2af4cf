"""Flexible scale: the law of the sizes that were asked for, down to the last map alone; no size that is not there."""

from __future__ import annotations

import pytest

from backend.errors import UserError
from tests.exact import total_variation
from tests.toys_image import ToyFlexible, one_by_one, paint, painted_law

SIZES = ((1, 1), (1, 2), (2, 1), (2, 2))


@pytest.mark.parametrize(
    ("scales", "written"), [(0, SIZES), (1, SIZES[3:]), (2, (SIZES[0], SIZES[3])), (3, (SIZES[0], *SIZES[2:]))]
)
def test_the_law_is_that_of_the_model_with_these_sizes(scales: int, written: tuple[tuple[int, int], ...]) -> None:
    toy = ToyFlexible(sizes=SIZES)
    found = painted_law("flexible_scale", [toy], scales=scales)
    assert total_variation(found, one_by_one(toy.only(written))) < 1e-12


def test_the_last_map_is_the_picture_whatever_the_number_of_calls() -> None:
    for scales in (1, 2, 3, 4):
        trace = paint("flexible_scale", [ToyFlexible(sizes=SIZES)], scales=scales)
        assert trace.summary().num_target_calls == scales
        assert (trace.steps[-1].figures["height"], trace.steps[-1].figures["width"]) == (2, 2)
        assert [mark.slot for step in trace.steps for mark in step.marks] == list(range(len(trace.replay())))


def test_all_sizes_are_next_scale() -> None:
    for seed in range(15):
        toy = ToyFlexible(sizes=SIZES)
        flexible, plain = paint("flexible_scale", [toy], seed=seed), paint("next_scale", [toy], seed=seed)
        assert [step.marks for step in flexible.steps] == [step.marks for step in plain.steps]


def test_more_maps_than_there_are_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="5 scales were asked for, but the model has 4 sizes"):
        paint("flexible_scale", [ToyFlexible(sizes=SIZES)], scales=5)
