"""A forecast as numbers: its cost and its worth, from its trace and the truth held back; and whether it is calibrated.

Everything is in the units of the series. Measures of all lanes are taken at the same nine quantile levels, whatever
levels a lane gives, so that they compare; their definitions are those of `backend.series.metrics`. No torch here.

    held = Held.of(series, until=300, horizon=48)
    forecast = forecast_of(trace, scale)                    # `backend.series.forecasts`
    row = report_row(trace, forecast, held, base=recursive_trace)

Shape letters: T steps of the past, H horizon, Q quantile levels, S sample paths, N forecasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from backend.codecs.dates import Floats
from backend.codecs.series import Series
from backend.registry import strategies
from backend.series.forecasts import Forecast
from backend.series.metrics import LEVELS, Scores, score
from backend.trace import Trace


@dataclass(frozen=True, eq=False)
class Held:
    """What a forecast is held against.

    Args:
        past_T: values up to the origin, NaN where missing. season: steps, 1 without one. truth_H: the values that
            came then, NaN where they are unknown; None where all are.
    """

    past_T: Floats
    season: int
    truth_H: Floats | None = None

    @classmethod
    def of(cls, series: Series, until: int, horizon: int, season: int | None = None) -> Held:
        """Of a series whose first `until` steps were known. Steps beyond its end are NaN."""
        truth_H = np.full(horizon, np.nan)
        known = series.y_T[until : until + horizon]
        truth_H[: len(known)] = known
        some = bool(np.isfinite(truth_H).any())
        return cls(series.y_T[:until], series.season if season is None else season, truth_H if some else None)


@dataclass(frozen=True)
class Row:
    """What a lane cost and what its forecast is worth. None where something is not known or not defined.

    Args:
        calls: target calls one after the other; one call serves all paths, so this is the most that any path needed.
        draft_calls: of all other models. seconds: of the steps alone. paths: sample paths, None for bands.
        speedup_calls, speedup_time: of the base lane over this one, for the same horizon; above 1 is better.
        scores: None while the forecast is not finished, and where no truth is known.
    """

    strategy: str
    guarantee: str
    calls: int
    draft_calls: int
    seconds: float
    paths: int | None
    speedup_calls: float | None = None
    speedup_time: float | None = None
    scores: Scores | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data under the names above."""
        return asdict(self)


def report_row(trace: Trace, forecast: Forecast, held: Held | None, base: Trace | None = None) -> Row:
    """The row of a lane.

    Args:
        forecast: of the trace, in the units of the series. base: the lane that speed is compared with, recursive from
            the same race; None for none. Ratios are told where both are finished and of one horizon.
    """
    known, request = strategies().get(trace.request.strategy), trace.request
    calls, draft_calls, seconds = cost_of(trace)
    ratios: tuple[float | None, float | None] = (None, None)
    if base is not None and finished(trace) and finished(base) and base.request.budget == request.budget:
        base_calls, _, base_seconds = cost_of(base)
        ratios = (base_calls / calls if calls else None, base_seconds / seconds if seconds else None)
    return Row(
        strategy=request.strategy,
        guarantee=known.promises(request.knobs).value if known else "",
        calls=calls,
        draft_calls=draft_calls,
        seconds=seconds,
        paths=len(forecast.values_SH) if forecast.joint else None,
        speedup_calls=ratios[0],
        speedup_time=ratios[1],
        scores=scores_of(forecast, held) if held is not None and finished(trace) else None,
    )


def cost_of(trace: Trace) -> tuple[int, int, float]:
    """Target calls, calls of all other models and parts, and seconds of a trace so far."""
    s = trace.summary()
    return s.num_target_calls, s.num_draft_calls, s.seconds


def finished(trace: Trace) -> bool:
    """Whether the lane has written all that was asked for."""
    return trace.end in ("budget", "end token")


def scores_of(forecast: Forecast, held: Held) -> Scores | None:
    """The measures at the nine levels; those of whole paths (sum, peak, energy) only where there are paths.

    A single curve is judged as all that can happen, a law of one point a step: its WQL is its weighted absolute error,
    its SQL its MASE, and coverage is None, for it has no band. All is None where no truth is known, where a step of the
    forecast is missing, and where its levels do not reach from 0.1 to 0.9: nothing is made up beyond them.
    """
    quantiles_QH = nine_of(forecast)
    if held.truth_H is None or not np.isfinite(quantiles_QH).all():
        return None
    if forecast.joint:
        return score(held.truth_H, forecast.values_SH, (), held.past_T, held.season)
    found = score(held.truth_H, quantiles_QH, LEVELS, held.past_T, held.season)
    return replace(found, coverage80=None) if forecast.point else found


