"""Rolling backtest: the same lanes at several origins of one series, scored where the truth is known.

    made = Backtest.plan(series, requests, horizon=48)
    for done, total in made.run(catalog): ...
    made.result()                                    # scores by origin, pooled, and by step of the horizon

`requests_at` and `take` are for whoever runs the lanes in another way, such as in races. No torch here.

Shape letters: H horizon, Q quantile levels, O origins.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.codecs.dates import Floats
from backend.codecs.series import LEAST_VALUES, Series, check_ask
from backend.errors import UserError
from backend.forecast_report import Held, Row, nine_of, report_row
from backend.registry import strategies
from backend.series.forecasts import Forecast, forecast_of
from backend.series.metrics import LEVELS, pinball, seasonal_error, wql
from backend.trace import Trace
from backend.types import Request

if TYPE_CHECKING:
    from backend.catalog import Catalog

ORIGINS = 8
ROOM = 4 * LEAST_VALUES  # values that the first origin leaves to look back on


def origins(length: int, horizon: int, count: int = ORIGINS, least: int = ROOM) -> list[int]:
    """How many steps are known at each origin, ascending; the last forecast ends with the series.

    They lie a horizon apart, or evenly closer where the series is too short for that; then truths overlap. Raises
    UserError where not even two fit behind the first `least` steps.
    """
    room = length - horizon - least
    if room < 1 or count < 2:
        raise UserError(
            f"A backtest over {count} origins needs at least 2 of them, but a series of {length} steps with {horizon} "
            f"to forecast and {least} to look back on has {max(0, min(count, room + 1))}; take a shorter horizon."
        )
    count = min(count, room + 1)
    apart = min(horizon, room // (count - 1))
    return [length - horizon - apart * i for i in reversed(range(count))]


@dataclass
class Tally:
    """One lane over the origins, as its forecasts come in."""

    request: Request
    rows: dict[int, Row] = field(default_factory=dict)
    quantiles: dict[int, Floats] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)


@dataclass
class Backtest:
    """Lanes at several origins of one series. Made by `plan`; grows with `take`.

    Args:
        series: all of it. known: steps that are known at each origin, ascending. tallies: one a lane.
    """

    series: Series
    horizon: int
    season: int
    known: Sequence[int]
    tallies: list[Tally]

    @classmethod
    def plan(
        cls,
        series: Series,
        requests: Sequence[Request],
        horizon: int,
        count: int = ORIGINS,
        season: int | None = None,
    ) -> Backtest:
        """Raises UserError where horizon, season or the number of origins does not fit the series.

        requests: one a lane, the first being what speed is compared with; their prompts hold the whole series.
        """
        season = check_ask(series, horizon, season)
        known = origins(len(series), horizon, count)
        return cls(series, horizon, season, known, [Tally(request) for request in requests])

    def requests_at(self, origin: int) -> list[Request]:
        """What every lane asks for at origin number `origin`."""
        return [at_origin(tally.request, self.known[origin]) for tally in self.tallies]

    def held_at(self, origin: int) -> Held:
        """Past and truth of an origin."""
        return Held.of(self.series, self.known[origin], self.horizon, self.season)

    def take(self, origin: int, lane: int, trace: Trace, forecast: Forecast, base: Trace | None = None) -> None:
        """Score the forecast of a lane at an origin; base: lane 1's trace there, which speed is compared with."""
        tally = self.tallies[lane]
        tally.rows[origin] = report_row(trace, forecast, self.held_at(origin), base)
        tally.quantiles[origin] = nine_of(forecast)

    def fail(self, origin: int, lane: int, sentence: str) -> None:
        """Note why a lane has no forecast at an origin."""
        self.tallies[lane].problems[origin] = sentence

    def run(self, catalog: Catalog) -> Generator[tuple[int, int], None, None]:
        """Run all lanes, origin after origin; yields (forecasts done, forecasts in all). Close it to stop early.

        A lane that cannot run at an origin is noted with its reason, and the others go on.
        """
        from backend.run import record

        total = len(self.known) * len(self.tallies)
        for origin in range(len(self.known)):
            base: Trace | None = None
            for lane, request in enumerate(self.requests_at(origin)):
                try:
                    trace = record(request, catalog)
                    codec = catalog.get(trace.request.models["target"]).codec
                    scale = codec.encode(request.prompt).extras["scale"]
                    base = trace if lane == 0 else base
                    self.take(origin, lane, trace, forecast_of(trace, scale), base)
                except UserError as error:
                    self.fail(origin, lane, str(error))
                yield origin * len(self.tallies) + lane + 1, total

    # -------------------------------------------------------------------------------------------------------- results
    def result(self) -> dict[str, Any]:
        """Everything so far as plain JSON data.

        {"series", "horizon", "season", "origins": [{"until", "ds"}], "lanes": [{"strategy", "title", "guarantee",
        "rows": [row or null by origin], "problems", "pooled", "by_step"}]}
        """
        ds = self.series.ds
        return {
            "series": self.series.name,
            "horizon": self.horizon,
            "season": self.season,
            "origins": [{"until": until, "ds": ds[until - 1]} for until in self.known],
            "lanes": [self._lane(tally) for tally in self.tallies],
        }

    def _lane(self, tally: Tally) -> dict[str, Any]:
        known, request = strategies().get(tally.request.strategy), tally.request
        rows = [tally.rows.get(i) for i in range(len(self.known))]
        return {
            "strategy": request.strategy,
            "title": known.title if known else request.strategy,
            "guarantee": known.promises(request.knobs).value if known else "",
            "rows": [None if row is None else _plain(row) for row in rows],
            "problems": [tally.problems.get(i, "") for i in range(len(self.known))],
            "pooled": self._pooled(tally),
            "by_step": self._by_step(tally),
        }

    def _scored(self, tally: Tally) -> list[tuple[Held, Floats]]:
        """Truth and quantiles of the finished forecasts of a lane."""
        pairs = [(self.held_at(i), tally.quantiles[i]) for i, row in sorted(tally.rows.items()) if row.scores]
        return [(held, q_QH) for held, q_QH in pairs if held.truth_H is not None]

    def _pooled(self, tally: Tally) -> dict[str, float | int | None]:
        """Measures over all origins together: WQL by its own definition, others as means over origins."""
        pairs, rows = self._scored(tally), [row for row in tally.rows.values() if row.scores]
        truths = [held.truth_H for held, _ in pairs if held.truth_H is not None]
        some = bool(truths) and float(np.nanmax(np.abs(np.concatenate(truths)))) > 0
        told: dict[str, float | int | None] = {"origins": len(rows)}
        told["wql"] = wql(truths, [q_QH for _, q_QH in pairs], LEVELS) if some else None
        for name in ("mase", "sql", "smape", "coverage80", "crps_of_sum"):
            told[name] = _mean([getattr(row.scores, name) for row in rows])
        told["calls"], told["seconds"] = _mean([row.calls for row in rows]), _mean([row.seconds for row in rows])
        told["speedup_time"] = _mean([row.speedup_time for row in rows])
        return told

    def _by_step(self, tally: Tally) -> dict[str, list[float | None]]:
        """Means over origins by step: SQL, error of the median and width of the band in seasonal errors, coverage."""
        sums: dict[str, list[Floats]] = {"sql": [], "mase": [], "width": [], "coverage80": []}
        for held, q_QH in self._scored(tally):
            assert held.truth_H is not None
            low_H, middle_H, high_H = (q_QH[LEVELS.index(level)] for level in (0.1, 0.5, 0.9))
            band = bool((high_H > low_H).any())  # a single curve has none
            inside_H = ((held.truth_H >= low_H) & (held.truth_H <= high_H)).astype(np.float64)
            sums["coverage80"] += [np.where(np.isfinite(held.truth_H), inside_H, np.nan)] if band else []
            scale = seasonal_error(held.past_T, held.season)
            if scale is not None:
                sums["sql"].append(pinball(held.truth_H, q_QH, LEVELS).mean(axis=0) / scale)
                sums["mase"].append(np.abs(held.truth_H - middle_H) / scale)
                sums["width"] += [(high_H - low_H) / scale] if band else []
        return {name: _mean_by_step(found, self.horizon) for name, found in sums.items()}


def at_origin(request: Request, until: int) -> Request:
    """The request where so many steps of its series are known."""
    raw = {"csv": request.prompt} if isinstance(request.prompt, str) else dict(request.prompt)
    return replace(request, prompt={**raw, "until": until})


def _plain(row: Row) -> Mapping[str, Any]:
    told = row.to_json()
    scores = told.pop("scores") or {}
    return {**told, **scores}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [x for x in values if x is not None]
    return float(np.mean(known)) if known else None


def _mean_by_step(found: Sequence[Floats], horizon: int) -> list[float | None]:
    """Means [H] over those that know a step; None where none does."""
    if not found:
        return [None] * horizon
    stacked_OH = np.stack(found)
    count_H = np.isfinite(stacked_OH).sum(axis=0)
    mean_H = np.nansum(stacked_OH, axis=0) / np.maximum(count_H, 1)
    return [float(f"{x:.5g}") if n else None for x, n in zip(mean_H, count_H, strict=True)]
