"""Grouped Jacobi: lossless without groups, groups by rank, chance and looks, and what relaxing gains."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from backend.chance import Ask, Chance
from backend.meter import Meter
from backend.registry import find
from backend.strategies.causal.grouped_jacobi import group_of
from backend.types import Guarantee
from tests.exact import ancestral, law, total_variation
from tests.strategies.causal.played import WARM, play
from tests.toys import ToyCausal
from tests.toys_picture import ToyPicture, ToyPictureSession
from tests.toys_raster import paint, painter


def games(toy: ToyPicture, length: int, **knobs: Any) -> dict[tuple[int, ...], float]:
    """The law of what is written, every random branch enumerated."""

    def game(chance: Chance) -> tuple[int, ...]:
        session = toy.make(toy.codec.encode("0"), WARM, Meter(), length)
        for _ in find("grouped_jacobi").run(session, Ask(length, chance), **find("grouped_jacobi").settle(knobs)):
            pass
        return tuple(session.tokens[1:])

    return law(game)


def test_without_groups_it_is_lossless() -> None:
    strategy = find("grouped_jacobi")
    assert strategy.promises({"width": 0}) is Guarantee.LOSSLESS
    assert strategy.promises({}) is strategy.promises({"width": 0, "keep": 0.5}) is Guarantee.LOSSY
    for toy, length in ((ToyPicture(seed=1), 3), (ToyPicture(seed=3, size=2), 4)):
        texts = games(toy, length, window=3, width=0)
        assert total_variation(texts, ancestral(toy, (0,), length, WARM)) < 1e-9


def test_groups_and_kept_guesses_cost_the_law() -> None:
    toy = ToyPicture(seed=1)
    plain = ancestral(toy, (0,), 3, WARM)
    grouped = total_variation(games(toy, 3, window=3, width=2, near=1.0, like=1.0), plain)
    assert grouped > 1e-3
    longer = ToyPicture(seed=1, size=2, zeros=0.0)
    plain = ancestral(longer, (0,), 4, WARM)
    some, every = (total_variation(games(longer, 4, window=4, width=0, keep=keep), plain) for keep in (0.5, 0.0))
    assert some > 1e-3
    assert every < 1e-9  # whoever keeps all of them does not choose


def test_without_groups_it_is_speculative_jacobi() -> None:
    for seed in range(6):
        ours = play("grouped_jacobi", [ToyPicture(seed=seed)], seed=seed, window=4, width=0)
        plain = play(
            "speculative_jacobi", [ToyCausal(seed=seed)], seed=seed, window=4, start="repeat", belief="certain"
        )
        assert ours.replay() == plain.replay()
        assert ours.summary().num_target_calls == plain.summary().num_target_calls


def test_a_group_has_neighbours_in_rank_in_chance_and_in_looks() -> None:
    """Shades 0 to 4, a quarter apart; by p the order is 1, 0, 4, 2, 3."""
    session = ToyPictureSession(ToyPicture(size=5), (0,), WARM, Meter())
    p_V = torch.tensor([0.26, 0.34, 0.1, 0.08, 0.22], dtype=torch.float64)

    def group(token: int, width: int, near: float, like: float) -> list[int]:
        return sorted(group_of(p_V, token, session, width, near, like).tolist())

    assert group(0, 0, 1.0, 1.0) == [0]
    assert group(0, 1, 1.0, 1.0) == [0, 1]  # 4 is in rank, but a whole palette away
    assert group(1, 1, 1.0, 1.0) == [0, 1]
    assert group(4, 1, 1.0, 1.0) == [2, 4]
    assert group(4, 4, 1.0, 1.0) == [1, 2, 3, 4]
    assert group(4, 4, 0.13, 1.0) == [1, 2, 4]
    assert group(4, 4, 0.13, 0.6) == [2, 4]
    assert group(3, 4, 0.0, 1.0) == [3]


def test_figures_add_up_and_groups_save_calls() -> None:
    calls = {}
    for width in (0, 4):
        runs = [
            play("grouped_jacobi", [ToyPicture(seed=seed, size=5)], budget=24, width=width, near=1.0, keep=0.3)
            for seed in range(6)
        ]
        calls[width] = sum(run.summary().num_target_calls for run in runs)
        for run in runs:
            for before, after in pairwise(run.steps):
                known = before.figures["refreshed"] + before.figures["new"] + before.figures["reused"]
                assert known == after.figures["window"]
                assert 0 <= after.figures["relaxed"] <= after.figures["accepted"]
            assert width or all(step.figures["relaxed"] < 1e-6 for step in run.steps)
        assert any(step.figures["reused"] for run in runs for step in run.steps)
    assert calls[4] < calls[0]


def test_pictures_are_painted() -> None:
    trace = paint("grouped_jacobi", [painter()], budget=12, sampling=WARM)
    assert len(trace.written()) == 12
