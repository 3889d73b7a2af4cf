"""Dates of a series: reading them, the step between them, the dates that come next, and the season they suggest.

A date is a whole number of seconds since 1970 without a time zone (offsets are turned into UTC), or, where a file
numbers its rows, that number. No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Floats = NDArray[np.float64]
DAY = 86_400
SPARSE = 4  # a grid with more steps than this times the dates is no grid
QUARTER = re.compile(r"(\d{4})-?Q([1-4])", re.I)
MONTH = re.compile(r"(\d{4})[-/](\d{1,2})")
SLASHED = re.compile(r"(\d{4})/(\d{1,2})/(\d{1,2})(.*)", re.S)
NUMBER = re.compile(r"[+-]?\d{1,9}")


@dataclass(frozen=True)
class Frequency:
    """The step of a regular series: whole months, seconds or plain numbers; weekdays where `business`.

    name: as users of this field write it ("h", "D", "B", "W", "MS", "QE", ...), "" where the dates are irregular.
    ends: months are counted from last day to last day. season: steps of the natural season, 1 without one.
    """

    name: str
    months: int = 0
    seconds: int = 0
    numbers: int = 0
    business: bool = False
    ends: bool = False
    season: int = 1

    @property
    def regular(self) -> bool:
        """Whether every date lies on the grid."""
        return bool(self.months or self.seconds or self.numbers)


def read_date(text: str) -> tuple[int, bool] | None:
    """The date of a cell and whether it is a plain number; None where it is neither.

    Read are ISO 8601 dates and times (also without hyphens, or with slashes, year first), 2024-05, 2024Q2, 2024 and
    whole numbers. Dates that begin with a day or a month are not: nobody can tell which of the two it is.
    """
    text = text.strip()
    if found := QUARTER.fullmatch(text):
        return _seconds(datetime(int(found[1]), 3 * int(found[2]) - 2, 1)), False
    if found := MONTH.fullmatch(text):
        return (_seconds(datetime(int(found[1]), int(found[2]), 1)), False) if 1 <= int(found[2]) <= 12 else None
    if found := SLASHED.fullmatch(text):
        text = f"{found[1]}-{int(found[2]):02}-{int(found[3]):02}{found[4]}"
    if NUMBER.fullmatch(text) and len(text) != 8:
        return int(text), True
    try:
        return _seconds(datetime.fromisoformat(text)), False
    except ValueError:
        return (int(text), True) if NUMBER.fullmatch(text) else None


def years(numbers_T: Times) -> Times | None:
    """Dates of a column of years; None where its numbers are no years (each from 1500 to 2200, one apart or more)."""
    if len(numbers_T) < 2 or numbers_T.min() < 1500 or numbers_T.max() > 2200:
        return None
    return np.array([_seconds(datetime(int(year), 1, 1)) for year in numbers_T], dtype=np.int64)


def infer(times_T: Times, numbered: bool) -> Frequency:
    """The frequency of ascending dates; irregular where no step fits all, or would leave most of its grid empty."""
    if len(times_T) < 2:
        return Frequency("")
    if numbered:
        step = _common_step(np.diff(times_T))
        return Frequency(str(step), numbers=step) if step and _is_dense(times_T, step) else Frequency("")
    month_T, day_T, clock_T, last_T = _parts(times_T)
    if len(set(clock_T.tolist())) == 1 and (len(set(day_T.tolist())) == 1 or last_T.all()):
        step = _common_step(np.diff(month_T))
        if step and _is_dense(month_T, step):
            ends = bool(last_T.all() and (day_T > 1).all())
            name = {1: "M", 3: "Q", 12: "Y"}.get(step, f"{step}M") + ("E" if ends else "S")
            return Frequency(name, months=step, ends=ends, season=12 // step if 12 % step == 0 else 1)
    return _clockwork(times_T)


def positions(times_T: Times, frequency: Frequency) -> Times:
    """The place of each date on the grid, counted from the first; 0, 1, 2, ... for irregular dates."""
    if frequency.business:
        days_T = (times_T // DAY).astype("datetime64[D]")
        return np.asarray(np.busday_count(days_T[0], days_T), dtype=np.int64)
    if frequency.months:
        month_T = _parts(times_T)[0]
        return np.asarray((month_T - month_T[0]) // frequency.months)
    if frequency.regular:
        return np.asarray((times_T - times_T[0]) // (frequency.seconds or frequency.numbers))
    return np.arange(len(times_T), dtype=np.int64)


def continued(times_T: Times, frequency: Frequency, steps: Sequence[int]) -> Times:
    """The dates that lie `steps` (1, 2, ...) behind the last one; irregular ones go on by the median gap."""
    last, step_H = int(times_T[-1]), np.asarray(steps, dtype=np.int64)
    if frequency.business:
        days_H = np.busday_offset(np.datetime64(last // DAY, "D"), step_H)
        return np.asarray(days_H.astype(np.int64) * DAY + last % DAY)
    if frequency.months:
        month_T, day_T, clock_T, _ = _parts(times_T)
        months_H = (month_T[-1] + frequency.months * step_H).astype("datetime64[M]")
        first_H = months_H.astype("datetime64[D]").astype(np.int64)
        length_H = (months_H + 1).astype("datetime64[D]").astype(np.int64) - first_H
        day_H = length_H if frequency.ends else np.minimum(day_T.max(), length_H)
        return np.asarray((first_H + day_H - 1) * DAY + clock_T[-1])
    gap = int(np.median(np.diff(times_T))) if len(times_T) > 1 else 1
    return last + step_H * ((frequency.seconds or frequency.numbers) if frequency.regular else max(gap, 1))


def written(times_T: Times, numbered: bool) -> list[str]:
    """Dates as text: plain numbers as they are, days without a time of day where all lie at midnight."""
    if numbered:
        return [str(int(t)) for t in times_T]
    texts = np.datetime_as_string(times_T.astype("datetime64[s]"), unit="s")
    if not (times_T % DAY).any():
        return [text[:10] for text in texts.tolist()]
    return [text.replace("T", " ") for text in texts.tolist()]


def season_of(y_T: Floats, frequency: Frequency) -> int:
    """Steps of the season: the one that the frequency suggests if it fits twice, else the clearest repetition, else 1.

    A series with dates that have a natural season but is too short for it has none.
    """
    if frequency.season > 1:
        return frequency.season if len(y_T) >= 2 * frequency.season else 1
    return repetition(y_T)


def repetition(y_T: Floats) -> int:
    """The lag of the clearest autocorrelation of a detrended series, 1 where none reaches 0.3 and 3 standard errors.

    Gaps count as the mean. Of peaks nearly as high as the highest the first is taken, so that one season is not read
    as two. Lags go up to a third of the series.
    """
    known_T = np.isfinite(y_T)
    count = len(y_T)
    if known_T.sum() < 12:
        return 1
    at_T = np.arange(count, dtype=np.float64)
    slope, level = np.polyfit(at_T[known_T], y_T[known_T], 1)
    rest_T = np.where(known_T, y_T - level - slope * at_T, 0.0)
    spectrum = np.abs(np.fft.rfft(rest_T, 2 * count)) ** 2  # padded: lags must not wrap around
    acf_T = np.fft.irfft(spectrum)[:count] / np.arange(count, 0, -1)
    if acf_T[0] <= 1e-12 * max(1.0, float(np.nanmax(np.abs(y_T))) ** 2):
        return 1
    acf_L = acf_T[: count // 3 + 1] / acf_T[0]
    below = np.nonzero(acf_L < 0)[0]
    peaks = [
        lag for lag in range(max(2, int(below[0]) if len(below) else count), len(acf_L) - 1)
        if acf_L[lag] >= acf_L[lag - 1] and acf_L[lag] > acf_L[lag + 1]
    ]  # fmt: skip
    best = max((float(acf_L[lag]) for lag in peaks), default=0.0)
    if best < max(0.3, 3.0 / count**0.5):
        return 1
    return next(lag for lag in peaks if acf_L[lag] >= 0.9 * best)


def _seconds(date: datetime) -> int:
    return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())


def _parts(times_T: Times) -> tuple[Times, Times, Times, NDArray[np.bool_]]:
    """Months since 1970, day of the month, seconds of the day, whether it is the month's last day."""
    days_T = (times_T // DAY).astype("datetime64[D]")
    months_T = days_T.astype("datetime64[M]")
    day_T = (days_T - months_T).astype(np.int64) + 1
    return months_T.astype(np.int64), day_T, times_T % DAY, (days_T + 1).astype("datetime64[M]") != months_T


def _clockwork(times_T: Times) -> Frequency:
    """The frequency of dates that are no months apart."""
    gaps = np.diff(times_T)
    weekday_T = (times_T // DAY + 3) % 7  # 1970-01-01 was a Thursday
    if not (gaps % DAY).any() and int(gaps.min()) == DAY and int(gaps.max()) >= 3 * DAY and weekday_T.max() < 5:
        crossed = np.unique(weekday_T[1:][gaps >= 3 * DAY])
        if len(times_T) > 5 and len(crossed):
            return Frequency("B", seconds=DAY, business=True, season=5)
    step = _common_step(gaps)
    if not step or not _is_dense(times_T, step):
        return Frequency("")
    for name, unit in (("W", 7 * DAY), ("D", DAY), ("h", 3600), ("min", 60), ("s", 1)):
        if step % unit == 0:
            count = step // unit
            season = {7 * DAY: 52, DAY: 7}.get(step, DAY // step if step < DAY and DAY % step == 0 else 1)
            return Frequency(f"{count if count > 1 else ''}{name}", seconds=step, season=season)
    raise AssertionError("every step is a number of seconds")


def _common_step(gaps: Times) -> int:
    """The most frequent gap if all others are multiples of it, else 0."""
    sizes, counts = np.unique(gaps, return_counts=True)
    step = int(sizes[counts.argmax()])
    return step if step > 0 and not (gaps % step).any() else 0


def _is_dense(times_T: Times, step: int) -> bool:
    return int(times_T[-1] - times_T[0]) // step < SPARSE * len(times_T)