def nine_of(forecast: Forecast) -> Floats:
    """Quantiles [9, H] at `LEVELS`: a single curve is at all of them."""
    if forecast.point:
        return np.repeat(forecast.values_SH, len(LEVELS), axis=0)
    return forecast.quantiles(LEVELS)


def interval(hits: int, tries: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) without a try."""
    if not tries:
        return 0.0, 1.0
    share, more = hits / tries, z * z / tries
    middle = (share + more / 2) / (1 + more)
    reach = z * math.sqrt(share * (1 - share) / tries + more / (4 * tries)) / (1 + more)
    return max(0.0, middle - reach), min(1.0, middle + reach)


# --------------------------------------------------------------------------------------------------------- calibration
def pit_histogram(forecasts: Sequence[Forecast], helds: Sequence[Held]) -> Floats:
    """Shares [10] of truths that fall between neighbouring deciles of their forecasts: 0.1 each where calibrated.

    A truth that equals several deciles, as zeros of counts do, is spread over the bins that they bound. NaN without
    a truth.
    """
    counts = np.zeros(len(LEVELS) + 1)
    for forecast, held in zip(forecasts, helds, strict=True):
        for truth, quantiles_Q in _known(forecast, held):
            low, high = int((quantiles_Q < truth).sum()), int((quantiles_Q <= truth).sum())
            counts[low : high + 1] += 1.0 / (high - low + 1)
    return np.asarray(counts / counts.sum()) if counts.sum() else np.full(len(counts), np.nan)


def reliability(forecasts: Sequence[Forecast], helds: Sequence[Held]) -> Floats:
    """Shares [9] of truths at or below the quantiles at `LEVELS`: the levels themselves where calibrated."""
    below = [q_Q >= y for f, held in zip(forecasts, helds, strict=True) for y, q_Q in _known(f, held)]
    return np.asarray(np.mean(below, axis=0)) if below else np.full(len(LEVELS), np.nan)


def _known(forecast: Forecast, held: Held) -> list[tuple[float, Floats]]:
    """Every known truth with the nine quantiles of its step."""
    if held.truth_H is None:
        return []
    quantiles_QH = forecast.quantiles(LEVELS)
    at = np.isfinite(held.truth_H) & np.isfinite(quantiles_QH).all(axis=0)
    return [(float(held.truth_H[h]), quantiles_QH[:, h]) for h in np.nonzero(at)[0]]


# ---------------------------------------------------------------------------------------------------------- comparison
@dataclass(frozen=True)
class Paired:
    """How the scores of one lane compare with those of another on the same cases.

    Args:
        ratio: geometric mean of ours over theirs; below 1 is better. low, high: its 95 % interval over cases.
    """

    ratio: float
    low: float
    high: float
    cases: int

    @property
    def same(self) -> bool:
        """Whether no difference is seen: the interval holds 1."""
        return self.low <= 1.0 <= self.high


def paired_bootstrap(
    ours: Sequence[float], theirs: Sequence[float], draws: int = 4000, seed: int = 0, inside: float = 0.95
) -> Paired:
    """Compare scores, such as WQL, of two lanes over many series: cases are drawn again with their pairs kept together.

    Ratios and not differences, so that no series weighs more for its units. Raises ValueError for no case, for lists
    of unequal length, and for scores that are not above 0.
    """
    if not ours or len(ours) != len(theirs) or min(*ours, *theirs) <= 0:
        raise ValueError("a paired comparison needs as many scores of either lane, at least one, all above 0")
    logs_N = np.log(np.asarray(ours, dtype=np.float64)) - np.log(np.asarray(theirs, dtype=np.float64))
    stream = np.random.default_rng(seed)
    means = logs_N[stream.integers(len(logs_N), size=(draws, len(logs_N)))].mean(axis=1)
    low, high = np.quantile(means, ((1 - inside) / 2, (1 + inside) / 2))
    return Paired(math.exp(float(logs_N.mean())), math.exp(float(low)), math.exp(float(high)), len(logs_N))
