"""Events in continuous time: reading the files that users have, and prompts of them in the unit of their history.

A file has a column of times, numbers or dates, and perhaps one of marks. Rows that cannot be used are named in one
sentence each, the others stay usable. Dates become days. No torch here.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend.codecs.series import LARGEST_FILE, MOST_ROWS, cells_of
from backend.codecs.series_scale import Scale
from backend.errors import UserError
from backend.protocols.models import Prompt

LEAST_EVENTS = 16  # of a history
CONTEXT = 128  # most events of a history that are read
MOST_KINDS = 4
LARGEST_TIME = 1e15
FIELDS = ("csv", "times", "marks", "horizon")
TIMES = ("time", "times", "t", "ds", "timestamp", "datetime", "date")
MARKS = ("mark", "marks", "type", "kind", "k", "event", "event_type")


@dataclass(frozen=True)
class EventTable:
    """Usable events in the order of time. times: numbers, or days of dates; marks: names; problems: of other rows."""

    times: tuple[float, ...]
    marks: tuple[str, ...]
    problems: tuple[str, ...] = ()

    @property
    def kinds(self) -> list[str]:
        """The marks that occur, in the order of the alphabet."""
        return sorted(set(self.marks))


@dataclass(frozen=True)
class Row:
    """One event as the file has it. number: of the row, from 1. told: the time in the words of the file."""

    number: int
    told: str
    time: float
    mark: str


class _BadRowError(Exception):
    """Why one row cannot be used."""


# ------------------------------------------------------------------------------------------------------------ reading
def read_event_table(text: str) -> EventTable:
    """Read CSV text: a column of times, and one of marks if there is one; a header is optional.

    Raises UserError where nothing can be used: too large, no table, too few events.
    """
    rows = _rows(text)
    head = [cell.lower() for cell in rows[0][1]]
    named = any(cell in TIMES for cell in head)
    at_time = next((i for i, cell in enumerate(head) if cell in TIMES), 0)
    at_mark = next((i for i, cell in enumerate(head) if cell in MARKS), None) if named else 1
    column = rows[0][1][at_time] if named else str(at_time + 1)
    found: list[Row] = []
    problems: list[str] = []
    dated: bool | None = None  # by the first time that can be read
    for number, row in rows[1:] if named else rows:
        told = row[at_time] if at_time < len(row) else ""
        try:
            time, dated = _time(told, dated)
        except _BadRowError as error:
            problems.append(f"Row {number}, column {column}: {error}; the row is left out.")
            continue
        found.append(Row(number, told[:40], time, _mark(row, at_mark)))
    return _table(found, column, problems)


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Every row that is not blank, with its number."""
    size = len(text.encode("utf-8", errors="replace"))
    if size > LARGEST_FILE:
        raise UserError(f"The events have {size} bytes; up to {LARGEST_FILE} bytes are read.")
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise UserError("There are no events; paste a time in each row, and its mark behind a comma if there are any.")
    rows = cells_of(text)
    if len(rows) > MOST_ROWS:
        raise UserError(f"There are {len(rows)} rows; up to {MOST_ROWS} are read.")
    return rows


def _time(told: str, dated: bool | None) -> tuple[float, bool]:
    """A time, and whether it is a date, in days. dated: whether those before it were, None for the first."""
    if not told:
        raise _BadRowError("there is no time")
    try:
        time, date = float(told), False
    except ValueError:
        time, date = _days(told), True
    if not math.isfinite(time) or abs(time) > LARGEST_TIME:
        raise _BadRowError(f"{told[:40]!r} is no finite time")
    if dated not in (None, date):
        kinds = ("a date", "numbers") if date else ("a number", "dates")
        raise _BadRowError(f"{told[:40]!r} is {kinds[0]} where the rows before it have {kinds[1]}")
    return time, date


def _days(told: str) -> float:
    try:
        date = datetime.fromisoformat(told)
    except ValueError:
        raise _BadRowError(f"{told[:40]!r} is neither a number nor a date such as 2024-01-31 12:30") from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() / 86_400


def _mark(row: Sequence[str], at: int | None) -> str:
    return row[at][:40] if at is not None and at < len(row) and row[at] else "event"


