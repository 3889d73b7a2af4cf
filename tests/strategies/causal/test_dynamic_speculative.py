"""Dynamic draft length: grows on success, shrinks on failure, stops where the drafter is unsure."""

import pytest

from backend.strategies.causal.dynamic_speculative import _fit
from backend.types import Fate
from tests.strategies.causal.played import counting, play
from tests.toys import ToyCausal


def drafted(trace) -> list[int]:
    kinds = (Fate.KEPT, Fate.REJECTED, Fate.UNREAD)
    return [sum(mark.fate in kinds for mark in step.marks) for step in trace.steps]


def test_grows_by_two_while_all_is_kept() -> None:
    trace = play("dynamic_speculative", [counting(), counting()][:1] * 2, prompt="0", budget=40, gamma=2, longest=8)
    assert drafted(trace)[:4] == [2, 4, 6, 8]


def test_shrinks_to_one_on_failure() -> None:
    always = ToyCausal("toy/zero", size=6, fixed=[1.0, 0, 0, 0, 0, 0])
    trace = play("dynamic_speculative", [counting(), always], prompt="1", budget=20, gamma=4, refit=False)
    assert drafted(trace)[:5] == [4, 3, 2, 1, 1]


def test_an_unsure_drafter_drafts_nothing() -> None:
    flat = ToyCausal("toy/flat", size=4, fixed=[0.25] * 4)
    trace = play("dynamic_speculative", [flat, flat], budget=6, confidence=0.4)
    assert drafted(trace) == [0] * 6


def test_fit_separates_what_was_kept() -> None:
    seen = [(0.2, False), (0.3, False), (0.35, False), (0.6, True), (0.7, True), (0.9, True)]
    assert _fit(seen, 0.4) == pytest.approx(0.6)
    assert _fit([(0.5, True)] * 8, 0.4) == 0.4  # one outcome only: nothing to fit
