"""Entropy order: certain slots are free, the bound holds, and the law stays within it by enumeration."""

from __future__ import annotations

import math

import pytest

from tests.exact import total_variation
from tests.toys_image import ToyGrid, paint, painted_law


def test_what_is_certain_costs_no_call_and_no_exactness() -> None:
    """Four cells that are always equal: one is drawn, the others follow together."""
    toy = ToyGrid(joint=[0.3] + [0.0] * 14 + [0.7])
    assert [len(step.marks) for step in paint("entropy_order", [toy], bound=0).steps] == [1, 3]
    assert total_variation(painted_law("entropy_order", [toy], bound=0), toy.law()) < 1e-12


def test_the_surest_slot_goes_first() -> None:
    """Cells of their own: sure ones before even ones."""
    p = [0.5, 0.9, 0.99, 0.7]
    joint = [math.prod(x if bit == "1" else 1 - x for x, bit in zip(p, f"{i:04b}", strict=True)) for i in range(16)]
    trace = paint("entropy_order", [ToyGrid(joint=joint)], bound=0)
    assert [mark.slot for step in trace.steps for mark in step.marks] == [2, 1, 3, 0]
    thresholds = [step.figures["threshold"] for step in trace.steps]
    assert thresholds == sorted(thresholds)
    assert thresholds[-1] == pytest.approx(math.log(2), rel=1e-5)
    assert trace.steps[0].figures["entropy"] > trace.steps[0].figures["threshold"]


@pytest.mark.parametrize(("bound", "calls"), [(0.0, [1, 1, 1, 1]), (0.7, [2, 2]), (1.4, [3, 1]), (2.1, [4])])
def test_even_bits_cost_log_two_each(bound: float, calls: list[int]) -> None:
    toy = ToyGrid(joint=[1.0] * 16)
    trace = paint("entropy_order", [toy], bound=bound)
    assert [len(step.marks) for step in trace.steps] == calls
    assert all(step.figures["risked"] <= bound for step in trace.steps)


@pytest.mark.parametrize("bound", [0.0, 0.2, 0.5, 1.0, 2.0, 8.0])
def test_the_law_stays_within_the_bound(bound: float) -> None:
    """KL(model, strategy) is at most what the calls risked in the mean over the model's own pictures."""
    for seed in range(4):
        toy = ToyGrid(grid=(2, 2), seed=seed, zeros=0.0)
        found = painted_law("entropy_order", [toy], bound=bound)
        truth = toy.law()
        lost = sum(p * math.log(p / found[c]) for c, p in truth.items())
        risked = painted_law(
            "entropy_order",
            [toy],
            outcome=lambda t: (tuple(t.replay()), sum(s.figures["risked"] for s in t.steps), len(t.steps)),
            bound=bound,
        )
        at_risk = {canvas: (risk, calls) for canvas, risk, calls in risked}
        assert lost <= sum(p * at_risk[c][0] for c, p in truth.items()) + 1e-5
        assert all(risk <= bound * calls + 1e-5 for risk, calls in at_risk.values())
        assert bound > 0 or lost < 1e-12
