"""Sorted speculative decoding: which exit is taken, whose law judges, and what is shown of it."""

from __future__ import annotations

import pytest

from backend.chance import Ask, Chance, Seeded
from backend.meter import Meter
from backend.registry import find
from backend.types import Fate, Step
from tests.exact import expected, law
from tests.strategies.causal.played import WARM, play
from tests.toys import ToyCausal, causal_pair
from tests.toys_nested import ToyNested, ToyNestedSession


def nested_pair(seed: int = 1) -> tuple[ToyCausal, ToyNested]:
    target, _ = causal_pair(seed=seed)
    return target, ToyNested("toy/nested", target)


def steps_of(session: ToyNestedSession, target: ToyCausal, seed: int = 0, **knobs: float) -> list[Step]:
    run = find("sorted_speculative").run
    ours = target.make(target.codec.encode("0"), WARM, Meter(), 12)
    return list(run(ours, session, Ask(12, Seeded(seed)), **knobs))


@pytest.mark.parametrize(("tau_1", "tau_2", "depth"), [(0.0, 0.0, 1), (0.0, 1.0, 1), (1.0, 0.0, 2), (1.0, 1.0, 3)])
def test_thresholds_0_are_the_shallow_draft_and_1_the_full_one(tau_1: float, tau_2: float, depth: int) -> None:
    """The same text, marks and costs as plain speculative sampling with the table of that exit as the draft."""
    target, nested = nested_pair()
    for seed in range(8):
        ours = play("sorted_speculative", [target, nested], seed=seed, gamma=3, tau_1=tau_1, tau_2=tau_2)
        plain = play("speculative", [target, nested.tables[depth - 1]], seed=seed, gamma=3)
        assert [step.marks for step in ours.steps] == [step.marks for step in plain.steps]
        assert set(nested.sessions[-1].read) == {depth}
        assert ours.summary().num_draft_calls == plain.summary().num_draft_calls


def test_each_guess_leaves_at_the_first_exit_that_is_sure() -> None:
    read = set()
    for seed in range(6):
        target, nested = nested_pair(seed)
        session = nested.make(nested.codec.encode("0"), WARM, Meter(), 12)
        text, at = [0], 0
        for step in steps_of(session, target, seed, gamma=3, tau_1=0.6, tau_2=0.7):
            guesses = [mark.token for mark in step.marks if mark.fate in (Fate.KEPT, Fate.REJECTED, Fate.UNREAD)]
            expected_depths = []
            for i in range(len(guesses)):
                sure = [float(table.law([*text, *guesses[:i]]).max()) for table in nested.tables]
                expected_depths.append(1 if sure[0] >= 0.6 else 2 if sure[1] >= 0.7 else 3)
            depths = session.read[at : at + len(guesses)]
            assert depths == expected_depths
            assert step.note == (f"left behind layer {', '.join(map(str, depths))}" if depths else "")
            assert step.figures == {f"exit {d}": float(depths.count(d)) for d in sorted(set(depths))}
            text += [mark.token for mark in step.marks if mark.fate.commits]
            at += len(guesses)
        read |= set(session.read)
    assert read == {1, 2, 3}


def test_a_guess_is_judged_by_the_law_of_the_exit_that_made_it() -> None:
    """Context-free laws: kept with probability sum min(p, q) for the q of the exit taken, by enumeration."""
    p, shallow, deep = [0.4, 0.3, 0.2, 0.1], [0.1, 0.5, 0.3, 0.1], [0.25, 0.25, 0.25, 0.25]
    target = ToyCausal("toy/p", size=4, fixed=p)
    nested = ToyNested("toy/nested", target)
    nested.tables = [ToyCausal(f"toy/{i}", size=4, fixed=q) for i, q in enumerate((shallow, deep, p))]

    def kept(chance: Chance, tau_1: float, tau_2: float) -> int:
        sessions = [m.make(m.codec.encode("0"), WARM, Meter(), 2) for m in (target, nested)]
        run = find("sorted_speculative").run
        step = next(iter(run(*sessions, Ask(2, chance), gamma=1, tau_1=tau_1, tau_2=tau_2)))
        return sum(mark.fate is Fate.KEPT for mark in step.marks)

    for tau_1, tau_2, answer in ((0.5, 0.0, 0.7), (0.51, 0.2, 0.8), (0.51, 0.3, 1.0)):
        assert expected(law(lambda chance: kept(chance, tau_1, tau_2))) == pytest.approx(answer, abs=1e-12)  # noqa: B023


def test_never_drafts_beyond_the_budget() -> None:
    for budget in range(1, 6):
        for step in play("sorted_speculative", nested_pair(), budget=budget, gamma=12).steps:
            assert all(mark.slot < 4 + budget for mark in step.marks)
