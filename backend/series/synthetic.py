"""Series drawn by our own generators: families whose laws are known, for the screen and for tests. No torch here.

Every generator takes a stream and a length and returns values [T]; the same stream gives the same series.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from backend.codecs.dates import Floats

Stream = np.random.Generator


@dataclass(frozen=True)
class Family:
    """One generator. start, unit: first date, and the numpy unit of a step ("h", "D", "M"). season: 1 without one."""

    make: Callable[[Stream, int], Floats]
    start: str
    unit: str
    season: int
    title: str


def autoregressive(stream: Stream, length: int, weights: tuple[float, ...], spread: float = 1.0) -> Floats:
    """x_t = sum_i weights[i] x_{t-1-i} + spread noise, after 200 steps from zeros. [T]"""
    x = [0.0] * len(weights)
    for noise in spread * stream.normal(size=length + 200):
        x.append(sum(w * x[-1 - i] for i, w in enumerate(weights)) + noise)
    return np.array(x[-length:])


def _wave(length: int, period: float, phase: float = 0.0) -> Floats:
    return np.asarray(np.sin(2 * np.pi * (np.arange(length) + phase) / period))


def _trend_and_season(stream: Stream, length: int) -> Floats:
    size_T = 10 + 0.02 * np.arange(length)  # the season grows with the level
    return 100 + 0.35 * np.arange(length) + size_T * _wave(length, 12) + 3 * stream.normal(size=length)


def _two_seasons(stream: Stream, length: int) -> Floats:
    day_T, week_T = _wave(length, 24, 18), _wave(length, 168, 40)
    return np.asarray(50 + 12 * day_T + 5 * np.maximum(week_T, -0.4) + autoregressive(stream, length, (0.7,), 1.2))


def _regimes(stream: Stream, length: int) -> Floats:
    """A hidden switch between two autoregressions with other levels: after any value the next law has two peaks."""
    x, regime, out = 0.0, 0, []
    for flip, noise in zip(stream.random(length), stream.normal(size=length), strict=True):
        regime = 1 - regime if flip < 0.03 else regime
        level, weight, spread = ((-2.0, 0.8, 0.3), (3.0, 0.5, 0.6))[regime]
        x = level + weight * (x - level) + spread * noise
        out.append(x)
    return np.array(out)


def _counts(stream: Stream, length: int) -> Floats:
    busy_T = stream.random(length) < 0.25 + 0.2 * _wave(length, 7)
    return np.where(busy_T, stream.poisson(3.0, length) + 1.0, 0.0)


def _multiplied(stream: Stream, length: int) -> Floats:
    level_T = np.exp(0.006 * np.arange(length) + autoregressive(stream, length, (0.95,), 0.02))
    return (
        200
        * level_T
        * (1 + 0.3 * _wave(length, 12) + 0.12 * _wave(length, 6, 2))
        * np.exp(0.03 * stream.normal(size=length))
    )


def _shifts(stream: Stream, length: int) -> Floats:
    level_T = np.cumsum(np.where(stream.random(length) < 0.01, 6 * stream.normal(size=length), 0.0))
    spike_T = np.where(stream.random(length) < 0.015, 10 * stream.normal(size=length), 0.0)
    return 20 + level_T + spike_T + 3 * _wave(length, 7) + stream.normal(size=length)


def _heavy_tails_and_gaps(stream: Stream, length: int) -> Floats:
    y_T = 5 * _wave(length, 24) + stream.standard_t(3, size=length)
    for start in stream.integers(length // 8, length - 40, size=4):
        y_T[start : start + int(stream.integers(3, 14))] = np.nan
    return y_T


FAMILIES: Mapping[str, Family] = {
    "trend_season": Family(_trend_and_season, "1985-01", "M", 12, "trend and a yearly season"),
    "two_seasons": Family(_two_seasons, "2024-01-01T00", "h", 24, "a daily and a weekly season"),
    "ar1": Family(lambda s, n: autoregressive(s, n, (0.8,)), "2023-01-01", "D", 1, "AR(1) with 0.8"),
    "ar2_cycle": Family(
        lambda s, n: autoregressive(s, n, (1.8, -0.9)), "2023-01-01", "D", 1, "AR(2) with a cycle of 19 steps"
    ),
    "random_walk": Family(lambda s, n: np.cumsum(s.normal(size=n)), "2023-01-01", "D", 1, "random walk"),
    "regimes": Family(_regimes, "2023-01-01", "D", 1, "two hidden regimes"),
    "counts": Family(_counts, "2023-01-01", "D", 7, "intermittent counts"),
    "multiplied": Family(_multiplied, "1985-01", "M", 12, "multiplicative season and growth"),
    "shifts": Family(_shifts, "2023-01-01", "D", 7, "level shifts and spikes"),
    "gaps": Family(_heavy_tails_and_gaps, "2024-01-01T00", "h", 24, "heavy tails and gaps"),
}
