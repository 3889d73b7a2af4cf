"""Special to single strategies on paths: same noise, same path; fewer calls where the closed forms say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from backend.chance import Ask, Seeded
from backend.gaussian import overlap
from backend.meter import Meter
from backend.protocols import LookaheadSession, PathSession, Prompt
from backend.registry import find
from backend.sampling import shorten
from backend.series.synthetic import autoregressive
from backend.types import Sampling, Step
from backend.unrolling import carried, shortened
from tests.toys_forecast import ToyPaths, toys_for

PLAIN = Sampling(temperature=1.0)


def run(strategy: str, models: dict[str, Any], horizon: int, **knobs: Any) -> tuple[dict[str, Any], list[Step]]:
    sessions = {role: m.make(Prompt(), PLAIN, Meter(), horizon) for role, m in models.items()}
    options = {name: o.default for name, o in find(strategy).knobs.items()} | knobs
    return sessions, list(find(strategy).run(**sessions, ask=Ask(horizon, Seeded(5)), **options))


def figures(step: Step) -> Mapping[str, float]:
    """What a step tells once its clock has stopped."""
    assert step.measure is not None
    return step.measure()


def ar1(phi: float, spread: float = 0.5, patch: int = 1, level: float = 0.5, **options: Any) -> ToyPaths:
    return ToyPaths.ar1("toy/x", phi, spread, patch, level=level, **options)


# ------------------------------------------------------------------------------------------------------- noise_jacobi
@pytest.mark.parametrize("carry", ["none", "increments", "context"])
@pytest.mark.parametrize("bend", [0.0, 0.4])
def test_sweeps_end_in_the_paths_of_plain_sampling(carry: str, bend: float) -> None:
    target = {"target": ar1(0.7, patch=2, bend=bend)}
    plain, _ = run("recursive", target, 40, paths=5)
    swept, _ = run("noise_jacobi", target, 40, paths=5, carry=carry, window=9)
    first, second = (torch.stack(sessions["target"].written) for sessions in (plain, swept))
    assert torch.allclose(first, second, rtol=0, atol=1e-12)


def sweeps(phi: float, carry: str, tolerance: float, length: int = 64) -> int:
    """Calls for `length` steps of an AR(1) that was observed for 500."""
    past_T = autoregressive(np.random.default_rng(1), 500, (phi,), 0.5) if phi < 1 else np.cumsum(
        np.random.default_rng(1).normal(size=500)
    )  # fmt: skip
    target = {"target": ar1(phi, level=0.0, series=past_T.tolist())}
    return run("noise_jacobi", target, length, paths=4, carry=carry, tolerance=tolerance)[0]["target"].calls


def test_sweeps_of_a_forgetful_model_are_few_and_increments_save_the_random_walk() -> None:
    """A change shrinks by phi at every sweep; of a random walk it stays, unless it is carried along."""
    assert sweeps(0.5, "none", 1e-3) <= 64 / 3
    assert sweeps(1.0, "none", 1e-3) == 64
    assert sweeps(1.0, "increments", 1e-3) <= 3


def test_a_carry_fitted_to_the_context_is_three_times_as_fast_without_tolerance() -> None:
    """To the last bit, where plain sweeps gain nothing: each sweep leaves the error of the fitted coefficient."""
    assert sweeps(0.8, "none", 0.0) == 64
    assert sweeps(0.8, "context", 0.0, 128) <= 128 / 3


def test_carrying_is_the_linear_recursion() -> None:
    """Patches of 2, carry 0.5: changes of the ends arrive at later values as powers."""
    before_SNP = torch.zeros(1, 3, 2, dtype=torch.float64)
    fresh_SNP = torch.tensor([[[0.0, 1.0], [0.0, 0.0], [0.0, 4.0]]], dtype=torch.float64)
    assert carried(fresh_SNP, before_SNP, 0.5).tolist() == [[[0.0, 1.0], [0.5, 0.25], [0.125, 4.0625]]]
    assert carried(fresh_SNP, before_SNP, 1.0).tolist() == [[[0.0, 1.0], [1.0, 1.0], [1.0, 5.0]]]
    assert torch.equal(carried(fresh_SNP, before_SNP, 0.0), fresh_SNP)


# ------------------------------------------------------------------------------------------------------------- drafts
def test_acceptance_is_the_bell_curve() -> None:
    """Draft and target of one covariance, means a fixed distance apart: 2 Phi(-D / 2) of the judged drafts stay."""
    models = {"target": ar1(0.0, 1.0, 4, level=0.3), "draft": ar1(0.0, 1.0, 4, level=0.0)}
    _, steps = run("speculative_patches", models, 4 * 16, paths=200, gamma=3)
    kept = sum(m.fate.value == "kept" for step in steps for m in step.marks)
    judged = kept + sum(m.fate.value == "rejected" for step in steps for m in step.marks)
    distance = 0.3 * 2  # 0.3 in each of 4 coordinates, factors of 1
    bell = float(overlap(torch.tensor(distance)))
    assert kept / judged == pytest.approx(bell, abs=4 * (bell * (1 - bell) / judged) ** 0.5)
    assert figures(steps[0])["bell 1"] == pytest.approx(bell, rel=1e-5)
    assert figures(steps[0])["chance 1"] == pytest.approx(bell, abs=0.08)


def test_a_draft_that_is_the_target_is_kept_whole() -> None:
    models = {"target": ar1(0.8, patch=2), "draft": ar1(0.8, patch=2)}
    sessions, steps = run("speculative_patches", models, 2 * 12, paths=10, gamma=3)
    assert sessions["target"].calls == 3  # gamma + 1 patches a call
    plain, _ = run("recursive", {"target": ar1(0.8, patch=2)}, 2 * 12, paths=10)
    assert torch.allclose(torch.stack(sessions["target"].written), torch.stack(plain["target"].written))
    assert all(m.fate.value in ("kept", "bonus") for step in steps for m in step.marks)


def test_drafting_never_runs_past_the_horizon() -> None:
    models = toys_for(dict(find("speculative_patches").roles))
    sessions, _ = run("speculative_patches", models, 5, paths=4, gamma=8)
    assert max(shape[1] for shape in sessions["target"].drafts) <= 3
    assert sessions["draft"].lengths == sessions["target"].lengths == [3] * 4


def test_heads_are_kept_less_often_the_further_they_look() -> None:
    target = {"target": ar1(0.9, 0.5, 1, protocol=LookaheadSession, reach=4)}
    _, steps = run("lookahead_heads", target, 12, paths=400, gamma=4)
    chances = [figures(steps[1])[f"chance {k}"] for k in (1, 2, 3, 4)]
    assert chances == sorted(chances, reverse=True)
    assert 0.5 < chances[3] < chances[0] < 0.9


# ----------------------------------------------------------------------------------------------------- point forecasts
def test_tolerance_zero_writes_the_recursive_point() -> None:
    models = toys_for(dict(find("tolerant").roles))
    plain, _ = run("recursive_point", {"target": models["target"]}, 12)
    sessions, steps = run("tolerant", models, 12, tolerance=0.0)
    assert torch.allclose(sessions["target"].written[0], plain["target"].written[0], rtol=0, atol=1e-12)
    assert all(step.figures["gap"] == 0.0 for step in steps)


@pytest.mark.parametrize("tolerance", [0.02, 0.1, 0.5])
def test_deviation_stays_below_its_bound(tolerance: float) -> None:
    """The target moves its forecast by at most L = 0.7: tolerance (L + L^2 + L^3) for runs of three drafts."""
    models = {"target": ar1(0.7, level=0.5), "draft": ar1(0.6, level=0.45)}
    plain, _ = run("recursive_point", {"target": models["target"]}, 40)
    sessions, steps = run("tolerant", models, 40, tolerance=tolerance, gamma=3)
    gap = float((sessions["target"].written[0] - plain["target"].written[0]).abs().max())
    assert gap <= tolerance * 0.7 / 0.3
    assert max(step.figures["gap"] for step in steps) <= tolerance
    if tolerance == 0.5:
        assert sessions["target"].calls == 10


def test_point_bands_are_too_narrow_behind_the_first_patch() -> None:
    """They stay as wide as one step; the truth widens to sqrt(1 / (1 - phi^2)) times that."""
    target = {"target": ar1(0.9)}
    _, steps = run("recursive_point", target, 30)
    assert steps[-1].figures["width"] == steps[0].figures["width"] == pytest.approx(0.5)
    plain, _ = run("recursive", target, 30, paths=500)
    assert float(torch.stack(plain["target"].written)[:, -1].std()) == pytest.approx(0.5 / 0.19**0.5, rel=0.15)


def test_paths_draw_nothing_twice() -> None:
    assert isinstance(ar1(0.5).make(Prompt(), PLAIN, Meter(), 1), PathSession)
    sessions, _ = run("recursive", {"target": ar1(0.0)}, 6, paths=50)
    values = torch.stack(sessions["target"].written).flatten()
    assert len(values.unique()) == 300


def test_values_are_shortened_all_at_once_as_one_by_one() -> None:
    values = torch.tensor([0.0, 1.23456789, -98765.4321, 1e-7 / 3, 123456789.0, -0.99999951, 31.4159265, 1e15 / 7])
    assert shortened(values.double()) == [shorten(x) for x in values.double()]
