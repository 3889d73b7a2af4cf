"""Series as prompts: a table, or numbers, to the context that a forecaster continues, in units of its frozen scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backend.codecs.dates import Floats
from backend.codecs.series import LEAST_VALUES, Series, check_ask, read_series
from backend.codecs.series_scale import Scale
from backend.errors import UserError
from backend.protocols import Prompt

FIELDS = ("csv", "series", "until", "season", "y")


class SeriesCodec:
    """Prompts of series. There are no tokens: `Prompt.extras` holds everything.

    "context": values [T] in model units, a tuple of numbers, NaN where missing. "scale": the `Scale` that made them.
    "season": steps, 1 without one. "series": the `Series` they come from, None for bare numbers.

    Args:
        context: most values that a model looks back on; older ones are left out before the scale is taken.
        bent: whether model units are arcsinh ones.
    """

    modality = "series"
    end: frozenset[int] = frozenset()

    def __init__(self, context: int, bent: bool = True) -> None:
        self.context, self.bent = context, bent
        self.vocabulary = "series, arcsinh" if bent else "series"

    def encode(self, raw: Any) -> Prompt:
        """The context of CSV text, of {"csv": ..., "series": ..., "until": ..., "season": ...}, or of {"y": [...]}.

        series: which one of the table, the first by default. until: steps that are known, all by default. y: numbers,
        None where one is missing. Raises UserError for whatever cannot be continued.
        """
        asked = {"csv": raw} if isinstance(raw, str) else raw
        if not isinstance(asked, dict) or ("csv" in asked) == ("y" in asked):
            raise UserError("A series prompt must be CSV text, or a mapping with either 'csv' or 'y'.")
        strange = [name for name in asked if name not in FIELDS]
        if strange:
            raise UserError(f"A series prompt has no field '{strange[0]}'; it has {', '.join(FIELDS)}.")
        series = _chosen(asked) if "csv" in asked else None
        y_T = series.y_T if series is not None else _numbers(asked["y"])
        y_T = y_T[: _until(asked.get("until"), len(y_T))]
        if series is not None:
            series = series.until(len(y_T))
            season = check_ask(series, 1, asked.get("season"))
        else:
            season = asked.get("season", 1)
            if type(season) is not int or not 1 <= season < len(y_T):
                raise UserError(f"The season must lie between 1 and {len(y_T) - 1} steps, but {season!r} was given.")
        y_T = y_T[-self.context :]
        scale = Scale.of(y_T, self.bent)
        context = tuple(scale.encode(y_T).tolist())
        return Prompt(extras={"context": context, "scale": scale, "season": season, "series": series})

    def decode(self, canvas: Sequence[int]) -> str:
        """Nothing: forecasts are in the values of marks, see `backend.series.forecasts`."""
        return ""

    def piece(self, token: int) -> str:
        """Series have no tokens."""
        raise AssertionError(f"a series has no token {token}")


def _chosen(asked: dict[str, Any]) -> Series:
    table = read_series(asked["csv"])
    name = asked.get("series", next(iter(table.series)))
    if name not in table.series:
        raise UserError(f"The file has no usable series {name!r}; it has {', '.join(list(table.series)[:9])}.")
    return table.series[name]


def _numbers(y: Any) -> Floats:
    if not isinstance(y, (list, tuple)) or any(type(x) not in (int, float, type(None)) for x in y):
        raise UserError("The values under 'y' must be a list of numbers, with null where one is missing.")
    y_T = np.array([np.nan if x is None else x for x in y], dtype=np.float64)
    known = int(np.isfinite(y_T).sum())
    if known < LEAST_VALUES or np.isinf(y_T).any():
        raise UserError(f"The list under 'y' has {known} finite values; give {LEAST_VALUES} or more, none infinite.")
    return y_T


def _until(until: Any, length: int) -> int:
    if until is None:
        return length
    if type(until) is not int or not LEAST_VALUES <= until <= length:
        raise UserError(f"A forecast can begin behind step {LEAST_VALUES} to {length}, but {until!r} was asked for.")
    return until
