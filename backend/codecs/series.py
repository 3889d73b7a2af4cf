"""Series: reading the files that users have, the scale of a context, and writing forecasts in the columns they expect.

`read_series` takes CSV text, bytes or a path; series that cannot be used are named in one sentence each, the others
stay usable. Gaps are NaN. No torch here: `backend.codecs.forecast` makes prompts of what is read.

Shape letters: T steps of a series, H horizon, S sample paths or quantile levels.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backend.codecs import dates
from backend.codecs.dates import Floats, Frequency, Times
from backend.errors import UserError

LARGEST_FILE = 1_000_000  # bytes
MOST_ROWS = 10_000
MOST_SERIES = 500
LEAST_VALUES = 8  # observed ones that a series must have
LARGEST_VALUE = 1e15
LONGEST_HORIZON = 512
SIGNS = (",", "$", "\u20ac", "\u00a3", "%", "'", " ")  # that people write about or within numbers
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "-"})
NAMES = {  # of columns, in the order in which they are looked for
    "unique_id": ("unique_id", "item_id", "series_id", "series", "id"),
    "ds": ("ds", "timestamp", "datetime", "date", "time", "month", "year"),
    "y": ("y", "value", "target"),
}


@dataclass(frozen=True, eq=False)
class Series:
    """One series on the grid of its dates.

    Args:
        name: its unique_id. y_T: values, NaN where the file has a gap. times_T: date of every step, see
            `backend.codecs.dates`. numbered: whether dates are plain numbers. season: steps of a season, 1 without one.
    """

    name: str
    y_T: Floats
    times_T: Times
    numbered: bool
    frequency: Frequency
    season: int

    def __len__(self) -> int:
        return len(self.y_T)

    @property
    def ds(self) -> list[str]:
        """Dates as text."""
        return dates.written(self.times_T, self.numbered)

    def until(self, length: int) -> Series:
        """The first `length` steps: what is known at an origin. The season is one of the whole series."""
        return replace(self, y_T=self.y_T[:length], times_T=self.times_T[:length])

    def future(self, horizon: int) -> list[str]:
        """The dates of the next `horizon` steps."""
        return dates.written(dates.continued(self.times_T, self.frequency, range(1, horizon + 1)), self.numbered)


@dataclass(frozen=True)
class Table:
    """What a file holds: usable series by name, and one sentence for everything that is not usable."""

    series: Mapping[str, Series]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """Where a value stands, for sentences: rows are counted as a spreadsheet does, from 1 with the header."""

    row: int
    ds: str
    y: str


@dataclass(frozen=True)
class Column:
    """The cells of one series before they are read. date, value: what the file calls its columns."""

    name: str
    cells: list[Cell]
    date: str
    value: str


class _BadSeriesError(Exception):
    """Why one series cannot be used."""


# ------------------------------------------------------------------------------------------------------------ reading
def read_series(raw: str | bytes | Path) -> Table:
    """Read a CSV file: columns unique_id, ds, y in any order; ds and y; y alone; or a column for each series.

    Raises UserError where nothing can be used: too large, no table, no column of numbers, no usable series.
    """
    rows = cells_of(_text(raw))
    if len(rows) > MOST_ROWS + 1:
        raise UserError(f"The file has {len(rows)} rows; up to {MOST_ROWS} are read.")
    header, first = _header(rows)
    columns, problems = _columns(header, rows, first)
    series: dict[str, Series] = {}
    for column in columns:
        try:
            series[column.name] = _series(column)
        except _BadSeriesError as error:
            problems.append(str(error))
    if not series:
        raise UserError(problems[0] if problems else "The file has a header but no values; add rows below it.")
    return Table(series, tuple(problems))


def _text(raw: str | bytes | Path) -> str:
    if isinstance(raw, Path):
        if not raw.is_file():
            raise UserError(f"There is no file {raw.name}; pick a CSV file.")
        if raw.stat().st_size > LARGEST_FILE:
            raise UserError(f"{raw.name} has {raw.stat().st_size} bytes; files up to {LARGEST_FILE} bytes are read.")
        raw = raw.read_bytes()
    size = len(raw if isinstance(raw, bytes) else raw.encode("utf-8", errors="replace"))
    if size > LARGEST_FILE:
        raise UserError(f"The file has {size} bytes; files up to {LARGEST_FILE} bytes are read.")
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw.removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"The file is no text in UTF-8 (byte {error.start}); save it as CSV in UTF-8.") from error
    if not text.strip():
        raise UserError("The file is empty; give it columns unique_id, ds, y, or one column of numbers.")
    if "\0" in text:
        raise UserError("The file holds zero bytes, so it is no CSV text; save it as CSV in UTF-8.")
    return text


def cells_of(text: str) -> list[tuple[int, list[str]]]:
    """Every row of CSV text that is not blank, with its number. Raises UserError where quotation marks do not close."""
    head = next(line for line in text.splitlines() if line.strip())
    delimiter = max(",;\t", key=head.count)
    rows: list[tuple[int, list[str]]] = []
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True), 1):
            rows.append((number, [cell.strip() for cell in row]))
    except csv.Error as error:
        raise UserError(
            f"Row {len(rows) + 1} and what follows cannot be read as CSV ({error}); check its quotation marks."
        ) from error
    return [(number, row) for number, row in rows if any(row)]


def _header(rows: list[tuple[int, list[str]]]) -> tuple[list[str], int]:
    """Names of the columns and the index of the first row of values; without a header names go by position."""
    top = rows[0][1]
    if any(_number(c) is None and dates.read_date(c) is None for c in top[-1:]) or any(
        c.lower() in {name for names in NAMES.values() for name in names} for c in top
    ):
        names = [c or f"column {i}" for i, c in enumerate(top, 1)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UserError(f"Row {rows[0][0]} names two columns '{twice}'; give every column a name of its own.")
        return names, 1
    by_count = {1: ["y"], 2: ["ds", "y"], 3: ["unique_id", "ds", "y"]}
    if len(top) == 2 and dates.read_date(top[0]) is None:
        raise UserError(f"Row 1, column 1: '{top[0][:40]}' is no date; write YYYY-MM-DD, or a header with ds and y.")
    if len(top) not in by_count:
        raise UserError(f"The file has {len(top)} columns but no header; name them in the first row.")
    return by_count[len(top)], 0


def _columns(header: list[str], rows: list[tuple[int, list[str]]], first: int) -> tuple[list[Column], list[str]]:
    """The cells of every series, in the order of the file, and sentences about rows that fit none."""
    low = [name.lower() for name in header]
    found = {key: next((low.index(name) for name in names if name in low), None) for key, names in NAMES.items()}
    at_id, at_ds, at_y = found["unique_id"], found["ds"], found["y"]
    values = {"": at_y} if at_y is not None else {}
    if at_y is None:
        if at_id is not None:
            raise UserError(f"The file has columns {', '.join(header[:9])}, but none is called y; name the values y.")
        if at_ds is None and len(header) > 1 and first < len(rows) and _number(rows[first][1][0]) is None:
            at_ds = 0
        values = {name: i for i, name in enumerate(header) if i != at_ds}
    if not values:
        raise UserError("The file has dates but no column of numbers; add one called y.")
    date = header[at_ds] if at_ds is not None else ""
    columns: dict[str, Column] = {}
    problems: list[str] = []
    broken: dict[str, str] = {}
    told = rows[first:]
    if at_id is None:
        told, problems = _whole_rows(told, len(header), at_ds is not None)
    for number, row in told:
        name = row[at_id] if at_id is not None and at_id < len(row) else "y" if at_id is None else ""
        if len(row) != len(header) or not name:
            what = f"has {_cells(len(row))} where the header has {len(header)}" if name else "has no unique_id"
            broken.setdefault(name, f"Row {number} {what}")
            continue
        for column, i in values.items():
            key = column or name
            made = columns.setdefault(key, Column(key, [], date, header[i]))
            made.cells.append(Cell(number, row[at_ds] if at_ds is not None else "", row[i]))
    for name, sentence in broken.items():
        columns.pop(name, None)
        whose = f"series '{name}'" if name else "the row"
        problems.append(f"{sentence}; {whose} is left out.")
    if len(columns) > MOST_SERIES:
        raise UserError(f"The file has {len(columns)} series; up to {MOST_SERIES} are read.")
    return list(columns.values()), problems


def _whole_rows(
    rows: list[tuple[int, list[str]]], cells: int, dated: bool
) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Rows of a file without ids: those with other than `cells` cells become gaps of every series, and a sentence."""
    odd = [(number, len(row)) for number, row in rows if len(row) != cells]
    if not odd:
        return rows, []
    (number, found), more = odd[0], len(odd) - 1
    kept = [(at, row if len(row) == cells else [""] * cells) for at, row in rows if len(row) == cells or not dated]
    others = f", and {more} more row{'s fit' if more > 1 else ' fits'} it no better" if more else ""
    whose = "they count" if more else "it counts"
    return kept, [f"Row {number} has {_cells(found)} where the first row has {cells}{others}; {whose} as missing."]


