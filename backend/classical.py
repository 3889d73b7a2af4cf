"""Classical forecasters as drafters: linear recursions with normal noise, fitted to the context in milliseconds.

Seasonal naive, AR(p) and Theta are all x_t = s_t + sum_i w_i (x_{t-i} - s_{t-i}) + c + sigma noise, so that a patch
has a joint normal law in closed form: its factor is sigma times the recursion's answer to a single shock. A draft only
needs such a law; how well it fits decides how often it is kept, never what is written.

Residuals of what was fitted are smaller than errors to come. So those of AR(p) are what each value is missed by when it
is left out of the fit (Allen 1974, PRESS), those of Theta are widened by what its season and smoothing took out of
them, and late ones count more than early ones, for the spread of a series changes too.

Shape letters: T context, p lags, m season, R rows, P values of a patch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backend.protocols import PatchLaw

Kind = Literal["seasonal_naive", "ar", "theta"]
MOST_LAGS = 24
THETA_LAGS = 64
HALF_LIFE = 0.25  # of the residuals: one so much older counts half as much
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
        weights_p, constant, rest_T = _autoregression(y_T)
        return Linear(weights_p, constant, _sigma(rest_T, inflation, HALF_LIFE), none_1, length)
    season_m = _seasonal_means(y_T, season)
    plain_T = y_T - season_m[torch.arange(length) % len(season_m)]
    weights_p, constant, rest_T = _theta(plain_T)
    taken = math.sqrt(length / max(1, length - len(season_m) - 2))  # by the season, the drift and the smoothing
    return Linear(weights_p, constant, _sigma(taken * rest_T, inflation, HALF_LIFE), season_m, length)


def _sigma(rest_T: Tensor, inflation: float, half_life: float = math.inf) -> float:
    """Root of the mean square of residuals. half_life: the share of them after which one counts half as much."""
    age_T = torch.arange(len(rest_T), dtype=torch.float64).flip(0) / len(rest_T)
    share_T = 0.5 ** (age_T / half_life)
    square = float(share_T @ rest_T.square() / share_T.sum())
    if half_life < math.inf:  # few residuals say little about the next error: its mean is as unsure as theirs
        count = float(share_T.sum().square() / share_T.square().sum())
        square *= (count + 1) / max(1.0, count - 1)
    return inflation * max(math.sqrt(square), LEAST_SIGMA)


def _autoregression(y_T: Tensor) -> tuple[Tensor, float, Tensor]:
    """Least squares with p from 1 to 24 by Akaike's criterion for short series (Hurvich and Tsai 1989).

    Weights, constant, and by how much each value is missed by the fit to all others; all p on the same values.
    """
    most = max(1, min(MOST_LAGS, len(y_T) // 4))
    lagged_Tp = torch.stack([y_T[most - i : len(y_T) - i] for i in range(1, most + 1)], 1)
    goal_T1, ones_T1 = y_T[most:, None], torch.ones(len(y_T) - most, 1, dtype=torch.float64)
    count = len(goal_T1)
    best: tuple[float, Tensor, Tensor, Tensor] | None = None
    for p in range(1, most + 1):
        design = torch.cat((lagged_Tp[:, :p], ones_T1), 1)
        ridge = 1e-9 * float(design.square().sum()) * torch.eye(p + 1, dtype=torch.float64)
        found_p1 = torch.linalg.solve(design.T @ design + ridge, design.T @ goal_T1)
        rest_T = (goal_T1 - design @ found_p1)[:, 0]
        fitted = p + 2  # with the constant and sigma
        penalty = 2 * fitted * count / max(1, count - fitted - 1)
        criterion = count * float(rest_T.square().mean().clamp_min(1e-12).log()) + penalty
        if best is None or criterion < best[0]:
            best = (criterion, found_p1[:, 0], rest_T, design)
    assert best is not None
    _, found_p, rest_T, design = best
    pull_T = (design * torch.linalg.pinv(design).T).sum(1)  # of a value on its own fit
    return found_p[:-1], float(found_p[-1]), rest_T / (1 - pull_T).clamp_min(0.1)


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
    """Exponential smoothing with half of the trend as drift (Hyndman and Billah 2003), the best of 19 smoothings.

    Weights that add up to 1, a constant, and residuals. The past enters at the mean age of the weights, so the constant
    is the drift times that age: a series on a line is then followed by half of its slope.
    """
    lags = max(1, min(THETA_LAGS, len(y_T) // 3))
    drift = _slope(y_T) / 2
    lagged_Tp = torch.stack([y_T[lags - i : len(y_T) - i] for i in range(1, lags + 1)], 1)
    best: tuple[float, Tensor, float, Tensor] | None = None
    for alpha in torch.arange(0.05, 0.96, 0.05, dtype=torch.float64):
        weights_p = alpha * (1 - alpha) ** torch.arange(lags, dtype=torch.float64)
        weights_p = weights_p / weights_p.sum()
        constant = drift * float(weights_p @ torch.arange(1, lags + 1, dtype=torch.float64))
        rest_T = y_T[lags:] - lagged_Tp @ weights_p - constant
        error = float(rest_T.square().mean())
        if best is None or error < best[0]:
            best = (error, weights_p, constant, rest_T)
    assert best is not None
    return best[1:]