def _table(found: list[Row], column: str, problems: list[str]) -> EventTable:
    """Put in order, and without what the models cannot tell: events at one time, and more than four marks."""
    early = next((b for a, b in itertools.pairwise(found) if b.time < a.time), None)
    if early is not None:
        problems.append(
            f"Row {early.number}, column {column}: {early.told} is earlier than the row above it; all rows were put "
            "in order."
        )
        found = sorted(found, key=lambda row: row.time)
    counts = Counter(row.mark for row in found).most_common()
    known = sorted(mark for mark, _ in counts[:MOST_KINDS])
    for mark, count in counts[MOST_KINDS:]:
        first = min(row.number for row in found if row.mark == mark)
        more = f" and {count - 1} more row{'s' if count > 2 else ''}" if count > 1 else ""
        problems.append(
            f"Row {first}{more}: the models tell {MOST_KINDS} marks apart, and {mark!r} is rarer than "
            f"{', '.join(known)}; left out."
        )
    kept: list[Row] = []
    for row in (row for row in found if row.mark in known):
        if kept and row.time == kept[-1].time:
            problems.append(
                f"Row {row.number}, column {column}: {row.told} is the time of another event, and the models know no "
                "ties; the row is left out."
            )
        else:
            kept.append(row)
    if len(kept) < LEAST_EVENTS:
        why = f" {problems[0]}" if problems else ""
        raise UserError(f"{len(kept)} events can be used, but {LEAST_EVENTS} or more are needed.{why}")
    return EventTable(tuple(row.time for row in kept), tuple(row.mark for row in kept), tuple(problems))


# ------------------------------------------------------------------------------------------------------------- prompts
class EventCodec:
    """Prompts of events; tokens are kinds. `Prompt.extras` holds everything.

    "gaps": of the history [T] in model units, the first NaN. "kinds": whole numbers [T]. "num_kinds". "until": end of
    time behind the last event, in model units. "scale": time 0 and the unit of model times. "context": the gaps again.

    Args:
        kinds: most kinds that a model tells apart.
    """

    modality = "events"
    vocabulary = "events"
    end: frozenset[int] = frozenset()

    def __init__(self, kinds: int = MOST_KINDS) -> None:
        self.kinds = kinds

    def encode(self, raw: Any) -> Prompt:
        """The history of {"times": [...], "marks": [...], "horizon": x}, or of {"csv": text, "horizon": x}.

        times: ascending numbers. marks: what kind each event is, any words; left out, all are of one. horizon: how far
        beyond the last event, in the unit of the times. Raises UserError for whatever cannot be continued.
        """
        if not isinstance(raw, dict) or ("csv" in raw) == ("times" in raw):
            raise UserError("A prompt of events must be a mapping with either 'csv' or 'times', and a 'horizon'.")
        strange = [name for name in raw if name not in FIELDS]
        if strange:
            raise UserError(f"A prompt of events has no field {strange[0]!r}; it has {', '.join(FIELDS)}.")
        table = read_event_table(str(raw["csv"])) if "csv" in raw else _given(raw)
        horizon = raw.get("horizon")
        if isinstance(horizon, bool) or not isinstance(horizon, int | float) or not 0 < horizon <= LARGEST_TIME:
            raise UserError(f"The horizon must be a time above 0, but {horizon!r} was given.")
        names = table.kinds
        if len(names) > self.kinds:
            raise UserError(f"There are {len(names)} marks, but the model tells {self.kinds} apart; leave some out.")
        times = table.times[-CONTEXT:]
        unit = (times[-1] - times[0]) / (len(times) - 1)
        gaps = (math.nan, *((b - a) / unit for a, b in itertools.pairwise(times)))
        kinds = tuple(names.index(mark) for mark in table.marks[-CONTEXT:])
        extras = {"gaps": gaps, "kinds": kinds, "num_kinds": len(names), "until": horizon / unit, "context": gaps}
        return Prompt(extras={**extras, "scale": Scale(times[-1], unit, False)})

    def decode(self, canvas: Sequence[int]) -> str:
        """Nothing: events are in marks, see `backend.series.event_paths`."""
        return ""

    def piece(self, token: int) -> str:
        """A kind, by its number."""
        return f"kind {token}"


def _given(raw: dict[str, Any]) -> EventTable:
    times, marks = raw["times"], raw.get("marks")
    if not isinstance(times, list | tuple) or any(type(t) not in (int, float) or not math.isfinite(t) for t in times):
        raise UserError("The times must be a list of finite numbers.")
    marks = ["event"] * len(times) if marks is None else list(marks)
    if len(marks) != len(times):
        raise UserError(f"There are {len(times)} times but {len(marks)} marks; give one for each, or none.")
    early = next((i for i in range(1, len(times)) if times[i] <= times[i - 1]), None)
    if early is not None:
        raise UserError(f"Time {early + 1} ({times[early]:g}) is not behind the one before it; put them in order.")
    if len(times) < LEAST_EVENTS:
        raise UserError(f"{len(times)} events were given, but {LEAST_EVENTS} or more are needed.")
    return EventTable(tuple(map(float, times)), tuple(map(str, marks)))
