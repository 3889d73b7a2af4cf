"""Discrete diffusion: the loss of two slots in closed form, the share of known slots, fresh draws, empty steps."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from backend.trace import Trace
from backend.types import Fate
from backend.unmasking import Curve, masked_share
from tests.exact import expected, total_variation
from tests.toys_image import ToyGrid, grouped, paint, painted_law

CURVES: tuple[Curve, ...] = ("cosine", "linear", "square", "root")


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_two_slots_lose_what_showing_both_at_once_loses(curve: Curve, steps: int) -> None:
    """They are shown in the same step with probability sum of (share shown in it) squared; else the law is exact."""
    toy = ToyGrid(grid=(1, 2), size=3, seed=7, zeros=0.0)
    shares = [masked_share(curve, i / steps) for i in range(steps + 1)]
    together = sum((a - b) ** 2 for a, b in itertools.pairwise(shares))
    at_once = total_variation(grouped(toy, [[0, 1]]), toy.law())
    found = painted_law("discrete_diffusion", [toy], steps=steps, schedule=curve)
    assert total_variation(found, toy.law()) == pytest.approx(together * at_once, rel=1e-9)


def known_after(trace: Trace, steps: int) -> tuple[int, ...]:
    """Known slots after each step of the process; steps that changed nothing are not in the trace."""
    out, known = [], 0
    done = {round((1 - step.figures["time"]) * steps): i for i, step in enumerate(trace.steps)}
    for i in range(1, steps + 1):
        if i in done:
            known = sum(token >= 0 for token in trace.replay(done[i] + 1))
        out.append(known)
    return tuple(out)


@pytest.mark.parametrize("remask", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("curve", ["cosine", "root"])
def test_the_share_of_known_slots_follows_the_schedule_with_and_without_masking_again(
    curve: Curve, remask: float
) -> None:
    toy = ToyGrid(grid=(1, 2), zeros=0.0)
    counts = painted_law(
        "discrete_diffusion",
        [toy],
        outcome=lambda trace: known_after(trace, 3),
        steps=3,
        schedule=curve,
        remask=remask,
    )
    for i in (1, 2, 3):
        share = expected(counts, lambda known, i=i: known[i - 1] / 2)  # type: ignore[misc]
        assert share == pytest.approx(1 - masked_share(curve, i / 3))


def test_a_slot_that_is_masked_again_is_drawn_with_fresh_noise() -> None:
    toy = ToyGrid(grid=(1, 1), size=2, joint=[0.3, 0.7])

    def draws(trace: Trace) -> Any:
        return tuple(mark.token for step in trace.steps for mark in step.marks if mark.fate is Fate.BONUS)

    found = painted_law("discrete_diffusion", [toy], outcome=draws, steps=3, remask=0.5)
    twice = {pair: p for pair, p in found.items() if len(pair) == 2}
    for (a, b), p in twice.items():
        assert p / sum(twice.values()) == pytest.approx((0.3, 0.7)[a] * (0.3, 0.7)[b])
    final = painted_law("discrete_diffusion", [toy], steps=3, remask=0.5)
    assert final[(0,)] == pytest.approx(0.3)


def test_slots_come_and_go_and_come_back() -> None:
    fates = Counter(
        mark.fate
        for seed in range(10)
        for step in paint("discrete_diffusion", [ToyGrid(grid=(3, 3))], seed=seed, steps=20, remask=0.5).steps
        for mark in step.marks
    )
    assert fates[Fate.ERASED] > 20
    assert fates[Fate.BONUS] == fates[Fate.ERASED] + 90


def test_empty_steps_make_no_call() -> None:
    trace = paint("discrete_diffusion", [ToyGrid()], steps=256)
    assert trace.summary().num_target_calls <= 4
    assert all(step.marks for step in trace.steps)


def test_more_steps_lose_less() -> None:
    toy = ToyGrid(grid=(1, 3), zeros=0.0)
    lost = [total_variation(painted_law("discrete_diffusion", [toy], steps=s), toy.law()) for s in (1, 2, 4, 7)]
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] < 0.3 * lost[0]
