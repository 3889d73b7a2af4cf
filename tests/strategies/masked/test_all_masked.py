"""What holds for masked strategies that need one model only: given slots stay, budgets hold, seeds can be compared."""

from __future__ import annotations

import pytest

from backend.protocols import MaskedSession
from backend.registry import Strategy, strategies
from backend.types import Fate, Sampling
from tests.toys_image import ToyGrid, paint

MASKED = [pytest.param(s, id=s.id) for s in strategies().values() if s.base is MaskedSession and len(s.roles) == 1]
BUSY = {"remask": 0.7, "steps": 5, "passes": 2, "block": 3}  # settings under which most happens
KNOWN = [-1, 1, -1, -1, 0, -1]


def busy(s: Strategy) -> dict[str, object]:
    return {name: value for name, value in BUSY.items() if name in s.knobs}


@pytest.mark.parametrize("s", MASKED)
def test_given_slots_are_never_touched(s: Strategy) -> None:
    for seed in range(12):
        toy = ToyGrid(grid=(2, 3), seed=seed, zeros=0.0)
        trace = paint(s.id, [toy], KNOWN, seed=seed, budget=4, **busy(s))
        assert all(canvas[1] == 1 and canvas[4] == 0 for canvas in toy.sessions[-1].asked)
        assert not {1, 4} & {mark.slot for step in trace.steps for mark in step.marks}
        final = trace.steps[-1].frame
        assert (final[1], final[4]) == (1, 0)
        assert -1 not in final
        told = [*trace.replay(), *[-1] * 6][:6]
        assert [told[i] for i in (0, 2, 3, 5)] == [final[i] for i in (0, 2, 3, 5)]


@pytest.mark.parametrize("s", MASKED)
def test_frames_are_what_marks_tell(s: Strategy) -> None:
    trace = paint(s.id, [ToyGrid(grid=(2, 3), seed=2, zeros=0.0)], seed=5, **busy(s))
    for i, step in enumerate(trace.steps):
        assert list(step.frame) == [*trace.replay(i + 1), *[-1] * 6][:6]
        assert step.figures["filled"] == pytest.approx(1 - step.frame.count(-1) / 6)
        assert step.note


@pytest.mark.parametrize("s", MASKED)
def test_temperature_zero_takes_the_likeliest_token_of_every_slot(s: Strategy) -> None:
    cold = Sampling(temperature=0.0)
    for seed in range(4):
        toy = ToyGrid(grid=(2, 3), seed=seed, zeros=0.0)
        trace = paint(s.id, [toy], seed=seed, sampling=cold, **busy(s))
        assert all(mark.p == 1.0 for step in trace.steps for mark in step.marks if mark.token is not None)
        assert -1 not in trace.replay()
        assert s.id != "entropy_order" or len(trace.steps) == 1


@pytest.mark.parametrize("s", MASKED)
def test_nothing_to_fill_is_no_call(s: Strategy) -> None:
    trace = paint(s.id, [ToyGrid()], [0, 1, 1, 0])
    assert trace.steps == ()


@pytest.mark.parametrize("s", MASKED)
def test_a_small_budget_fills_the_first_slots_only(s: Strategy) -> None:
    for seed in range(5):
        trace = paint(s.id, [ToyGrid(grid=(2, 3), zeros=0.0)], seed=seed, budget=2, **busy(s))
        assert [token >= 0 for token in trace.replay()] == [True, True]
        assert trace.end == "budget"


@pytest.mark.parametrize("s", [p for p in MASKED if p.id != "confidence"])
def test_slots_without_context_look_the_same_whatever_the_order(s: Strategy) -> None:
    """Noise belongs to slots: where the laws do not depend on what is known, every order paints one picture."""
    cell = [0.5, 0.3, 0.2]
    toy = ToyGrid(grid=(1, 4), size=3, joint=[a * b * c * d for a in cell for b in cell for c in cell for d in cell])
    settings = {name: value for name, value in busy(s).items() if name != "remask"}
    for seed in range(20):
        assert paint(s.id, [toy], seed=seed, **settings).replay() == paint("random_order", [toy], seed=seed).replay()


@pytest.mark.parametrize("s", [p for p in MASKED if p.id not in ("discrete_diffusion", "confidence")])
def test_slots_are_filled_once(s: Strategy) -> None:
    trace = paint(s.id, [ToyGrid(grid=(2, 3))], seed=1, **busy(s))
    marks = [mark for step in trace.steps for mark in step.marks]
    assert sorted(mark.slot for mark in marks) == list(range(6))
    assert {mark.fate for mark in marks} == {Fate.BONUS}
    assert all(step.calls["target"] == 1 for step in trace.steps)
