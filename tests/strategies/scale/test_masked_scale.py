"""Masked scale: two slots by hand, the limits that are next scale, which slots are drawn again and how."""

from __future__ import annotations

import pytest

from backend.types import Fate
from tests.exact import total_variation
from tests.toys_image import ToyRedrawing, one_by_one, paint, painted_law

TWO = ((1, 2),)


def test_two_slots_by_hand() -> None:
    """The more probable of both draws stays, the other slot is drawn again given it."""
    toy = ToyRedrawing(sizes=TWO, size=3, seed=4, zeros=0.0)
    p_NV = toy.given((), 0)
    expected: dict[tuple[int, ...], float] = {}
    for a in range(3):
        for b in range(3):
            left = p_NV[0, a] >= p_NV[1, b]
            other_V = toy.given((), 0, [a, -1])[1] if left else toy.given((), 0, [-1, b])[0]
            for c in range(3):
                tokens = (a, c) if left else (c, b)
                expected[tokens] = expected.get(tokens, 0.0) + float(p_NV[0, a] * p_NV[1, b] * other_V[c])
    found = painted_law("masked_scale", [toy], passes=2, keep=0.5)
    assert total_variation(found, expected) < 1e-12


@pytest.mark.parametrize("knobs", [{"passes": 1}, {"passes": 5, "keep": 1.0}])
def test_with_no_slot_drawn_again_it_is_next_scale(knobs: dict[str, float]) -> None:
    for seed in range(20):
        toy = ToyRedrawing(seed=seed)
        again, plain = (paint(name, [toy], seed=seed, **k) for name, k in (("masked_scale", knobs), ("next_scale", {})))
        assert [step.marks for step in again.steps] == [step.marks for step in plain.steps]


def test_all_slots_drawn_again_given_none_have_the_old_law() -> None:
    """The second draw has noise of its own, so that what was drawn first does not matter."""
    toy = ToyRedrawing(sizes=((1, 1), (1, 2)), size=3, zeros=0.0)
    assert total_variation(painted_law("masked_scale", [toy], passes=2, keep=0.0), one_by_one(toy)) < 1e-12


def test_what_slots_have_to_do_with_each_other_is_mended() -> None:
    """Two cells that are always equal: half of the independent draws break that, none does after one masked call."""
    toy = ToyRedrawing(sizes=TWO)
    toy.table((), 0).joint[:] = 0.0
    toy.table((), 0).joint[0, 0] = toy.table((), 0).joint[1, 1] = 0.5
    assert painted_law("next_scale", [toy])[(0, 1)] == pytest.approx(0.25)
    assert painted_law("masked_scale", [toy], passes=2) == {(0, 0): pytest.approx(0.5), (1, 1): pytest.approx(0.5)}


def test_the_least_probable_draws_are_drawn_again_in_as_many_calls_as_asked_for() -> None:
    toy = ToyRedrawing(sizes=((1, 1), (2, 4)), seed=3, zeros=0.0)
    trace = paint("masked_scale", [toy], passes=3, keep=0.25, seed=2)
    assert [step.figures["pass"] for step in trace.steps] == [1, 1, 2, 3]
    assert [step.figures["redrawn"] for step in trace.steps] == [0, 0, 6, 3]
    _, first, second, third = ([m for m in step.marks if m.fate is not Fate.ERASED] for step in trace.steps)
    for before, after, fate in ((first, second, Fate.BONUS), (second, third, Fate.FIXED)):
        again = {mark.slot for mark in after}
        assert {mark.fate for mark in before} == {fate}
        stay = [mark.p or 0 for mark in before if mark.slot not in again]
        assert min(stay) >= max(mark.p or 0 for mark in before if mark.slot in again)
    for step in trace.steps[2:]:
        erased = [mark.slot for mark in step.marks if mark.fate is Fate.ERASED]
        assert erased == [mark.slot for mark in step.marks if mark.fate is Fate.FIXED]
    assert trace.replay() == toy.sessions[-1].written
    assert [len(trace.replay(i)) for i in (1, 2, 3, 4)] == [1, 9, 9, 9], "every step leaves a whole map"
