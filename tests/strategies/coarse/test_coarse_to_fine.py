"""Coarse to fine: calls, pictures before and after refining, what rounds and temperature do to the law."""

from __future__ import annotations

from typing import Any

import pytest

from backend.chance import Ask
from backend.meter import Meter
from backend.registry import find
from backend.run import record
from backend.trace import Trace
from backend.types import Fate, Guarantee, Request, Sampling
from tests.exact import law, total_variation
from tests.toys import ToyCatalog
from tests.toys_coarse import ToyCoarse, ToyCoarseSession

PLAIN = Sampling(temperature=1.0)


def paint(toy: ToyCoarse, prompt: str = "", budget: int = 3, seed: int = 3, **knobs: Any) -> Trace:
    request = Request("coarse_to_fine", prompt, {"target": toy.id}, knobs, PLAIN, budget, seed)
    return record(request, ToyCatalog([toy]))


def written_law(toy: ToyCoarse, **knobs: Any) -> dict[tuple[int, ...], float]:
    """Of whole pictures, every random branch enumerated."""
    found = find("coarse_to_fine")

    def play(chance: Any) -> tuple[int, ...]:
        session = toy.make(toy.codec.encode(""), PLAIN, Meter(), toy.context)
        steps = tuple(found.run(session, Ask(toy.context, chance), **found.settle(knobs)))
        return tuple(Trace(Request("", ""), steps=steps).written())

    return law(play, 20_000)


def test_one_call_a_group_and_one_for_all_codes() -> None:
    trace = paint(ToyCoarse(), window=0)
    calls = [(step.calls["target"], step.calls["target.fine"]) for step in trace.steps]
    assert calls == [(1, 0), (1, 0), (1, 0), (0, 1)]
    assert [step.figures["stage"] for step in trace.steps] == [1, 1, 1, 2]
    assert trace.summary().new_slots == 3
    assert all(step.figures["entropy"] >= 0 for step in trace.steps)


def test_groups_that_are_certain_are_guessed_ahead() -> None:
    """Laws of a single group: every guess is right, and the window covers the rest in one call."""
    trace = paint(ToyCoarse(length=6, members=(0, 0, 0)), budget=6, window=8)
    assert [step.figures.get("accepted") for step in trace.steps] == [0, 4, None]
    fates = [mark.fate for mark in trace.steps[1].marks]
    assert fates == [Fate.KEPT] * 4 + [Fate.BONUS]
    assert trace.summary().alpha == 1.0


@pytest.mark.parametrize("window", [0, 3])
def test_the_picture_is_one_of_middle_codes_until_it_is_refined(window: int) -> None:
    toy = ToyCoarse(length=4, members=(0, 0, 1, 1, 1), zeros=0.0)
    for seed in range(6):
        trace = paint(toy, budget=4, seed=seed, window=window)
        session = toy.sessions[-1]
        assert isinstance(session, ToyCoarseSession)
        coarse, fine = trace.replay(len(trace.steps) - 1), trace.replay()
        assert coarse == [toy.medoids[group] for group in session.groups]
        assert [toy.members[code] for code in fine] == session.groups
        last = trace.steps[-1]
        assert last.figures["changed"] == sum(a != b for a, b in zip(coarse, fine, strict=True))
        assert [mark.fate for mark in last.marks] == [Fate.ERASED] * 4 + [Fate.BONUS] * 4


def test_with_a_group_for_every_code_refining_changes_nothing() -> None:
    toy = ToyCoarse(members=(0, 1, 2))
    for seed in range(4):
        trace = paint(toy, seed=seed)
        assert trace.replay(len(trace.steps) - 1) == trace.replay()
        assert trace.steps[-1].figures["entropy"] == 0


def test_one_round_has_the_models_law_and_a_round_a_slot_that_of_the_joint_table() -> None:
    toy = ToyCoarse()
    assert total_variation(toy.law(), toy.law(joint=True)) > 0.01
    assert total_variation(written_law(toy, rounds=1), toy.law()) < 1e-9
    assert total_variation(written_law(toy, rounds=3, window=0), toy.law(joint=True)) < 1e-9


def test_at_temperature_0_codes_are_the_likeliest_of_their_groups() -> None:
    toy = ToyCoarse(length=4, members=(0, 0, 1, 1, 1), zeros=0.0)
    trace = paint(toy, budget=4, fine_temperature=0.0)
    session = toy.sessions[-1]
    p_NV = toy.table(session.groups).given([-1] * 4)
    assert trace.replay() == p_NV.argmax(-1).tolist()
    assert trace.steps[-1].figures["entropy"] == 0


def test_rounds_tell_what_is_left_given_what_is_known() -> None:
    toy = ToyCoarse(length=4, members=(0, 0, 1, 1, 1), zeros=0.0)
    trace = paint(toy, budget=4, rounds=2)
    session = toy.sessions[-1]
    assert isinstance(session, ToyCoarseSession)
    assert [told.count(-1) for told in session.asked] == [4, 2]
    assert all(a in (-1, b) for a, b in zip(session.asked[1], trace.replay(), strict=True))


def test_a_part_of_the_picture_and_slots_that_are_given() -> None:
    toy = ToyCoarse(length=4)
    trace = paint(toy, prompt="1", budget=2)
    assert len(trace.written()) == 2
    assert trace.replay()[0] == 1
    assert toy.sessions[-1].asked == [(1, -1, -1)]


def test_what_it_promises() -> None:
    found = find("coarse_to_fine")
    assert found.promises({}) is Guarantee.LOSSLESS
    assert found.promises({"window": 0}) is Guarantee.LOSSLESS
    assert found.promises({"rounds": 2}) is Guarantee.LOSSY
    assert found.promises({"fine_temperature": 0.5}) is Guarantee.LOSSY
