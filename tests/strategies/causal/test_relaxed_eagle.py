"""Relaxed EAGLE: without mass to move it is EAGLE, with it paths are longer and laws off by no more than is told."""

from __future__ import annotations

from typing import Any

import pytest

from backend.registry import find
from backend.trace import Trace
from backend.types import Guarantee
from tests.strategies.causal.played import play
from tests.toys import ToyCausal
from tests.toys_heads import ToyHeads
from tests.toys_picture import ToyPicture

TREE = {"nodes": 10, "beam": 3, "depth": 4, "least": 0.0}


def painted(strategy: str, seed: int, **knobs: Any) -> Trace:
    target = (ToyCausal if strategy == "eagle" else ToyPicture)("toy/target", seed=seed, size=5)
    return play(
        strategy, [target, ToyHeads("toy/heads", target, seed=seed + 50)], seed=seed, budget=24, **TREE, **knobs
    )


def test_without_mass_to_move_it_is_eagle() -> None:
    for seed in range(4):
        ours, plain = painted("relaxed_eagle", seed, delta=0.0), painted("eagle", seed)
        assert ours.replay() == plain.replay()
        assert ours.summary().num_target_calls == plain.summary().num_target_calls
        assert all(step.figures["picture"] == 0 for step in ours.steps)
    assert find("relaxed_eagle").promises({"delta": 0.0, "lam": 0.0}) is Guarantee.LOSSLESS
    assert find("relaxed_eagle").promises({}) is Guarantee.LOSSY


@pytest.mark.parametrize("knobs", [{"delta": 0.5}, {"lam": 4.0}])
def test_more_is_kept_within_the_bounds_that_are_told(knobs: dict[str, float]) -> None:
    kept = {"strict": 0.0, "loose": 0.0}
    for seed in range(8):
        loose = painted("relaxed_eagle", seed, k=4, **knobs)
        kept["loose"] += loose.summary().mean_acceptance_length
        kept["strict"] += painted("eagle", seed).summary().mean_acceptance_length
        for step in loose.steps:
            told = step.figures
            assert 0 <= told["mean_moved"] <= told["moved"] + 1e-9
            assert told["moved"] <= told["bound"] + 1e-6
            assert told["picture"] <= told["picture_bound"] + 1e-6
        grown = [step.figures["picture"] for step in loose.steps]
        assert grown == sorted(grown)
    assert kept["loose"] > kept["strict"]
