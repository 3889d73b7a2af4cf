"""How good a forecast is: each measure has one definition, here, that of the fev library, so that numbers compare.

All work in the units of the series. Steps whose truth is missing (NaN) are left out. No torch here.

Shape letters: T steps of the past, H horizon, Q quantile levels, S sample paths, N series.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.codecs.dates import Floats

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def seasonal_error(past_T: Floats, season: int) -> float | None:
    """Mean |y_t - y_{t-m}| of the past: what a seasonal naive forecast misses by. None where it is 0 or unknown."""
    if len(past_T) <= season:
        return None
    gaps = np.abs(past_T[season:] - past_T[:-season])
    gaps = gaps[np.isfinite(gaps)]
    return float(gaps.mean()) if len(gaps) and gaps.mean() > 0 else None


def mase(truth_H: Floats, median_H: Floats, past_T: Floats, season: int) -> float | None:
    """Mean absolute error of the median over the seasonal error of the past; None where that is unknown."""
    scale = seasonal_error(past_T, season)
    return None if scale is None else float(np.nanmean(np.abs(truth_H - median_H))) / scale


def pinball(truth_H: Floats, quantiles_QH: Floats, levels: Sequence[float]) -> Floats:
    """2 |(y - q) (1{y <= q} - level)|, [Q, H]: at the median it is the absolute error."""
    level_Q1 = np.asarray(levels)[:, None]
    return np.asarray(2.0 * np.abs((truth_H - quantiles_QH) * ((truth_H <= quantiles_QH) - level_Q1)))


def sql(truth_H: Floats, quantiles_QH: Floats, levels: Sequence[float], past_T: Floats, season: int) -> float | None:
    """Scaled quantile loss: pinball over the seasonal error, mean over levels and steps."""
    scale = seasonal_error(past_T, season)
    return None if scale is None else float(np.nanmean(pinball(truth_H, quantiles_QH, levels))) / scale


def wql(truths: Sequence[Floats], quantiles: Sequence[Floats], levels: Sequence[float]) -> float:
    """Weighted quantile loss of N forecasts together: mean over levels of mean pinball / mean |y|.

    Raises ValueError where every truth is 0 or missing, for then there is nothing to weigh by.
    """
    losses = np.concatenate([pinball(y_H, q_QH, levels) for y_H, q_QH in zip(truths, quantiles, strict=True)], axis=1)
    size = float(np.nanmean(np.abs(np.concatenate(truths))))
    if not size > 0:
        raise ValueError("the weighted quantile loss of truths that are all 0 is not defined")
    return float(np.nanmean(losses, axis=1).mean()) / size


def smape(truth_H: Floats, median_H: Floats) -> float:
    """Mean 2 |y - m| / (|y| + |m|), from 0 to 2; where both are 0 nothing is missed."""
    size_H = np.abs(truth_H) + np.abs(median_H)
    return float(np.nanmean(2.0 * np.abs(truth_H - median_H) / np.where(size_H > 0, size_H, 1.0)))


def coverage(truth_H: Floats, low_H: Floats, high_H: Floats) -> float:
    """Share of truths inside [low, high]."""
    known_H = np.isfinite(truth_H)
    return float(((truth_H >= low_H) & (truth_H <= high_H))[known_H].mean())


def crps(truth: Floats | float, paths_S: Floats) -> Floats:
    """Continuous ranked probability score of samples [S, ...] of a truth [...]: E|x - y| - E|x - x'| / 2.

    The second mean is over all pairs, i = j included, by sorting: the score of the empirical law of the samples.
    """
    sorted_S = np.sort(paths_S, axis=0)
    count = len(sorted_S)
    weight_S = (2.0 * np.arange(1, count + 1) - count - 1).reshape(-1, *[1] * (sorted_S.ndim - 1))
    return np.asarray(np.abs(sorted_S - truth).mean(axis=0) - (weight_S * sorted_S).sum(axis=0) / count**2)


def crps_of_sum(truth_H: Floats, paths_SH: Floats) -> float | None:
    """CRPS of the sum over the horizon: only paths know it, quantiles of single steps do not. None with a gap."""
    return float(crps(float(truth_H.sum()), paths_SH.sum(axis=1))) if np.isfinite(truth_H).all() else None


def crps_of_peak(truth_H: Floats, paths_SH: Floats) -> float | None:
    """CRPS of the largest value over the horizon. None with a gap."""
    return float(crps(float(truth_H.max()), paths_SH.max(axis=1))) if np.isfinite(truth_H).all() else None


def energy(truth_H: Floats, paths_SH: Floats) -> float | None:
    """Energy score of whole paths: E|x - y| - E|x - x'| / 2 with Euclidean distances. None with a gap."""
    if not np.isfinite(truth_H).all():
        return None
    apart_S = [float(np.linalg.norm(paths_SH - path_H, axis=1).mean()) for path_H in paths_SH]
    return float(np.linalg.norm(paths_SH - truth_H, axis=1).mean()) - float(np.mean(apart_S)) / 2


def ranks(truth_H: Floats, paths_SH: Floats) -> Floats:
    """Share of paths below the truth, ties by half: uniform over steps for a calibrated forecast (PIT). NaN in gaps."""
    share_H = ((paths_SH < truth_H).mean(axis=0) + (paths_SH <= truth_H).mean(axis=0)) / 2
    return np.where(np.isfinite(truth_H), share_H, np.nan)


def quantiles_of(paths_SH: Floats, levels: Sequence[float] = LEVELS) -> Floats:
    """Empirical quantiles [Q, H] of sample paths, linear between order statistics."""
    return np.asarray(np.quantile(paths_SH, levels, axis=0))


@dataclass(frozen=True)
class Scores:
    """The measures of one forecast of one series; None where one is not defined, as a joint one is for quantiles, and
    coverage for a single curve."""

    mase: float | None
    wql: float | None
    sql: float | None
    smape: float
    coverage80: float | None
    crps_of_sum: float | None
    crps_of_peak: float | None
    energy: float | None


def score(truth_H: Floats, forecast_SH: Floats, levels: Sequence[float], past_T: Floats, season: int) -> Scores:
    """All measures of a forecast: quantiles at `levels`, which hold 0.1, 0.5 and 0.9, or sample paths if it is empty.

    Raises ValueError for quantiles without the three.
    """
    quantiles_QH = quantiles_of(forecast_SH) if not levels else forecast_SH
    at = list(levels) or list(LEVELS)
    low, middle, high = (quantiles_QH[at.index(level)] for level in (0.1, 0.5, 0.9))
    known = bool(np.nanmax(np.abs(truth_H)) > 0)
    joint = not levels
    return Scores(
        mase=mase(truth_H, middle, past_T, season),
        wql=wql([truth_H], [quantiles_QH], at) if known else None,
        sql=sql(truth_H, quantiles_QH, at, past_T, season),
        smape=smape(truth_H, middle),
        coverage80=coverage(truth_H, low, high),
        crps_of_sum=crps_of_sum(truth_H, forecast_SH) if joint else None,
        crps_of_peak=crps_of_peak(truth_H, forecast_SH) if joint else None,
        energy=energy(truth_H, forecast_SH) if joint else None,
    )


def skill(errors: Sequence[float], baseline: Sequence[float], low: float = 1e-2, high: float = 1e2) -> float:
    """1 - geometric mean of error / baseline over data sets; ratios are cut to [low, high] as fev does."""
    ratios = [min(max(a / b, low), high) for a, b in zip(errors, baseline, strict=True)]
    return 1.0 - math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
