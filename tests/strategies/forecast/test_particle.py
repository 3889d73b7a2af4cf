"""Particles: the model's law given a wish, on an autoregression where that law is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from backend.chance import Ask, Seeded
from backend.gaussian import uniform
from backend.meter import Meter
from backend.protocols import Prompt, ReorderingPathSession
from backend.strategies.forecast.particle import _drawn, _effective, particle
from backend.types import Fate, Sampling, Step
from tests.toys_forecast import ToyPaths, ToyPathsSession

PATCHES, WISH, TIGHT = 4, 1.6, 0.5


class At:
    """A chance whose next number, even in [0, 1], is given."""

    def __init__(self, number: float) -> None:
        self.number = number

    def noise(self, shape: Sequence[int]) -> Tensor:
        return torch.special.ndtri(torch.full(tuple(shape), self.number, dtype=torch.float64))


class Even(Seeded):
    """Noise that covers the normal law evenly (scrambled Sobol points): averages of few paths are those of many."""

    def noise(self, shape: Sequence[int]) -> torch.Tensor:
        """See `Chance.noise`; the first dimension is that of the paths."""
        sobol = torch.quasirandom.SobolEngine(math.prod(shape[1:]), scramble=True, seed=3)
        return torch.special.ndtri(sobol.draw(shape[0], dtype=torch.float64).clamp(1e-9, 1 - 1e-9)).view(*shape)


def run(
    model: ToyPaths, paths: int, seed: int = 0, chance: type[Seeded] = Seeded, **knobs: float
) -> tuple[ToyPathsSession, list[Step]]:
    session = model.make(Prompt(), Sampling(temperature=1.0), Meter(), 99)
    ask = Ask(PATCHES * model.patch, chance(seed))
    told = {"level": WISH, "tightness": TIGHT, "threshold": 0.5, **knobs}
    return session, list(particle(session, ask, paths=paths, **told))  # type: ignore[arg-type]


def toy() -> ToyPaths:
    return ToyPaths.ar1("toy/target", 0.8, 0.5, 2, protocol=ReorderingPathSession)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_paths_have_the_conditional_law_in_closed_form(threshold: float) -> None:
    """A normal law given that a noisy sum of it was seen, whether paths are drawn anew often, seldom or once."""
    model, paths = toy(), 8_000
    mean_D, cover_DD = model.joint(PATCHES)
    sum_D = torch.full_like(mean_D, 1 / len(mean_D))
    seen = float(sum_D @ cover_DD @ sum_D) + TIGHT**2
    gain_D = cover_DD @ sum_D / seen
    want_D = mean_D + gain_D * (WISH - float(sum_D @ mean_D))
    spread_D = (cover_DD - seen * torch.outer(gain_D, gain_D)).diagonal().sqrt()
    session, steps = run(model, paths, chance=Even, threshold=threshold)
    found_SD = torch.stack(session.written).flatten(1)
    assert float(((found_SD.mean(0) - want_D) / spread_D).abs().max()) < 0.05
    assert float((found_SD.std(0) / spread_D - 1).abs().max()) < 0.05
    evidence = -0.5 * ((WISH - float(sum_D @ mean_D)) ** 2 / seen + math.log(2 * math.pi * seen))
    assert steps[-1].figures["log evidence"] == pytest.approx(evidence, abs=0.03)


def test_marks_are_guesses_that_follow_the_paths_until_the_end() -> None:
    model, paths = toy(), 12
    session = model.make(Prompt(), Sampling(temperature=1.0), Meter(), 99)
    ask, horizon = Ask(7, Seeded(1)), 7
    held: dict[int, float] = {}
    copied = False
    steps = []
    for step in particle(session, ask, level=2.5, tightness=0.05, threshold=1.0, paths=paths):
        steps.append(step)
        for mark in step.marks:
            held.update(enumerate(mark.values, mark.slot))
        copied |= len(step.marks) == paths and len({len(mark.values) for mark in step.marks}) > 1
        for row, path in enumerate(session.written):
            for i, value in enumerate(path.flatten()[:horizon].tolist()):
                assert held[row * horizon + i] == pytest.approx(value, rel=1e-5, abs=1e-8)
    assert copied
    assert not ask.open
    assert {m.fate for step in steps[:-1] for m in step.marks} == {Fate.GUESS}
    assert {m.fate for m in steps[-1].marks} == {Fate.BONUS}
    assert steps[-1].figures["ancestors"] <= steps[0].figures["ancestors"] <= paths


def test_a_loose_wish_changes_little_and_a_tight_one_draws_near() -> None:
    off = [
        abs(float(torch.stack(run(toy(), 400, tightness=tight)[0].written).mean()) - WISH) for tight in (0.05, 0.5, 2.0)
    ]
    assert off[0] < 0.05 < off[1] < off[2]


def test_paths_are_drawn_by_weight_and_survivors_stay_where_they_are() -> None:
    weight_S = torch.tensor([0.1, 0.4, 0.05, 0.05, 0.4], dtype=torch.float64).log()
    assert _effective(weight_S) == pytest.approx(1 / 0.335)
    total, draws = torch.zeros(5), 50
    for i in range(draws):
        rows_S = _drawn(weight_S, At((i + 0.5) / draws))  # type: ignore[arg-type]
        kept = rows_S.bincount(minlength=5)
        assert all(int(rows_S[s]) == s for s in range(5) if kept[s])
        total += kept
    assert torch.allclose(total / (5 * draws), weight_S.exp().float(), atol=0.005)
    assert 0.0 < float(uniform((1,), Seeded(0))) < 1.0
