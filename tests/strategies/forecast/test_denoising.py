"""Special to diffusion models of series: what guidance does to the law, what calls cost, windows that roll."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from backend.chance import Ask, Seeded
from backend.denoising import pushed, rungs, towards
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import Prompt
from backend.registry import find
from backend.types import Fate, Sampling, Step
from tests.toys_diffusion import ToyWindows, ToyWindowsSession
from tests.toys_forecast import SERIES

HIGH, LOW = (*SERIES[:-3], 2.0, 2.2, 2.4), (*SERIES[:-3], -1.0, -1.2, -1.4)
HORIZON = 7


def run(
    strategy: str, series: tuple[float, ...] = SERIES, horizon: int = HORIZON, heat: float = 1.0, **knobs: Any
) -> tuple[Tensor, ToyWindowsSession, list[Step]]:
    """The paths [S, H], the session and the steps of a decode."""
    session = ToyWindows("toy/windows", series).make(Prompt(), Sampling(temperature=heat), Meter(), horizon)
    usual = {name: o.default for name, o in find(strategy).knobs.items()}
    for_toys = {name: value for name, value in {"skip": 5, "scale": 4.0}.items() if name in usual}  # of 40 levels
    options = usual | {"paths": 200} | for_toys | knobs
    steps = list(find(strategy).run(session, ask=Ask(horizon, Seeded(0)), **options))
    held = {m.slot + i: x for step in steps for m in step.marks if m.fate.commits for i, x in enumerate(m.values)}
    x_SH = torch.tensor([held[slot] for slot in range(len(held))], dtype=torch.float64).reshape(-1, horizon)
    return x_SH, session, steps


def test_without_guidance_the_context_is_not_looked_at() -> None:
    """Samples of the stationary law, the same whatever was observed; fewer levels make them too narrow."""
    for sampler in ("ddim", "ddpm"):
        one_SH, _, _ = run("self_guided", HIGH, scale=0.0, sampler=sampler, skip=2, paths=400)
        other_SH, _, _ = run("self_guided", LOW, scale=0.0, sampler=sampler, skip=2, paths=400)
        assert torch.equal(one_SH, other_SH)
        assert one_SH.mean().item() == pytest.approx(0.5, abs=0.12)
        assert one_SH.std().item() == pytest.approx(0.5 / 0.6, rel=0.15)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("energy", ["quantile", "squared"])
def test_guidance_moves_the_mean_to_the_right_side(sampler: str, energy: str) -> None:
    high_SH, _, _ = run("self_guided", HIGH, sampler=sampler, energy=energy)
    low_SH, _, _ = run("self_guided", LOW, sampler=sampler, energy=energy)
    assert high_SH[:, 0].mean() > 1.1 > 0.0 > low_SH[:, 0].mean()
    away_H = (high_SH - low_SH).mean(0)
    assert (away_H > 0).all()
    assert away_H[0] > 2 * away_H[-1], "the context is forgotten with time"


def test_guidance_narrows_what_follows_the_context_and_leaves_what_is_far() -> None:
    x_SH, _, _ = run("self_guided", sampler="ddpm", energy="squared", skip=1, paths=300)
    mean_H, spread_H = ToyWindows("toy/windows", SERIES).moments(HORIZON)
    assert torch.allclose(x_SH.std(0), spread_H, rtol=0.2)
    assert ((x_SH.mean(0) - mean_H).abs() < 0.35 * spread_H).all()


def test_quantile_energy_couples_index_and_level() -> None:
    x_SH, _, _ = run("self_guided", energy="quantile", sampler="ddpm")
    index_S = torch.arange(len(x_SH), dtype=torch.float64)
    squared_SH, _, _ = run("self_guided", energy="squared", sampler="ddpm")
    assert torch.corrcoef(torch.stack((index_S, x_SH[:, 0])))[0, 1] > 0.5
    assert abs(torch.corrcoef(torch.stack((index_S, squared_SH[:, 0])))[0, 1]) < 0.2


def test_in_painting_comes_nearer_to_the_exact_law_with_repeats() -> None:
    mean_H, spread_H = ToyWindows("toy/windows", HIGH).moments(3)

    def away(repeats: int) -> float:
        x_SH, _, _ = run("in_painting", HIGH, horizon=3, repeats=repeats, skip=4)
        return float((((x_SH.mean(0) - mean_H) / spread_H) ** 2).mean().sqrt())

    once, thrice, often = away(1), away(3), away(10)
    assert once > 1.5 * thrice > 1.5 * often, "without repeats there is a jump where context and forecast meet"
    assert often < 0.4


def test_refinement_starts_from_the_sorted_base_and_ends_where_windows_are_likelier() -> None:
    still_SH, _, _ = run("refine", rate=0.0, base="ar")
    assert torch.equal(still_SH, still_SH.sort(0).values), "no gradient: the base forecast"
    moved_SH, _, steps = run("refine", base="seasonal_naive", iterations=30, energy="squared")
    naive_SH, _, first = run("refine", rate=0.0, base="seasonal_naive", iterations=30)
    assert steps[-1].figures["unlikely"] < first[-1].figures["unlikely"]
    mean_H, spread_H = ToyWindows("toy/windows", SERIES).moments(HORIZON)
    before, after = (((x_SH.mean(0) - mean_H) / spread_H).square().mean() for x_SH in (naive_SH, moved_SH))
    assert after < before
    warm_SH, _, _ = run("refine", rule="langevin")
    assert not torch.equal(warm_SH, run("refine", rule="sgd")[0])


def test_calls() -> None:
    """Forward and back are a call each; the last DDPM step has no spread to guide, a last rung nothing to repeat."""
    ladder = len(rungs(40, 5))
    assert ladder == 8
    assert run("self_guided")[1].calls == 2 * ladder
    assert run("self_guided", sampler="ddpm")[1].calls == 3 * ladder - 2
    assert run("self_guided", scale=0.0)[1].calls == ladder
    assert run("in_painting", repeats=4)[1].calls == 4 * (ladder - 1) + 1
    assert run("refine", iterations=6)[1].calls == 12
    assert rungs(40, 25) == [(1.0, 0.375), (0.375, 0.0)]


@pytest.mark.parametrize("strategy", ["self_guided", "in_painting", "refine"])
def test_long_horizons_roll(strategy: str) -> None:
    x_SH, session, steps = run(strategy, horizon=20, block=8, paths=4)
    assert x_SH.shape == (4, 20)
    assert session.calls == 3 * run(strategy, horizon=8, block=8, paths=4)[1].calls
    guessed = [mark for step in steps for mark in step.marks if mark.fate is Fate.GUESS]
    assert {len(mark.values) for mark in guessed} == {8, 4}
    with pytest.raises(UserError, match="A window of this model has 24 steps, at least half of them past, but blocks"):
        run(strategy, horizon=20, block=13)


def test_cold_paths_are_one() -> None:
    for strategy in ("in_painting", "refine"):
        x_SH, _, _ = run(strategy, heat=0.0, paths=3, **({"energy": "squared"} if strategy == "refine" else {}))
        assert torch.equal(x_SH[0], x_SH[1])


def test_gaps_are_left_to_the_model() -> None:
    gap = (*SERIES[:4], float("nan"), *SERIES[5:])
    for strategy in ("self_guided", "in_painting", "refine"):
        x_SH, _, steps = run(strategy, gap, paths=5)
        assert torch.isfinite(x_SH).all()
        assert all(x == x for step in steps for row in step.frame for x in row)


@pytest.mark.parametrize("quantiles", [True, False])
def test_gradient_is_that_of_the_energy(quantiles: bool) -> None:
    """By differences, of the energy written down here."""
    session = ToyWindows("toy/windows", SERIES).make(Prompt(), Sampling(temperature=1.0), Meter(), 5)
    stream = torch.Generator().manual_seed(0)
    goal_SL, x_SL = (torch.randn(3, 9, generator=stream, dtype=torch.float64) for _ in range(2))
    goal_SL[:, 6:] = torch.nan
    level_S1 = torch.tensor([[0.25], [0.5], [0.75]], dtype=torch.float64)
    t, alpha, sigma = 0.4, session.schedule.alpha(0.4), session.schedule.sigma(0.4)

    def energy(at_SL: Tensor) -> Tensor:
        e_SL = (goal_SL - (at_SL - sigma * session.predict(at_SL, t)) / alpha)[:, :6]
        return torch.maximum(level_S1 * e_SL, (level_S1 - 1) * e_SL).sum() if quantiles else e_SL.square().sum()

    noise_SL, slope_SL = pushed(session, x_SL, t, towards(goal_SL, quantiles))
    assert torch.equal(noise_SL, session.predict(x_SL, t))
    for place in ((0, 0), (1, 5), (2, 8)):
        step_SL = torch.zeros_like(x_SL)
        step_SL[place] = 1e-6
        found = (energy(x_SL + step_SL) - energy(x_SL - step_SL)) / 2e-6
        assert float(found) == pytest.approx(float(slope_SL[place]), rel=1e-5, abs=1e-8)
