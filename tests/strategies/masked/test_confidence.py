"""Confidence: the law of two slots by hand, the limit of much noise, what stays and what is masked again."""

from __future__ import annotations

import pytest

from backend.types import Fate
from tests.exact import total_variation
from tests.toys_image import ToyGrid, grouped, paint, painted_law


def test_two_slots_by_hand() -> None:
    """Both are drawn, the more probable draw stays, the other slot is drawn again given it."""
    toy = ToyGrid(grid=(1, 2), size=3, seed=7, zeros=0.0)
    p_LV = toy.given([-1, -1])
    expected: dict[tuple[int, ...], float] = {}
    for a in range(3):
        for b in range(3):
            stays = 0 if p_LV[0, a] >= p_LV[1, b] else 1
            other_V = toy.given([a, -1])[1] if stays == 0 else toy.given([-1, b])[0]
            for c in range(3):
                canvas = (a, c) if stays == 0 else (c, b)
                weight = float(p_LV[0, a] * p_LV[1, b] * other_V[c])
                expected[canvas] = expected.get(canvas, 0.0) + weight
    found = painted_law("confidence", [toy], steps=2, temperature=0.0)
    assert total_variation(found, expected) < 1e-12
    assert total_variation(found, toy.law()) > 0.02, "it favours what is probable"


def test_noise_takes_the_favour_away() -> None:
    """One slot a call: without noise probable tokens are favoured, with ever more it goes to random order."""
    toy = ToyGrid(grid=(1, 3), zeros=0.0)

    def lost(temperature: float) -> float:
        return total_variation(painted_law("confidence", [toy], steps=3, temperature=temperature), toy.law())

    assert lost(10.0) < lost(1.0) < lost(0.0)
    assert lost(10.0) < 0.1 * lost(0.0)


def test_one_call_draws_every_slot_for_itself() -> None:
    toy = ToyGrid(grid=(1, 3))
    assert total_variation(painted_law("confidence", [toy], steps=1), grouped(toy, [[0, 1, 2]])) < 1e-12
    for seed in range(20):
        one = paint("confidence", [toy], seed=seed, steps=1)
        assert one.replay() == paint("random_order", [toy], seed=seed, steps=1).replay()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_draws_that_stay_never_change_and_the_rest_are_guesses(temperature: float) -> None:
    toy = ToyGrid(grid=(3, 4))
    trace = paint("confidence", [toy], seed=4, steps=5, temperature=temperature)
    kept: set[int] = set()
    open_after = [11, 9, 7, 3, 0]  # 12 cos(i pi / 10)
    for step, left in zip(trace.steps, open_after, strict=True):
        new = {mark.slot: mark for mark in step.marks if mark.fate is Fate.BONUS}
        guesses = {mark.slot: mark for mark in step.marks if mark.fate is Fate.GUESS}
        assert not kept & (new.keys() | guesses.keys())
        assert len(guesses) == left
        assert len(new) + len(guesses) + len(kept) == 12
        if not temperature:
            best = max((mark.p or 0 for mark in guesses.values()), default=0)
            assert min(mark.p or 0 for mark in new.values()) >= best
        assert step.figures["threshold"] == min(mark.p or 0 for mark in new.values())
        kept |= new.keys()
    heats = [step.figures["heat"] for step in trace.steps]
    assert heats == pytest.approx([temperature * x for x in (0.8, 0.6, 0.4, 0.2, 0.0)])


def test_every_call_draws_with_fresh_noise() -> None:
    """A slot's draws of two calls are independent where the law does not change."""
    toy = ToyGrid(grid=(1, 2), joint=[0.35, 0.35, 0.15, 0.15])  # cell 0 is 0 with p 0.7, cell 1 is even

    def draws(trace: object) -> tuple[int | None, ...]:
        return tuple(mark.token for step in trace.steps for mark in step.marks if mark.slot == 1)  # type: ignore[attr-defined]

    found = painted_law("confidence", [toy], outcome=draws, steps=2, temperature=0.0)
    twice = {pair: p for pair, p in found.items() if len(pair) == 2}
    assert len(twice) == 4
    assert all(p == pytest.approx(sum(twice.values()) / 4) for p in twice.values())
