"""Forecasts of a trace, step by step, from the trace alone: what the browser needs to draw any moment of a fan chart.

A fan has the interface of a film (`demos.parts.films`): a head that is sent once, and for every step only the columns
of the forecast that are new, a few paths, and what the call did to which steps.

Shape letters: R rows (sample paths or quantile levels), H horizon, T steps of the context, Q quantile levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.codecs.bins import CONTEXT as TOKEN_CONTEXT
from backend.codecs.bins import paths_of, values_of
from backend.codecs.dates import Floats
from backend.codecs.forecast import SeriesCodec
from backend.codecs.series import LONGEST_HORIZON, Series, forecast_rows, read_series, to_csv
from backend.codecs.series_scale import Scale
from backend.codecs.series_tokens import MOST_PATHS
from backend.entries import FORECASTERS
from backend.errors import UserError
from backend.forecast_report import Held, finished, scores_of
from backend.protocols import ForecastSession
from backend.registry import strategies
from backend.series.forecasts import Forecast
from backend.trace import Trace
from backend.types import Fate, Step
from demos.parts.forecast_form import LONGEST_CONTEXT

SHOWN = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)  # bands of 90, 80 and 50 percent around the median
THIN = 10  # paths that are drawn, the first ones: those with the same noise in every lane
MOST_REFUSED = 12  # refused drafts of a step that are drawn
FATES = (Fate.KEPT, Fate.FIXED, Fate.BONUS, Fate.REJECTED, Fate.UNREAD)  # in the order of a call's flags


@dataclass(frozen=True, eq=False)
class Asked:
    """What a request asks to have continued.

    Args:
        past: the series up to the origin, as long as its codec looks back. scale: what the model saw it in. truth_H:
            NaN where nothing is known.
    """

    past: Series
    scale: Scale
    season: int
    horizon: int
    truth_H: Floats


def asked_of(trace: Trace) -> Asked:
    """Read the prompt of a trace as its model did. Raises UserError."""
    request = trace.request
    if type(request.budget) is not int or not 1 <= request.budget <= LONGEST_HORIZON * MOST_PATHS:
        raise UserError(f"A forecast of {request.budget!r} steps cannot be drawn.")
    if not isinstance(request.prompt, str | Mapping):
        raise UserError("This trace holds no series that could be drawn.")
    raw = {"csv": request.prompt} if isinstance(request.prompt, str) else dict(request.prompt)
    if "y" in raw:  # bare numbers: as a table, so that they have dates
        values = raw.pop("y")
        raw["csv"] = "ds,y\n" + "\n".join(f"{i},{'' if y is None else y}" for i, y in enumerate(values, 1))
    paths = paths_of(raw)
    if raw.get("fill") or type(paths) is not int or not 1 <= paths <= request.budget:
        raise UserError("This trace fills gaps, or asks for no path; only forecasts can be drawn.")
    prompt = SeriesCodec(TOKEN_CONTEXT if trace.prompt else LONGEST_CONTEXT).encode(
        {name: value for name, value in raw.items() if name not in ("paths", "fill")}
    )
    past: Series = prompt.extras["series"]
    scale: Scale = prompt.extras["scale"]
    if {"location", "spread", "bent"} <= trace.scale.keys() and trace.scale["spread"] > 0:
        scale = Scale(trace.scale["location"], trace.scale["spread"], bool(trace.scale["bent"]))
    horizon = request.budget // paths
    whole = read_series(raw["csv"]).series[past.name]
    truth_H = np.full(horizon, np.nan)
    known = whole.y_T[len(past) : len(past) + horizon]
    truth_H[: len(known)] = known
    return Asked(past, scale, prompt.extras["season"], horizon, truth_H)


class Fan:
    """The forecast of one growing trace. Raises UserError where its prompt cannot be read."""

    unit = "value"

    def __init__(self, trace: Trace) -> None:
        """Only request, prompt and scale of the trace are read here."""
        self.asked = asked_of(trace)
        self._start = len(trace.prompt)
        self._digits = 4 - math.ceil(math.log10(max(self.asked.scale.spread, 1e-300)))
        self.values_RH = np.full((1, self.asked.horizon), np.nan)
        self.levels: tuple[float, ...] = ()
        self.title = self._title()
        self.head: dict[str, Any] = self._head()

    @property
    def units(self) -> int:
        """Steps of the horizon that every row has."""
        return int(np.isfinite(self.values_RH).all(axis=0).sum())

    @property
    def forecast(self) -> Forecast:
        """What is written so far, in the units of the series."""
        return Forecast(self.values_RH, self.levels)

    def take(self, step: Step) -> None:
        """Take a step. Raises UserError where it writes outside of the horizon."""
        self._take(step)

    def frame(self, step: Step) -> dict[str, Any]:
        """Take a step and say what changed.

        c, q: first new column, and the quantiles `SHOWN` of the columns from there on, null where some row is open or
        a level is not known. p: [row, first column, values] of the paths that are drawn. r: [first column, values] of
        refused drafts. f: [first column, columns, rows by fate in the order of `FATES`]. k: [kept, judged] by place in
        the draft.
        """
        columns = self._take(step)
        told: dict[str, Any] = {}
        if columns:
            told |= self._band(min(columns), max(columns) + 1)
        if not self.levels and len(self.values_RH) > 1:
            told["p"] = [
                [row, at, self._short(values)] for row, at, values, fate in self._strokes(step)
                if row < THIN and fate.commits
            ]  # fmt: skip
        refused = [(at, v) for _, at, v, fate in self._strokes(step) if fate is Fate.REJECTED]
        told["r"] = [[at, self._short(values)] for at, values in refused[:MOST_REFUSED]]
        told["f"] = self._flags(step)
        told["k"] = self._judged(step)
        return {name: value for name, value in told.items() if value or name == "c"}

    def scores(self, trace: Trace) -> dict[str, float]:
        """Measures of a finished forecast against the truth that was held back; {} where there is none.

        A point forecast has a WQL, its weighted absolute error, and no coverage; one sample path has neither.
        """
        asked = self.asked
        truth_H = asked.truth_H if np.isfinite(asked.truth_H).any() else None
        if truth_H is None or not finished(trace):
            return {}
        drawn = not self.levels and len(self.values_RH) == 1  # one path tells nothing of the law it is drawn from
        found = scores_of(self.forecast, Held(asked.past.y_T, asked.season, truth_H))
        told = {name: x for name, x in vars(found).items() if x is not None and math.isfinite(x)} if found else {}
        return {name: x for name, x in told.items() if not drawn or name in ("mase", "smape")}

    def same_as(self, other: Fan) -> bool:
        """Whether both hold the same paths, but for rounding."""
        mine, theirs = self.values_RH, other.values_RH
        close = 1e-4 * self.asked.scale.spread
        return mine.shape == theirs.shape and np.allclose(mine, theirs, rtol=0.0, atol=close, equal_nan=True)

    # ------------------------------------------------------------------------------------------------------- a step
    def _take(self, step: Step) -> set[int]:
        """Write a step; the columns that it touched."""
        told = tuple(value for name, value in step.figures.items() if name.startswith("level "))
        if told and not self.levels:
            self.levels = told
            self._grow(len(told))
        touched: set[int] = set()
        for row, at, values, fate in self._strokes(step):
            if fate.commits or fate is Fate.ERASED:
                self._grow(row + 1)
                self.values_RH[row, at : at + len(values)] = np.nan if fate is Fate.ERASED else values
                touched.update(range(at, at + len(values)))
        return touched

    def _grow(self, rows: int) -> None:
        missing = rows - len(self.values_RH)
        if missing > 0:
            self.values_RH = np.concatenate((self.values_RH, np.full((missing, self.asked.horizon), np.nan)))

    def _strokes(self, step: Step) -> list[tuple[int, int, Floats, Fate]]:
        """Row, first column, values and fate of every mark."""
        asked, out = self.asked, []
        for mark in step.marks:
            row, at = divmod(mark.slot - self._start, asked.horizon)
            if mark.token is not None:
                values = values_of([mark.token], asked.scale)
            else:
                values = asked.scale.decode(np.asarray(mark.values, dtype=np.float64))
            if row < 0 or at + len(values) > asked.horizon or row >= 4096:
                raise UserError(f"This trace writes step {at + len(values)} of a forecast of {asked.horizon} steps.")
            out.append((row, at, values, mark.fate))
        return out

    def _band(self, first: int, last: int) -> dict[str, Any]:
        part_RH = self.values_RH[:, first:last]
        whole_H = np.isfinite(part_RH).all(axis=0)
        quantiles_QH = np.full((len(SHOWN), last - first), np.nan)
        if whole_H.any():
            if len(part_RH) > 1:
                quantiles_QH[:, whole_H] = Forecast(part_RH[:, whole_H], self.levels).quantiles(SHOWN)
            else:  # one path has no spread
                quantiles_QH[SHOWN.index(0.5)] = part_RH[0]
        return {"c": first, "q": [self._short(row_H) for row_H in quantiles_QH]}

    def _flags(self, step: Step) -> list[list[int]]:
        """What the step did to which columns: neighbours of one kind together."""
        counts: dict[tuple[int, int], list[int]] = {}
        for _, at, values, fate in self._strokes(step):
            if fate in FATES and len(values):
                counts.setdefault((at, len(values)), [0] * len(FATES))[FATES.index(fate)] += 1
        out: list[list[int]] = []
        for (at, size), by_fate in sorted(counts.items()):
            if out and size == 1 and out[-1][0] + out[-1][1] == at and out[-1][2:] == by_fate:
                out[-1][1] += 1
            else:
                out.append([at, size, *by_fate])
        return out

    def _judged(self, step: Step) -> list[list[int]]:
        """Drafts kept and judged by place in the draft; every row is a chain of its own."""
        chains: dict[int, list[tuple[int, bool]]] = {}
        for row, at, _, fate in self._strokes(step):
            if fate in (Fate.KEPT, Fate.REJECTED):
                chains.setdefault(row, []).append((at, fate is Fate.KEPT))
        places: list[list[int]] = []
        for chain in chains.values():
            for place, (_, kept) in enumerate(sorted(chain)):
                if place == len(places):
                    places.append([0, 0])
                places[place][0] += kept
                places[place][1] += 1
        return places

    # ------------------------------------------------------------------------------------------------------- a head
    def _head(self) -> dict[str, Any]:
        asked = self.asked
        truth = self._short(asked.truth_H)
        return {
            "horizon": asked.horizon,
            "season": asked.season,
            "context": self._short(asked.past.y_T[-LONGEST_CONTEXT:]),
            "ds": [*asked.past.ds[-LONGEST_CONTEXT:], *asked.past.future(asked.horizon)],
            "truth": truth if any(y is not None for y in truth) else [],
        }

    def _title(self) -> str:
        past = self.asked.past
        return f"{past.name}: {self.asked.horizon} steps behind {past.ds[-1]}, {len(past)} to look back on"

    def _short(self, values: Floats) -> list[float | None]:
        """Values rounded to a ten-thousandth of the spread, None for NaN."""
        digits = self._digits
        return [round(y, digits) + 0.0 if math.isfinite(y) else None for y in values.tolist()]


def fan(trace: Trace) -> Fan:
    """The fan of a trace."""
    return Fan(trace)


def opened(trace: Trace) -> Fan:
    """The fan of a trace after its last step."""
    made = Fan(trace)
    for step in trace.steps:
        made.take(step)
    return made


def to_table(traces: Sequence[Trace]) -> str:
    """Forecasts of finished traces as CSV: unique_id, ds, Model, Model-lo-90, Model-hi-90, ...; "" where there is none.

    Central intervals are those that a lane's quantiles reach.
    """
    lines: dict[tuple[str, str], dict[str, str | float]] = {}
    names: list[str] = []
    for trace in traces:
        if not finished(trace):
            continue
        made = opened(trace)
        own = trace.request.strategy
        name = f"{own}_{names.count(own) + 1}" if own in names else own
        names.append(own)
        for row in _rows(made, name):
            lines.setdefault((str(row["unique_id"]), str(row["ds"])), {}).update(row)
    return to_csv(list(lines.values())) if lines else ""


def _rows(made: Fan, name: str) -> list[dict[str, str | float]]:
    forecast = made.forecast
    if len(made.values_RH) == 1:  # one path: itself, and no band
        return forecast_rows(made.asked.past, forecast.values_SH, (0.5,), name, ())
    quantiles_QH = forecast.quantiles(SHOWN)
    level = [p for p, at in ((50, 2), (80, 1), (90, 0)) if np.isfinite(quantiles_QH[at]).all()]
    return forecast_rows(made.asked.past, np.nan_to_num(quantiles_QH), SHOWN, name, level)


def is_forecast(trace: Trace) -> bool:
    """Whether a trace continues a series: its target is a model of series, or of a kind that only series have."""
    found = strategies().get(trace.request.strategy)
    raw: Any = trace.request.prompt
    fields = isinstance(raw, Mapping) and ("csv" in raw or "y" in raw)
    ours = trace.request.models.get("target") in FORECASTERS
    return fields or ours or bool(trace.scale) or (found is not None and found.base is ForecastSession)
