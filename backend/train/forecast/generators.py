"""Series by the thousand for training: families with trend, seasons, noise, regimes, counts and breaks. No torch here.

Every family draws N series at once, all T steps of each; of series n only the last `known_N[n]` steps will be seen, so
trends, breaks and seasons are laid out on that stretch. Loops run over steps or harmonics, never over series.

Shape letters: N series, T steps, K harmonics or breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from backend.codecs.dates import Floats

Stream = np.random.Generator
Whole = NDArray[np.int64]
Family = Callable[[Stream, Whole, int], Floats]  # stream, known_N, steps -> values [N, T]

SEASONS = np.array([4, 6, 7, 12, 24, 48, 52, 96, 168])
SHORT_ODDS = np.array([3.0, 0.5, 1.0, 6.0, 1.0, 0.2, 0.5, 0.2, 0.2])  # of the seasons where fewer than 200 are known
LONG_ODDS = np.array([0.5, 0.3, 2.0, 1.5, 4.0, 0.8, 1.2, 0.6, 1.5])
SHORT = 200
HARMONICS = 6
LEAD = 64  # steps that recursions run before the first one that counts


# -------------------------------------------------------------------------------------------------------------- pieces
def seasons_for(stream: Stream, known_N: Whole, none: float = 0.2) -> Whole:
    """A season [N] that fits twice into what is known; 1, no season, with probability `none` or if none fits."""
    odds_N9 = np.where((known_N < SHORT)[:, None], SHORT_ODDS, LONG_ODDS) * (known_N[:, None] >= 2 * SEASONS)
    noise_N9 = stream.gumbel(size=odds_N9.shape)
    with np.errstate(divide="ignore"):
        picked_N = SEASONS[np.argmax(np.log(odds_N9) + noise_N9, axis=1)]
    absent_N = (stream.random(len(known_N)) < none) | (odds_N9.sum(axis=1) == 0)
    return np.where(absent_N, 1, picked_N)


def seasonal(stream: Stream, season_N: Whole, steps: int) -> Floats:
    """Repeating shapes of about unit spread, [N, T]: half a few harmonics, half a free value for every phase."""
    count, phase_NT = len(season_N), np.arange(steps)[None, :] % season_N[:, None]
    smooth_NT = np.zeros((count, steps))
    slope_N1 = stream.uniform(0.3, 2.0, (count, 1))
    turn_NT = 2 * np.pi * phase_NT / season_N[:, None]
    for k in range(1, HARMONICS + 1):
        size_N1 = stream.normal(size=(count, 1)) * k**-slope_N1 * (2 * k <= season_N)[:, None]
        smooth_NT += size_N1 * np.cos(k * turn_NT + stream.uniform(0, 2 * np.pi, (count, 1)))
    rough_N = stream.random(count) < 0.5
    table_NM = stream.normal(size=(count, int(SEASONS.max())))
    drops_N1 = stream.random((count, 1)) < 0.3  # a few phases far from all others, as weekends or Decembers
    table_NM = np.where(drops_N1, 0.3 * table_NM - 2.5 * (stream.random(table_NM.shape) < 0.2), table_NM)
    rough_NT = np.take_along_axis(table_NM, phase_NT, axis=1)
    shape_NT = np.where((rough_N & (season_N <= 24))[:, None], rough_NT, smooth_NT)
    shape_NT -= shape_NT.mean(axis=1, keepdims=True)
    return np.asarray(shape_NT / np.maximum(shape_NT.std(axis=1, keepdims=True), 0.3) * (season_N > 1)[:, None])


def drifting(stream: Stream, count: int, steps: int, most: float = 0.4) -> Floats:
    """Positive factors [N, T] around 1 that wander slowly; half of them stand still."""
    knots_NK = np.cumsum(stream.normal(size=(count, 9)), axis=1) * stream.uniform(0, most, (count, 1)) / 3
    knots_NK *= stream.random((count, 1)) < 0.5
    return np.asarray(np.exp(_between(knots_NK - knots_NK.mean(axis=1, keepdims=True), steps)))


def _between(knots_NK: Floats, steps: int) -> Floats:
    """Straight lines from knot to knot, [N, T]."""
    at_T = np.linspace(0, knots_NK.shape[1] - 1, steps)
    low_T = np.minimum(at_T.astype(np.int64), knots_NK.shape[1] - 2)
    share_T = at_T - low_T
    return np.asarray(knots_NK[:, low_T] * (1 - share_T) + knots_NK[:, low_T + 1] * share_T)


def trend(stream: Stream, known_N: Whole, steps: int) -> Floats:
    """Straight lines with up to 3 breaks on the stretch that is known, which they cross in about one unit. [N, T]"""
    count = len(known_N)
    place_NT = (np.arange(steps)[None, :] - (steps - known_N)[:, None]) / known_N[:, None]
    out_NT = stream.normal(size=(count, 1)) * place_NT
    for _ in range(3):
        broken_N1 = stream.random((count, 1)) < 0.3
        since_NT = np.maximum(place_NT - stream.random((count, 1)), 0)
        out_NT += broken_N1 * 1.5 * stream.normal(size=(count, 1)) * since_NT
    return out_NT


def shocks(stream: Stream, count: int, steps: int) -> Floats:
    """Independent noise [N, T]: normal for half of the series, Student-t with 2.5 to 10 degrees for the others."""
    normal_NT = stream.normal(size=(count, steps))
    freedom_N1 = stream.uniform(2.5, 10, (count, 1))
    heavy_NT = normal_NT / np.sqrt(stream.chisquare(freedom_N1, (count, steps)) / freedom_N1)
    return np.where(stream.random((count, 1)) < 0.5, normal_NT, np.clip(heavy_NT, -12, 12))


def autoregressive(stream: Stream, count: int, steps: int) -> Floats:
    """AR(2) noise [N, T] of unit spread: stationary, as both partial autocorrelations lie inside (-1, 1)."""
    first_N = np.tanh(stream.normal(0.6, 0.7, count)) * (stream.random(count) < 0.7)
    second_N = stream.uniform(-0.7, 0.5, count) * (stream.random(count) < 0.5)
    weight_N, weight2_N = first_N * (1 - second_N), second_N
    e_NT = shocks(stream, count, steps + LEAD)
    x_TN = np.zeros((steps + LEAD, count))
    for t in range(2, steps + LEAD):
        x_TN[t] = weight_N * x_TN[t - 1] + weight2_N * x_TN[t - 2] + e_NT[:, t]
    x_NT = x_TN[LEAD:].T
    return np.asarray(x_NT / np.maximum(x_NT.std(axis=1, keepdims=True), 1e-6))


def _log_uniform(stream: Stream, low: float, high: float, count: int) -> Floats:
    return np.exp(stream.uniform(np.log(low), np.log(high), (count, 1)))


# ------------------------------------------------------------------------------------------------------------ families
def structured(stream: Stream, known_N: Whole, steps: int) -> Floats:
    """Trend, one or two seasons with drifting amplitude, and AR(2) noise."""
    count = len(known_N)
    season_N = seasons_for(stream, known_N)
    second_N = np.where((season_N == 24) & (known_N >= 2 * 168) & (stream.random(count) < 0.6), 168, 1)
    y_NT = trend(stream, known_N, steps) * _log_uniform(stream, 0.05, 4.0, count) * 2
    y_NT += seasonal(stream, season_N, steps) * _log_uniform(stream, 0.1, 3.0, count) * drifting(stream, count, steps)
    y_NT += seasonal(stream, second_N, steps) * _log_uniform(stream, 0.1, 1.5, count) * drifting(stream, count, steps)
    return y_NT + autoregressive(stream, count, steps) * _log_uniform(stream, 0.03, 1.0, count)


def smoothed(stream: Stream, known_N: Whole, steps: int) -> Floats:
    """What exponential smoothing is optimal for: level, damped trend and season, all moved by the same shocks."""
    count, season_N = len(known_N), seasons_for(stream, known_N, none=0.35)
    alpha_N = stream.beta(1.0, 1.5, count)
    beta_N = alpha_N * stream.beta(1.0, 8.0, count) * (stream.random(count) < 0.6)
    gamma_N = (1 - alpha_N) * stream.beta(1.0, 4.0, count) * (season_N > 1)
    damping_N = np.where(stream.random(count) < 0.5, stream.uniform(0.8, 0.99, count), 1.0)
    drift_N = (stream.normal(size=count) * stream.choice([0.0, 1.0, 4.0], count)) / known_N
    size_N = _log_uniform(stream, 0.03, 0.6, count)[:, 0]
    season_TN = np.zeros((steps + int(SEASONS.max()), count))
    start_NT = seasonal(stream, season_N, int(SEASONS.max())) * _log_uniform(stream, 0.1, 2.0, count)
    season_TN[: int(SEASONS.max())] = start_NT.T
    each_N, lead = np.arange(count), int(SEASONS.max())
    e_NT, level_N, slope_N = shocks(stream, count, steps) * size_N[:, None], np.zeros(count), drift_N
    y_NT = np.empty((count, steps))
    for t in range(steps):
        past_N, e_N = season_TN[lead + t - season_N, each_N], e_NT[:, t]
        level_N, slope_N = level_N + slope_N + alpha_N * e_N, damping_N * slope_N + beta_N * e_N
        y_NT[:, t] = level_N + past_N + e_N
        season_TN[lead + t] = past_N + gamma_N * e_N
        back_N = t < steps - known_N  # before the known stretch trends do not add up
        slope_N = np.where(back_N, drift_N, slope_N)
        level_N = np.where(back_N, 0.0, level_N)
    return y_NT


def seasonal_walks(stream: Stream, known_N: Whole, steps: int) -> Floats:
    """(1 - a B) (1 - A B^m) x = shocks with both weights up to 0.98: seasons that change from turn to turn."""
    count, season_N = len(known_N), seasons_for(stream, known_N, none=0.0)
    near_N, far_N = stream.uniform(-0.3, 0.98, count), stream.uniform(0.3, 0.98, count)
    lead = int(SEASONS.max()) + 1
    x_TN, each_N = np.zeros((steps + lead, count)), np.arange(count)
    x_TN[:lead] = seasonal(stream, season_N, lead).T * _log_uniform(stream, 0.3, 4.0, count).T
    e_NT = shocks(stream, count, steps + lead)
    for t in range(lead, steps + lead):
        lagged_N, before_N = x_TN[t - season_N, each_N], x_TN[t - season_N - 1, each_N]
        x_TN[t] = near_N * x_TN[t - 1] + far_N * lagged_N - near_N * far_N * before_N + e_NT[:, t]
    return x_TN[lead:].T + trend(stream, known_N, steps) * _log_uniform(stream, 0.2, 10.0, count)


def multiplied(stream: Stream, known_N: Whole, steps: int) -> Floats:
    """The exponential of a structured or smoothed series: growth in percent, seasons that grow with the level."""
    half = len(known_N) // 2
    log_NT = np.concatenate((structured(stream, known_N[:half], steps), smoothed(stream, known_N[half:], steps)))
    seen_NT = np.arange(steps)[None, :] >= (steps - known_N)[:, None]
    spread_N1 = np.maximum(np.std(log_NT, axis=1, keepdims=True, where=seen_NT), 1e-6)
    middle_N1 = np.mean(log_NT, axis=1, keepdims=True, where=seen_NT)
    size_N1 = _log_uniform(stream, 0.02, 0.8, len(known_N))
    return np.asarray(np.exp(np.clip((log_NT - middle_N1) / spread_N1, -6, 6) * size_N1))


def regimes(stream: Stream, known_N: Whole, steps: int) -> Floats:
    """Three autoregressions with levels and spreads of their own; a hidden switch picks one."""
    count, each_N = len(known_N), np.arange(len(known_N))
    level_N3 = stream.normal(size=(count, 3)) * 2
    weight_N3, spread_N3 = stream.uniform(-0.3, 0.97, (count, 3)), np.exp(stream.normal(-1, 0.7, (count, 3)))
    leave_N = _log_uniform(stream, 0.004, 0.15, count)[:, 0]
    flips_NT, e_NT = stream.random((count, steps)) < leave_N[:, None], shocks(stream, count, steps)
    next_NT = stream.integers(0, 3, (count, steps))
    now_N, x_N = stream.integers(0, 3, count), np.zeros(count)
    y_NT = np.empty((count, steps))
    for t in range(steps):
        now_N = np.where(flips_NT[:, t], next_NT[:, t], now_N)
        level_N = level_N3[each_N, now_N]
        x_N = level_N + weight_N3[each_N, now_N] * (x_N - level_N) + spread_N3[each_N, now_N] * e_NT[:, t]
        y_NT[:, t] = x_N
    return y_NT


def walks(stream: Stream, known_N: Whole, steps: int) -> Floats:
    """Random walks with drift whose volatility clusters (GARCH), some of them with autocorrelated steps."""
    count = len(known_N)
    react_N, keep_N = stream.uniform(0, 0.2, count), stream.uniform(0.5, 0.79, count)
    carry_N = stream.uniform(-0.2, 0.9, count) * (stream.random(count) < 0.4)
    variance_N, step_N = np.ones(count), np.zeros(count)
    e_NT, move_NT = stream.normal(size=(count, steps)), np.empty((count, steps))
    for t in range(steps):
        shock_N = np.sqrt(variance_N) * e_NT[:, t]
        variance_N = (1 - react_N - keep_N) + react_N * shock_N**2 + keep_N * variance_N
        step_N = carry_N * step_N + shock_N
        move_NT[:, t] = step_N
    drift_N1 = stream.normal(size=(count, 1)) * stream.choice([0.0, 2.0, 6.0], (count, 1)) / np.sqrt(known_N)[:, None]
    return np.cumsum(move_NT + drift_N1, axis=1)


def counts(stream: Stream, known_N: Whole, steps: int) -> Floats:
    """Intermittent counts: whether anything is sold depends on the season, how much is Poisson with a drifting mean."""
    count, season_N = len(known_N), seasons_for(stream, known_N, none=0.4)
    odds_NT = stream.normal(0, 1.5, (count, 1)) + seasonal(stream, season_N, steps) * stream.uniform(0, 2, (count, 1))
    busy_NT = stream.random((count, steps)) < 1 / (1 + np.exp(-odds_NT))
    mean_NT = _log_uniform(stream, 0.7, 40.0, count) * drifting(stream, count, steps, 1.0)
    return np.where(busy_NT, stream.poisson(mean_NT), 0).astype(np.float64)


def shifting(stream: Stream, known_N: Whole, steps: int) -> Floats:
    """Levels that jump now and then, with spikes, a season and noise."""
    count, season_N = len(known_N), seasons_for(stream, known_N, none=0.4)
    often_N1 = stream.uniform(0, 4, (count, 1)) / known_N[:, None]
    jumps_NT = (stream.random((count, steps)) < often_N1) * stream.normal(size=(count, steps)) * 3
    y_NT = np.cumsum(jumps_NT, axis=1) + seasonal(stream, season_N, steps) * _log_uniform(stream, 0.1, 2.0, count)
    y_NT += autoregressive(stream, count, steps) * _log_uniform(stream, 0.1, 1.0, count)
    return spiked(stream, y_NT, share=1.0)


def spiked(stream: Stream, y_NT: Floats, share: float = 0.05) -> Floats:
    """A share of the series with about 1 % of their steps pushed far out, mostly to one side."""
    count, spread_N1 = len(y_NT), y_NT.std(axis=1, keepdims=True)
    hit_NT = (stream.random(y_NT.shape) < 0.01) & (stream.random((count, 1)) < share)
    side_N1 = np.where(stream.random((count, 1)) < 0.7, np.sign(stream.normal(size=(count, 1))), 0.0)
    push_NT = np.where(side_N1 != 0, side_N1 * np.abs(stream.normal(size=y_NT.shape)), stream.normal(size=y_NT.shape))
    return np.asarray(y_NT + hit_NT * push_NT * 4 * spread_N1)


FAMILIES: Mapping[str, tuple[Family, float]] = {  # with their shares
    "structured": (structured, 0.22),
    "smoothed": (smoothed, 0.22),
    "multiplied": (multiplied, 0.18),
    "seasonal_walks": (seasonal_walks, 0.12),
    "walks": (walks, 0.08),
    "regimes": (regimes, 0.06),
    "shifting": (shifting, 0.06),
    "counts": (counts, 0.06),
}


def generated(stream: Stream, known_N: Whole, steps: int) -> Floats:
    """Series [N, T] of all families in their shares."""
    families, shares = zip(*FAMILIES.values(), strict=True)
    ends = np.round(np.cumsum(shares) * len(known_N)).astype(int)
    parts = np.split(known_N, ends[:-1])
    made = [family(stream, part_N, steps) for family, part_N in zip(families, parts, strict=True) if len(part_N)]
    return np.concatenate(made)
