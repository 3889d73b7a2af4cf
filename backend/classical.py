"""Classical forecasters as drafters: linear recursions with normal noise, fitted to the context in milliseconds.

Seasonal naive, AR(p) and Theta are all x_t = s_t + sum_i w_i (x_{t-i} - s_{t-i}) + c + sigma noise, so that a patch
has a joint normal law in closed form: its factor is sigma times the recursion's answer to a single shock. A draft only
needs such a law; how well it fits decides how often it is kept, never what is written.

Shape letters: T context, p lags, m season, R rows, P values of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backend.protocols import PatchLaw

Kind = Literal["seasonal_naive", "ar", "theta"]
MOST_LAGS = 24
THETA_LAGS = 64
LEAST_SIGMA = 1e-3  # of the context's scale: a perfect fit of the past is none of the future


@dataclass(frozen=True)
class Linear:
    """One fitted recursion. weights_p: of the lags, the nearest first. constant, sigma: c and sigma.

    season_m: s of every phase. start: steps of the context, which ends in phase start - 1.
    """

    weights_p: Tensor
    constant: float
    sigma: float
    season_m: Tensor
    start: int

    @property
    def lags(self) -> int:
        """p: how many values back it looks."""
        return len(self.weights_p)

    def patch(self, tail_Rp: Tensor, done_R: Tensor, length: int) -> PatchLaw:
        """Laws [R] of the next `length` values behind tails that end `done_R` steps after the context."""
        p, m = self.lags, len(self.season_m)
        place_R1 = self.start + done_R[:, None]
        past_Rp = tail_Rp - self.season_m[(place_R1 - p + torch.arange(p)) % m]
        values, answer = [past_Rp[:, i] for i in range(p)], torch.zeros(length, dtype=torch.float64)
        answer[0] = 1.0
        for t in range(length):
            values.append(torch.stack(values[-p:][::-1], 1) @ self.weights_p + self.constant)
            for i in range(min(t, p)):
                answer[t] += self.weights_p[i] * answer[t - 1 - i]
        mean_RP = torch.stack(values[p:], 1) + self.season_m[(place_R1 + torch.arange(length)) % m]
        at = torch.arange(length)
        tril_PP = self.sigma * torch.where(at[:, None] >= at, answer[(at[:, None] - at).clamp_min(0)], 0.0)
        return PatchLaw(mean_RP, tril_PP.expand(len(mean_RP), -1, -1))


def fit(y_T: Tensor, season: int, kind: Kind, inflation: float = 1.0) -> Linear:
    """Fit a recursion to a context without gaps. inflation: factor on sigma."""
    length, season = len(y_T), season if 2 * season <= len(y_T) else 1
    none_1 = torch.zeros(1, dtype=torch.float64)
    if kind == "seasonal_naive":
        weights_p = torch.zeros(season, dtype=torch.float64)
        weights_p[-1] = 1.0
        return Linear(weights_p, 0.0, _sigma(y_T[season:] - y_T[:-season], inflation), none_1, length)
    if kind == "ar":
        weights_p, constant, rest = _autoregression(y_T)
        return Linear(weights_p, constant, _sigma(rest, inflation), none_1, length)
    season_m = _seasonal_means(y_T, season)
    plain_T = y_T - season_m[torch.arange(length) % len(season_m)]
    weights_p, drift, rest = _theta(plain_T)
    return Linear(weights_p, drift, _sigma(rest, inflation), season_m, length)


def _sigma(rest_T: Tensor, inflation: float) -> float:
    return inflation * max(float(rest_T.square().mean().sqrt()), LEAST_SIGMA)


def _autoregression(y_T: Tensor) -> tuple[Tensor, float, Tensor]:
    """Least squares with p from 1 to 24 by Akaike's criterion, all on the same values."""
    most = max(1, min(MOST_LAGS, len(y_T) // 4))
    lagged_Tp = torch.stack([y_T[most - i : len(y_T) - i] for i in range(1, most + 1)], 1)
    goal_T1, ones_T1 = y_T[most:, None], torch.ones(len(y_T) - most, 1, dtype=torch.float64)
    best: tuple[float, Tensor, Tensor] | None = None
    for p in range(1, most + 1):
        design = torch.cat((lagged_Tp[:, :p], ones_T1), 1)
        ridge = 1e-9 * float(design.square().sum()) * torch.eye(p + 1, dtype=torch.float64)
        found_p1 = torch.linalg.solve(design.T @ design + ridge, design.T @ goal_T1)
        rest_T = (goal_T1 - design @ found_p1)[:, 0]
        criterion = len(rest_T) * float(rest_T.square().mean().clamp_min(1e-12).log()) + 2 * p
        if best is None or criterion < best[0]:
            best = (criterion, found_p1[:, 0], rest_T)
    assert best is not None
    return best[1][:-1], float(best[1][-1]), best[2]


def _seasonal_means(y_T: Tensor, season: int) -> Tensor:
    """Mean of every phase away from the straight line through the series; they add up to 0. [m]"""
    if season == 1:
        return torch.zeros(1, dtype=torch.float64)
    at_T = torch.arange(len(y_T), dtype=torch.float64)
    rest_T = y_T - y_T.mean() - _slope(y_T) * (at_T - at_T.mean())
    mean_m = torch.stack([rest_T[phase::season].mean() for phase in range(season)])
    return mean_m - mean_m.mean()


def _slope(y_T: Tensor) -> float:
    at_T = torch.arange(len(y_T), dtype=torch.float64)
    at_T = at_T - at_T.mean()
    return float((at_T * y_T).sum() / at_T.square().sum())


def _theta(y_T: Tensor) -> tuple[Tensor, float, Tensor]:
    """Exponential smoothing with half of the trend as drift (Hyndman and Billah 2003), the best of 19 smoothings."""
    lags = min(THETA_LAGS, len(y_T) - 2)
    drift = _slope(y_T) / 2
    lagged_Tp = torch.stack([y_T[lags - i : len(y_T) - i] for i in range(1, lags + 1)], 1)
    best: tuple[float, Tensor, Tensor] | None = None
    for alpha in torch.arange(0.05, 0.96, 0.05, dtype=torch.float64):
        weights_p = alpha * (1 - alpha) ** torch.arange(lags, dtype=torch.float64)
        weights_p = weights_p / weights_p.sum()
        rest_T = y_T[lags:] - lagged_Tp @ weights_p - drift
        error = float(rest_T.square().mean())
        if best is None or error < best[0]:
            best = (error, weights_p, rest_T)
    assert best is not None
    return best[1], drift, best[2]