def _cells(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"


def _series(column: Column) -> Series:
    """The series of a column. Raises _BadSeriesError with a sentence that names row and column."""
    y = [_value(column, cell) for cell in column.cells]
    times_T, numbered = _times(column)
    frequency = dates.infer(times_T, numbered)
    place_T = dates.positions(times_T, frequency)
    if (np.diff(place_T) < 1).any():  # such as a weekend among business days
        frequency, place_T = Frequency(""), np.arange(len(y), dtype=np.int64)
    y_T = np.full(int(place_T[-1]) + 1, np.nan)
    y_T[place_T] = y
    if len(y_T) > len(y):
        later_T = dates.continued(times_T[:1], frequency, range(1, len(y_T))) if len(y_T) > 1 else times_T[:0]
        full_T = np.concatenate((times_T[:1], later_T))
        full_T[place_T] = times_T
        times_T = full_T
    _check(column, y_T)
    known = np.nonzero(np.isfinite(y_T))[0]
    y_T, times_T = y_T[known[0] : known[-1] + 1], times_T[known[0] : known[-1] + 1]
    return Series(column.name, y_T, times_T, numbered, frequency, dates.season_of(y_T, frequency))


def _check(column: Column, y_T: Floats) -> None:
    known = y_T[np.isfinite(y_T)]
    span = f"rows {column.cells[0].row} to {column.cells[-1].row}, column {column.value}"
    if not len(known):
        raise _BadSeriesError(f"Series '{column.name}' ({span}) has no value at all; it is left out.")
    if len(known) < LEAST_VALUES:
        raise _BadSeriesError(
            f"Series '{column.name}' ({span}) has {len(known)} values; at least {LEAST_VALUES} are needed, "
            "so it is left out."
        )
    if float(known.max() - known.min()) <= 1e-12 * float(np.abs(known).max()):
        raise _BadSeriesError(f"Series '{column.name}' ({span}) is constant at {known[0]:g}; it is left out.")


def _value(column: Column, cell: Cell) -> float:
    if cell.y.lower() in MISSING:
        return float("nan")
    value = _number(cell.y)
    if value is None:
        signs = any(sign in cell.y for sign in SIGNS) and any(c.isdigit() for c in cell.y)
        advice = " such as 1234.5, without other signs" if signs else ""
        raise _BadSeriesError(
            f"Row {cell.row}, column {column.value}: '{cell.y[:40]}' is no number{advice}; "
            f"series '{column.name}' is left out."
        )
    if not abs(value) <= LARGEST_VALUE:
        raise _BadSeriesError(
            f"Row {cell.row}, column {column.value}: {cell.y[:40]} is beyond {LARGEST_VALUE:g}; "
            f"series '{column.name}' is left out."
        )
    return value


def _times(column: Column) -> tuple[Times, bool]:
    """Dates of a column, checked to ascend; 1, 2, ... where it has none."""
    if not column.date:
        return np.arange(1, len(column.cells) + 1, dtype=np.int64), True
    read: list[tuple[int, bool]] = []
    for cell in column.cells:
        date = dates.read_date(cell.ds)
        if date is None or (read and date[1] != read[0][1]):
            like = " like those before it" if read else ""
            raise _BadSeriesError(
                f"Row {cell.row}, column {column.date}: '{cell.ds[:40]}' is no date{like}; write "
                f"YYYY-MM-DD, with HH:MM:SS if needed; series '{column.name}' is left out."
            )
        if read and date[0] <= read[-1][0]:
            what = "comes twice" if date[0] == read[-1][0] else "is earlier than the row before"
            raise _BadSeriesError(
                f"Row {cell.row}, column {column.date}: '{cell.ds[:40]}' {what}; sort the dates and keep one row each; "
                f"series '{column.name}' is left out."
            )
        read.append(date)
    times_T = np.array([time for time, _ in read], dtype=np.int64)
    if read[0][1] and (as_dates := dates.years(times_T)) is not None:
        return as_dates, False
    return times_T, read[0][1]


def _number(text: str) -> float | None:
    try:
        return float(text) if text and "_" not in text else None
    except ValueError:
        return None


# ------------------------------------------------------------------------------------------------------------ asking
def check_ask(series: Series, horizon: int, season: int | None = None) -> int:
    """The season to use for a forecast of `horizon` steps: the given one, or that of the series.

    Raises UserError for a horizon beyond the limit and for a season that does not fit into the series.
    """
    if type(horizon) is not int or not 1 <= horizon <= LONGEST_HORIZON:
        raise UserError(f"The horizon must lie between 1 and {LONGEST_HORIZON} steps, but {horizon!r} was asked for.")
    if season is None:
        return series.season
    if type(season) is not int or season < 1:
        raise UserError(f"The season must be a whole number of steps from 1, but {season!r} was given.")
    if season >= len(series):
        raise UserError(
            f"A season of {season} steps does not fit into '{series.name}', which has {len(series)}; "
            f"give one below {len(series)}, or 1 for none."
        )
    return season


# ------------------------------------------------------------------------------------------------------------ writing
def forecast_rows(
    series: Series, quantiles_LH: Floats, quantile_levels: Sequence[float], model: str, level: Sequence[int] = (80, 90)
) -> list[dict[str, str | float]]:
    """A forecast in long format: unique_id, ds, Model (the median), Model-lo-90, Model-hi-90, ... by ascending level.

    Args:
        quantiles_LH: in the units of the series, ascending along L. level: central intervals in percent; those whose
            ends are not among `quantile_levels` raise UserError, as nothing is extrapolated.
    """
    place = {round(100 * q, 6): i for i, q in enumerate(quantile_levels)}
    wanted = {model: 50.0}
    for percent in sorted(level):
        wanted[f"{model}-lo-{percent}"] = round(50 - percent / 2, 6)
        wanted[f"{model}-hi-{percent}"] = round(50 + percent / 2, 6)
    for name, q in wanted.items():
        if q not in place:
            known = ", ".join(f"{x:g}" for x in quantile_levels)
            raise UserError(
                f"{name} needs the quantile {q / 100:g}, but this forecast has {known}; ask for other levels."
            )
    days = series.future(quantiles_LH.shape[1])
    return [
        {"unique_id": series.name, "ds": ds}
        | {name: float(f"{quantiles_LH[place[q], h]:.8g}") for name, q in wanted.items()}
        for h, ds in enumerate(days)
    ]


def to_csv(rows: Sequence[Mapping[str, str | float]]) -> str:
    """Rows of one or several forecasts as CSV; columns in the order in which they first occur, empty where missing."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    table = csv.DictWriter(out, names, lineterminator="\n")
    table.writeheader()
    table.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _harmless(value: str | float) -> str | float:
    """A name that a spreadsheet would run as a formula is written with a quote in front."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "@", "-") else value
