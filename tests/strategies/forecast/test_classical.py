"""Classical drafters: fits that are known, joint laws that are true, and what a good fit saves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from backend.classical import Kind, Linear, fit
from backend.unrolling import filled


def series(weights: tuple[float, ...], length: int, spread: float = 1.0, seed: int = 0) -> Tensor:
    noise_T = spread * torch.randn(length + 100, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = [0.0] * len(weights)
    for noise in noise_T.tolist():
        x.append(sum(w * x[-1 - i] for i, w in enumerate(weights)) + noise)
    return torch.tensor(x[-length:], dtype=torch.float64)


def test_least_squares_finds_the_autoregression() -> None:
    found = fit(series((1.2, -0.6), 2_000), 1, "ar")
    assert 2 <= found.lags <= 6
    assert found.weights_p[:2].tolist() == pytest.approx([1.2, -0.6], abs=0.06)
    assert found.sigma == pytest.approx(1.0, rel=0.05)


def test_seasonal_naive_repeats_the_season() -> None:
    y_T = torch.arange(24, dtype=torch.float64) % 4
    found = fit(y_T, 4, "seasonal_naive", inflation=2.0)
    law = found.patch(y_T[-4:][None], torch.tensor([0]), 6)
    assert law.mean_NP[0].tolist() == [0, 1, 2, 3, 0, 1]
    assert found.sigma == pytest.approx(2e-3)  # the floor: a perfect fit of the past is none of the future


def test_theta_follows_trend_and_season() -> None:
    at_T = torch.arange(120, dtype=torch.float64)
    wave_T = torch.sin(2 * math.pi * at_T / 12)
    noise_T = 0.05 * torch.randn(120, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y_T = 0.02 * at_T + wave_T + noise_T
    found = fit(y_T, 12, "theta")
    law = found.patch(y_T[-found.lags :][None], torch.tensor([0]), 12)
    ahead_T = torch.arange(120, 132, dtype=torch.float64)
    truth_T = 0.02 * ahead_T + torch.sin(2 * math.pi * ahead_T / 12)
    assert (law.mean_NP[0] - truth_T).abs().max() < 0.3
    later = found.patch(y_T[-found.lags :][None], torch.tensor([5]), 1)
    assert not torch.allclose(later.mean_NP, law.mean_NP[:, :1])  # another phase of the season


def test_the_joint_law_of_a_patch_is_that_of_its_steps() -> None:
    """One patch of 5 against 5 patches of 1: both are made of the same noise."""
    model = Linear(
        torch.tensor([0.9, -0.4, 0.2], dtype=torch.float64), 0.3, 0.7, torch.zeros(1, dtype=torch.float64), 50
    )
    tail_1p = torch.tensor([[1.0, -0.5, 2.0]], dtype=torch.float64)
    noise_P = torch.tensor([0.3, -1.0, 0.7, 2.0, -0.2], dtype=torch.float64)
    long = model.patch(tail_1p, torch.tensor([0]), 5)
    x_P = long.mean_NP[0] + long.tril_NPP[0] @ noise_P
    for t in range(5):
        short = model.patch(torch.cat((tail_1p, x_P[None, :t]), 1)[:, -3:], torch.tensor([t]), 1)
        assert float((x_P[t] - short.mean_NP[0, 0]) / short.tril_NPP[0, 0, 0]) == pytest.approx(float(noise_P[t]))


def smoothed(length: int, seed: int) -> Tensor:
    """What Theta is the model of: a level that follows a part of every shock, with drift, and a season of 4."""
    noise_T = torch.randn(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    level_T = 0.05 * torch.arange(length) + 0.4 * (noise_T.cumsum(0) - noise_T)
    return level_T + noise_T + torch.tensor([1.0, -2.0, 0.5, 0.5], dtype=torch.float64)[torch.arange(length) % 4]


@pytest.mark.parametrize("length", [40, 200])
@pytest.mark.parametrize("kind", ["ar", "theta"])
def test_four_in_five_values_lie_in_bands_of_80_percent(kind: Kind, length: int) -> None:
    """On series of the model's own kind, short ones too, where residuals of a fit are far smaller than errors."""
    ahead, inside = 5, []
    for seed in range(80):
        y_T = smoothed(length + ahead, seed) if kind == "theta" else series((1.2, -0.6), length + ahead, seed=seed)
        model = fit(y_T[:length], 4 if kind == "theta" else 1, kind)
        tails_Rp = torch.stack([y_T[length + h - model.lags : length + h] for h in range(ahead)])
        law = model.patch(tails_Rp, torch.arange(ahead), 1)
        away_R = (y_T[length:] - law.mean_NP[:, 0]) / law.tril_NPP[:, 0, 0]
        inside.append(float((away_R.abs() < 1.2816).double().mean()))
    assert 0.75 < sum(inside) / len(inside) < 0.85


def test_short_series_leave_theta_residuals_to_learn_from() -> None:
    assert fit(smoothed(24, 0), 4, "theta").lags == 8
    assert fit(smoothed(300, 0), 4, "theta").lags == 64


def test_theta_follows_a_line_with_half_of_its_slope() -> None:
    y_T = 0.2 * torch.arange(100, dtype=torch.float64)
    found = fit(y_T, 1, "theta")
    mean_P = found.patch(y_T[-found.lags :][None], torch.tensor([0]), 20).mean_NP[0]
    assert mean_P.diff().tolist() == pytest.approx([0.1] * 19, rel=0.1)


def test_late_residuals_count_more() -> None:
    noise_T = torch.randn(400, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    louder_T = noise_T * torch.where(torch.arange(400) < 300, 0.2, 1.0)
    assert fit(louder_T, 1, "ar").sigma > 0.75
    assert fit(louder_T.flip(0), 1, "ar").sigma < 0.35


def test_gaps_are_filled_by_what_stands_before_them() -> None:
    y_CT = torch.tensor([[math.nan, 2.0, math.nan, math.nan, 5.0]])
    assert filled(y_CT).tolist() == [2, 2, 2, 2, 5]
