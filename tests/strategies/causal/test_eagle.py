"""EAGLE: the tree follows confidence from step to step; the rest is in `test_medusa`."""

from __future__ import annotations

from backend.trees import depths
from backend.types import Step
from tests.strategies.causal.played import COLD, counting
from tests.strategies.causal.test_medusa import play_heads
from tests.toys import ToyCausal


def shape(step: Step) -> list[int]:
    """Depths of the guesses."""
    guessed = [mark for mark in step.marks if mark.q is not None]
    return depths([-1 if mark.parent is None else mark.parent for mark in guessed])


def test_sure_drafts_are_deep_and_unsure_ones_broad() -> None:
    sure = play_heads("eagle", counting(), COLD, right=True, nodes=4).steps[1]
    assert max(shape(sure)) == 2, "as deep as the heads reach"
    even = ToyCausal("toy/even", size=5, fixed=[0.2] * 5)
    assert shape(play_heads("eagle", even, COLD, right=True, nodes=4, beam=4).steps[1]) == [0, 0, 0, 0]


def test_depth_and_beam_bound_the_tree() -> None:
    steps = play_heads("eagle", counting(), COLD, right=True, depth=1).steps[1:]
    assert all(max(shape(step), default=0) == 0 for step in steps)
    assert all(
        len(shape(step)) <= 2 for step in play_heads("eagle", counting(), COLD, right=True, beam=1, depth=2).steps[1:]
    )
