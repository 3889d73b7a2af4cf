"""Aggressive copying: where copying goes on, spans that are kept, each kind of edit, and the text of plain decoding."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from backend.strategies.causal.aggressive_copy import NOWHERE, align
from backend.trace import Trace
from backend.types import Fate
from tests.strategies.causal.played import COLD, play, same_text
from tests.toys import ToyCausal

START, END = 18, 19
SOURCE = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]


def editor(source: Sequence[int], output: Sequence[int]) -> tuple[ToyCausal, str]:
    """A target that answers the source with the output, whatever was drafted; and the prompt."""
    prompt = [*source, START]

    def law(text: tuple[int, ...]) -> list[float]:
        at = len(text) - len(prompt)
        return [float(t == ([*output, END][at] if 0 <= at <= len(output) else END)) for t in range(20)]

    return ToyCausal("toy/editor", size=20, fixed=law, end=frozenset({END})), " ".join(map(str, prompt))


def edited(output: Sequence[int], **knobs: int) -> Trace:
    target, prompt = editor(SOURCE, output)
    trace = play("aggressive_copy", [target], prompt, COLD, budget=30, **knobs)
    assert trace.written() == [*output, END]
    return trace


def runs(trace: Trace) -> list[int]:
    """Tokens that each step wrote."""
    return [sum(mark.fate.commits for mark in step.marks) for step in trace.steps]


def test_the_least_ending_that_occurs_once_tells_the_place() -> None:
    assert align([1, 2, 3], [9, 2], 1, 3) == 2
    assert align([1, 2, 3], [9], 1, 3) == NOWHERE  # not in the input, so no longer ending is either
    assert align([5, 6, 7, 6, 8], [6], 1, 3) == NOWHERE  # two places, and nothing more to tell them apart
    assert align([5, 6, 7, 6, 8], [7, 6], 1, 3) == 4
    assert align([5, 6, 7, 6, 8], [7, 6], 1, 1) == NOWHERE
    assert align([1, 2, 3], [9, 2], 2, 3) == NOWHERE  # one token is too little to go by
    assert align([1, 2, 3], [1, 2, 3], 2, 3) == 3
    assert align([], [1], 1, 3) == NOWHERE


def test_a_copy_is_one_step_behind_its_first_token() -> None:
    """The first token finds the place; the marker behind the input is refused, and the end is written instead of it."""
    trace = edited(SOURCE)
    assert runs(trace) == [1, len(SOURCE)]
    assert trace.steps[0].note == "no place in the input"
    assert trace.steps[1].note == "copied from slot 1"
    fates = [mark.fate for mark in trace.steps[1].marks]
    assert fates == [*[Fate.KEPT] * (len(SOURCE) - 1), Fate.REJECTED, Fate.FIXED]


def test_the_draft_is_no_longer_than_the_knob() -> None:
    assert runs(edited(SOURCE, length=4)) == [1, 5, 5, 2]


@pytest.mark.parametrize(
    ("output", "steps"),
    [
        pytest.param([1, 2, 3, 4, 15, 6, 7, 8, 9, 10, 11, 12], [1, 4, 1, 7], id="replaced"),
        pytest.param([1, 2, 3, 4, 15, 5, 6, 7, 8, 9, 10, 11, 12], [1, 4, 1, 8], id="inserted"),
        pytest.param([1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12], [1, 4, 7], id="deleted"),
    ],
)
def test_copying_goes_on_behind_an_edit(output: list[int], steps: list[int]) -> None:
    """A span up to and with the edit, the token that finds the place where none did, and the rest at once."""
    assert runs(edited(output)) == steps


def test_a_wrong_place_costs_calls_but_not_the_text() -> None:
    """Tokens that occur twice: one token names no place, two do; copying from a wrong one is corrected."""
    source = [1, 2, 3, 1, 2, 4, 1, 2, 5]
    target, prompt = editor(source, [3, 1, 2, 5, 1, 2, 4])
    trace = play("aggressive_copy", [target], prompt, COLD, budget=30)
    assert trace.written() == [3, 1, 2, 5, 1, 2, 4, END]
    assert trace.summary().num_target_calls < 8


@pytest.mark.parametrize("knobs", [{}, {"length": 2}, {"shortest": 2, "longest": 4}])
def test_prints_what_plain_decoding_prints(knobs: dict[str, int]) -> None:
    same_text("aggressive_copy", **knobs)
