"""One step: the teacher's law from even noise, what a second call keeps and mends, budgets, entries without sense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from backend.chance import Ask, Seeded
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import Prompt
from backend.registry import find
from backend.trace import Trace
from backend.types import Fate, Request
from tests.exact import total_variation
from tests.toys_distilled import ToyDistilled, ToyDistilledSession
from tests.toys_image import PLAIN, one_by_one, paint

POINTS = 1024


class Told(Seeded):
    """A chance whose noise is handed in."""

    def __init__(self, noise_LD: torch.Tensor) -> None:
        super().__init__(0)
        self._noise_LD = noise_LD

    def noise(self, shape: Sequence[int]) -> torch.Tensor:
        assert tuple(shape) == tuple(self._noise_LD.shape)
        return self._noise_LD


def pictures(toy: ToyDistilled, **knobs: Any) -> list[tuple[int, ...]]:
    """What is painted from evenly spread noise, by the marks alone."""
    u_NL = torch.quasirandom.SobolEngine(toy.context, scramble=True, seed=3).draw(POINTS, dtype=torch.float64)
    noise_NL1 = 2**0.5 * torch.erfinv((2 * u_NL - 1).clamp(-1 + 1e-12, 1 - 1e-12))[..., None]
    found = find("one_step")
    out = []
    for noise_L1 in noise_NL1:
        session = toy.make(Prompt(()), PLAIN, Meter(), toy.context)
        steps = found.run(session, Ask(toy.context, Told(noise_L1)), **found.settle(knobs))
        out.append(tuple(Trace(Request("", ""), steps=tuple(steps)).replay()))
    return out


def distance(toy: ToyDistilled, found: list[tuple[int, ...]]) -> float:
    law = {canvas: number / POINTS for canvas, number in Counter(found).items()}
    return total_variation(law, one_by_one(toy.teacher))


def test_a_student_that_sees_all_has_the_teachers_law_in_one_call() -> None:
    toy = ToyDistilled()
    assert distance(toy, pictures(toy)) < 0.1  # 1024 points on 128 canvases
    assert pictures(toy, entry=2) == pictures(toy, entry=3) == pictures(toy)


def test_a_second_call_mends_what_a_student_could_not_see() -> None:
    """It sees one scale ahead: the third one is told as if the second were all 0, until it is known."""
    toy = ToyDistilled(ahead=2, zeros=0.0)
    once, twice = pictures(toy), pictures(toy, entry=3)
    assert [canvas[:3] for canvas in once] == [canvas[:3] for canvas in twice]
    assert distance(toy, twice) < 0.1 < distance(toy, once)


def test_what_is_kept_and_what_is_guessed() -> None:
    toy = ToyDistilled(ahead=1)
    trace = paint("one_step", [toy], entry=3)
    session = toy.sessions[-1]
    assert isinstance(session, ToyDistilledSession)
    first, second = trace.steps
    fates = [(mark.slot, mark.fate) for mark in first.marks]
    assert fates == [(slot, Fate.BONUS if slot < 3 else Fate.GUESS) for slot in range(7)]
    assert [(mark.slot, mark.fate) for mark in second.marks] == [(slot, Fate.BONUS) for slot in range(3, 7)]
    kept = tuple(mark.token for mark in first.marks[:3])
    assert session.asked == [(), kept]
    assert trace.replay() == [*kept, *(mark.token for mark in second.marks)]
    assert second.frame == tuple(trace.replay())
    guessed = [mark.token for mark in first.marks[3:]]
    assert second.figures["changed"] == sum(a != m.token for a, m in zip(guessed, second.marks, strict=True))
    assert [step.calls["target"] for step in trace.steps] == [1, 1]


def test_one_call_by_default_and_the_same_picture_from_the_same_seed() -> None:
    toy = ToyDistilled()
    first, again, other = (paint("one_step", [toy], seed=seed) for seed in (1, 1, 4))
    assert len(first.steps) == 1
    assert {mark.fate for mark in first.steps[0].marks} == {Fate.BONUS}
    assert first.replay() == again.replay() != other.replay()


@pytest.mark.parametrize(("budget", "written"), [(1, 1), (2, 1), (3, 3), (6, 3), (7, 7)])
def test_a_map_is_written_whole_or_not_at_all(budget: int, written: int) -> None:
    """What fits is what the whole picture has there; an entry behind it makes no second call."""
    whole = paint("one_step", [ToyDistilled()]).replay()
    for entry in (0, 3):
        trace = paint("one_step", [ToyDistilled()], budget=budget, entry=entry)
        assert trace.replay() == whole[:written]
        assert len(trace.steps) == (2 if entry and written == 7 else 1)


@pytest.mark.parametrize("entry", [1, 4])
def test_an_entry_with_nothing_before_it_is_one_sentence(entry: int) -> None:
    with pytest.raises(UserError, match=f"from scale {entry} on was asked for, but the model has 3 scales"):
        paint("one_step", [ToyDistilled()], entry=entry)
