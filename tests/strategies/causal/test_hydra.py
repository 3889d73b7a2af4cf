"""Hydra on heads that read their own path: what `test_medusa` shows for all heads, and that guesses are conditional."""

from __future__ import annotations

from backend.types import Fate
from tests.strategies.causal.played import COLD
from tests.strategies.causal.test_medusa import play_heads
from tests.toys import ToyCausal


def test_guesses_hang_from_what_was_guessed_before() -> None:
    """After 1 always comes 2, after 2 always 1: the second guess depends on the first, and every path is possible."""
    target = ToyCausal("toy/swap", size=3, fixed=lambda text: [[0, 0.6, 0.4], [0, 0, 1], [0, 1, 0]][text[-1]])
    trace = play_heads("hydra", target, COLD, budget=9, nodes=6)
    for step in trace.steps[1:]:
        for mark in step.marks:
            if mark.parent is not None and mark.q == 1.0 and mark.fate is not Fate.BONUS:
                assert mark.token == 3 - (step.marks[mark.parent].token or 0)
    assert trace.summary().mean_acceptance_length > 2
