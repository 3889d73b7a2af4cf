"""A forecast as numbers: its cost, its worth and the curves beside it, from its trace and the truth held back.

Everything is in the units of the series. Measures of all lanes are taken at the same nine quantile levels, whatever
levels a lane gives, so that they compare; their definitions are those of `backend.series.metrics`. No torch here.

    held = Held.of(series, until=300, horizon=48)
    forecast = forecast_of(trace, scale)                    # `backend.series.forecasts`
    row = report_row(trace, forecast, held, base=recursive_trace)
    table = [row.cells()]                                   # under `HEADERS`

Shape letters: T steps of the past, H horizon, Q quantile levels, S sample paths, N forecasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backend.codecs.dates import Floats
from backend.codecs.series import Series
from backend.registry import strategies
from backend.series.forecasts import Acceptance, Forecast, acceptance_of
from backend.series.metrics import LEVELS, Scores, score
from backend.trace import Trace
from backend.types import Fate

HEADERS = (
    "strategy", "calls", "draft calls", "ms", "x calls", "x time", "MASE", "WQL", "SQL", "sMAPE", "in 80 %",
    "CRPS of sum", "guarantee",
)  # fmt: skip
INSIDE = 0.8  # share of the truth that the band whose width is told should hold


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
    """One line of the table under the lanes. None where something is not known or not defined.

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

    def cells(self) -> list[Any]:
        """Rounded values under `HEADERS`; the strategy under its title."""
        s, known = self.scores, strategies().get(self.strategy)
        rates = [_short(x, 3) for x in (self.speedup_calls, self.speedup_time)]
        told = ("mase", "wql", "sql", "smape", "coverage80", "crps_of_sum")
        worth = [_short(getattr(s, name), 4) if s else None for name in told]
        title = known.title if known else self.strategy
        return [title, self.calls, self.draft_calls, _short(1000 * self.seconds, 4), *rates, *worth, self.guarantee]

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

    None where no truth is known, where a step of the forecast is missing, and where its levels do not reach from 0.1
    to 0.9: nothing is made up beyond them.
    """
    quantiles_QH = forecast.quantiles(LEVELS)
    if held.truth_H is None or not np.isfinite(quantiles_QH).all():
        return None
    if forecast.joint:
        return score(held.truth_H, forecast.values_SH, (), held.past_T, held.season)
    return score(held.truth_H, quantiles_QH, LEVELS, held.past_T, held.season)


# -------------------------------------------------------------------------------------------------------------- curves
def width_by_step(forecast: Forecast, inside: float = INSIDE) -> Floats:
    """Width of the central band by step, [H]: bands that shrink on the way are seen here. NaN where not written."""
    ends = (round((1 - inside) / 2, 6), round((1 + inside) / 2, 6))  # 0.1 itself, not a hair below the outer level
    low_H, high_H = forecast.quantiles(ends)
    return np.asarray(high_H - low_H)


def bell(distance: float) -> float:
    """2 Phi(-D / 2): how often a drafted patch is accepted where both laws have one covariance and means D apart."""
    return math.erfc(distance / math.sqrt(8.0))


def bell_curve(furthest: float = 4.0, points: int = 81) -> tuple[list[float], list[float]]:
    """Distances from 0 to `furthest` and the acceptance that `bell` gives there, for a line in a plot."""
    at = [furthest * i / (points - 1) for i in range(points)]
    return at, [bell(d) for d in at]


@dataclass(frozen=True)
class Place:
    """Drafted patches of one place, over a whole trace.

    Args:
        place: in the draft, 1 first; or in the horizon, see `acceptance_by_patch`. rate: kept / judged, with its 95 %
            interval `low` to `high` (Wilson). chance, curve, distance: means over paths of the exact chance to be
            accepted, of 2 Phi(-D / 2), and of D, the distance of the means in standard deviations; None where a
            strategy does not tell them.
    """

    place: int
    kept: int
    judged: int
    rate: float
    low: float
    high: float
    chance: float | None = None
    curve: float | None = None
    distance: float | None = None


def acceptance_by_place(trace: Trace) -> list[Place]:
    """Acceptance by place in the draft, beside the curve: equal covariances lie on it. [] where nothing was drafted.

    `rate` is over paths whose earlier patches were kept; the means are over all paths that drafted there.
    """
    counted = acceptance_of(trace)
    places = []
    for i, (kept, judged) in enumerate(zip(counted.kept, counted.judged, strict=True)):
        told = (_mean_figure(trace, f"{name} {i + 1}") for name in ("chance", "bell", "distance"))
        places.append(Place(i + 1, kept, judged, counted.rates[i], *interval(kept, judged), *told))
    return places


def acceptance_by_patch(trace: Trace) -> list[Place]:
    """The same by where in the horizon a patch begins: `place` is its first step, 1 first."""
    horizon = trace.request.budget
    kept: dict[int, int] = {}
    judged: dict[int, int] = {}
    for step in trace.steps:
        for mark in step.marks:
            if mark.fate in (Fate.KEPT, Fate.REJECTED):
                at = mark.slot % horizon
                judged[at] = judged.get(at, 0) + 1
                kept[at] = kept.get(at, 0) + (mark.fate is Fate.KEPT)
    return [
        Place(at + 1, kept[at], judged[at], kept[at] / judged[at], *interval(kept[at], judged[at]))
        for at in sorted(judged)
    ]


def pooled_acceptance(traces: Sequence[Trace]) -> Acceptance:
    """Kept and judged by place over several forecasts together."""
    found = [acceptance_of(trace) for trace in traces]
    most = max((len(a.judged) for a in found), default=0)
    sums = [
        tuple(sum(counts[i] for a in found if i < len(counts := getattr(a, name))) for i in range(most))
        for name in ("kept", "judged")
    ]
    return Acceptance(*sums)


def interval(hits: int, tries: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) without a try."""
    if not tries:
        return 0.0, 1.0
    share, more = hits / tries, z * z / tries
    middle = (share + more / 2) / (1 + more)
    reach = z * math.sqrt(share * (1 - share) / tries + more / (4 * tries)) / (1 + more)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _mean_figure(trace: Trace, name: str) -> float | None:
    """Mean of a figure over steps, each weighing as many paths as it wrote."""
    horizon = trace.request.budget
    told = [(s.figures[name], len({m.slot // horizon for m in s.marks})) for s in trace.steps if name in s.figures]
    paths = sum(n for _, n in told)
    return sum(x * n for x, n in told) / paths if paths else None


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


def _short(x: float | None, digits: int) -> float | None:
    """Rounded to significant digits."""
    return None if x is None or not math.isfinite(x) else float(f"{x:.{digits}g}")
