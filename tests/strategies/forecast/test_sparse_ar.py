"""Special to sparse_ar and the model that it fits: known weights are found again, roots, blocks, short series."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from backend.chance import Ask, Seeded
from backend.errors import UserError
from backend.meter import Meter
from backend.models.series_lags import LagsModel, fit_lags, penalty_slope
from backend.protocols import LagsSession, PathSession
from backend.registry import find
from backend.run import record
from backend.strategies.forecast.sparse_ar import roots
from backend.types import Request, Sampling, Step
from tests.toys import ToyCatalog

WARM = Sampling(temperature=1.0)
TRUE = (0.2, 0.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.5)


def simulated(weights: tuple[float, ...], length: int, seed: int = 1, level: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y_T = np.zeros(length + len(weights))
    noise_T = rng.normal(size=len(y_T))
    for t in range(len(weights), len(y_T)):
        y_T[t] = noise_T[t] + sum(w * y_T[t - 1 - i] for i, w in enumerate(weights))
    return y_T[len(weights) :] + level


def run(y: np.ndarray, horizon: int, temperature: float = 1.0, **knobs: object) -> tuple[list[Step], object]:
    model = LagsModel("house/series-lags")
    prompt = model.codec.encode({"y": y.tolist(), "season": 1})
    session = model.open(LagsSession, prompt, Sampling(temperature=temperature), Meter(), horizon)
    options = {name: o.default for name, o in find("sparse_ar").knobs.items()} | knobs
    return list(find("sparse_ar").run(target=session, ask=Ask(horizon, Seeded(1)), **options)), session


def test_weights_of_the_paper_are_found_again() -> None:
    """To 0.02 from 1e5 values, with twice as many lags on offer; the others are gone altogether."""
    y_T = torch.from_numpy(simulated(TRUE, 100_000, level=3.0))
    found = fit_lags(y_T, 20, 0.3)
    wanted = torch.tensor([*TRUE, *[0.0] * 10], dtype=torch.float64)
    assert torch.allclose(found.weights_Ap[0], wanted, atol=0.02)
    assert found.weights_Ap[0].nonzero()[:, 0].tolist() == [0, 2, 9]
    assert float(found.tril_AA) == pytest.approx(1.0, abs=0.02)
    assert float(found.constant_A) == pytest.approx(3.0 * (1 - sum(TRUE)), abs=0.1)
    plain = fit_lags(y_T, 20, 1.0)
    assert int((plain.weights_Ap != 0).sum()) == 20


def test_penalty_slope_is_the_derivative() -> None:
    w = torch.tensor([0.01, 0.1, 0.5, 1.5], dtype=torch.float64, requires_grad=True)
    (2 / (1 + (-3 * w.abs() ** (1 / 3)).exp()) - 1).sum().backward()
    assert w.grad is not None
    assert torch.allclose(penalty_slope(w.detach()), w.grad)


def test_the_fit_does_not_depend_on_the_units() -> None:
    y_T = torch.from_numpy(simulated(TRUE, 400))
    one, other = fit_lags(y_T, 12, 0.3), fit_lags(1000 * y_T + 7, 12, 0.3)
    assert torch.allclose(one.weights_Ap, other.weights_Ap, atol=1e-4)
    assert float(other.tril_AA) == pytest.approx(1000 * float(one.tril_AA), rel=1e-4)


def test_gaps_take_no_part_as_goals() -> None:
    y_T = torch.from_numpy(simulated((0.9,), 3_000))
    with_gaps_T = y_T.clone()
    with_gaps_T[::7] = math.nan
    assert float(fit_lags(with_gaps_T, 1, 1.0).weights_Ap) > 0.8
    assert torch.isfinite(fit_lags(with_gaps_T, 12, 0.3, 4).tril_AA).all()


def test_roots_of_a_recursion() -> None:
    assert torch.allclose(roots(torch.tensor([[0.0, 0.81]])).abs(), torch.tensor([0.9, 0.9]))
    two_steps = torch.tensor([[1.5, -0.7], [1.5 * 1.5 - 0.7, 1.5 * -0.7]])  # the same map twice: roots per step
    assert torch.allclose(roots(two_steps).abs(), roots(two_steps[:1]).abs(), atol=1e-5)
    assert roots(torch.rand(7, 3)).shape == (3,)


def test_direct_blocks_of_a_known_process_agree_with_the_recursion() -> None:
    """The maps of a block of an AR(2) are its powers, and so is the covariance of what they leave."""
    y_T = torch.from_numpy(simulated((1.2, -0.5), 60_000))
    found = fit_lags(y_T, 2, 1.0, 3)
    step_22 = torch.tensor([[1.2, -0.5], [1.0, 0.0]], dtype=torch.float64)
    power_22, answers = torch.eye(2, dtype=torch.float64), []
    for a in range(3):
        answers.append(float(power_22[0, 0]))
        power_22 = step_22 @ power_22
        assert torch.allclose(found.weights_Ap[a], power_22[0], atol=0.03)
    factor = torch.tensor([[answers[i - j] if i >= j else 0.0 for j in range(3)] for i in range(3)])
    assert torch.allclose(found.tril_AA, factor.double(), atol=0.03)


def test_calls_and_figures() -> None:
    y = simulated(TRUE, 300)
    steps, session = run(y, 12, ahead=5, lags=12, paths=4)
    assert len(steps) == 3
    assert session.patch == 5
    steps, session = run(y, 12, lags=12, paths=4)
    assert len(steps) == 12
    figures = steps[0].figures
    assert {"lag 10", "plain 10", "root 1", "turn 1", "width"} <= set(figures)
    assert figures["lag 10"] == pytest.approx(-0.5, abs=0.15)
    assert 0.5 < figures["root 1"] < 1.0
    assert not any(name.startswith("lag") for name in steps[1].figures)


def test_a_point_is_the_recursion_without_noise() -> None:
    y = simulated(TRUE, 300)
    point = [m.values[0] for step in run(y, 9, outcome="point", lags=12)[0] for m in step.marks]
    cold = [m.values[0] for step in run(y, 9, temperature=0.0, lags=12, paths=1)[0] for m in step.marks]
    assert point == pytest.approx(cold, rel=1e-5)
    steps, _ = run(y, 9, outcome="point", lags=12)
    assert [value for name, value in steps[0].figures.items() if name.startswith("level ")] == [0.5]


def test_other_path_strategies_run_on_it_with_the_same_paths() -> None:
    """A draft of K steps is judged in one call: what noise_jacobi needs."""
    model = LagsModel("house/series-lags")
    prompt = {"y": simulated((0.5,), 200).tolist()}
    traces = [
        record(Request(s, prompt, {"target": model.id}, {"paths": 3}, WARM, 24, 5), ToyCatalog([model]))
        for s in ("recursive", "noise_jacobi")
    ]
    one, other = (trace.values() for trace in traces)
    assert [other[slot] for slot in sorted(other)] == pytest.approx([one[slot] for slot in sorted(one)], rel=1e-5)
    assert len(traces[1].steps) < len(traces[0].steps)
    assert model.speaks == {PathSession, LagsSession}


def test_too_many_lags_for_a_series() -> None:
    with pytest.raises(UserError, match="A fit of 40 lags and 1 steps at once needs 82 values, but the series has 60"):
        run(simulated((0.5,), 60), 5, lags=40)
