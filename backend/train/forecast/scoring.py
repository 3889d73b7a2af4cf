"""Scores of forecasters on the held-out cases: one row for each group, skill against seasonal naive, the gate.

A forecaster is a function from a case to an `Answer`; `backend.train.forecast.table.decoded` makes one of a strategy
and a model. A group's MASE and sMAPE are means over its cases, WQL is over all of its steps together, see
`backend.series.metrics`. No torch here.
"""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from backend.codecs.dates import Floats
from backend.errors import UserError
from backend.series import metrics
from backend.series.metrics import LEVELS
from backend.train.forecast.held_out import Case

NAIVE, THETA, JUDGED_ON = "SeasonalNaive", "AutoTheta", "M3 monthly"
WORSE_BY_MOST = 0.10  # than Theta's MASE on monthly series of M3


@dataclass(frozen=True, eq=False)
class Answer:
    """A forecast [S, H] in the units of the series: quantiles at `levels`, or paths if empty. calls: of the network."""

    values_SH: Floats
    levels: tuple[float, ...] = ()
    calls: int = 0


Forecaster = Callable[[Case], Answer]


@dataclass(frozen=True)
class Row:
    """A forecaster on a group: n cases, mean MASE, WQL of all together, mean sMAPE, coverage80, calls (NFE), ms."""

    forecaster: str
    group: str
    n: int
    MASE: float
    WQL: float
    sMAPE: float
    coverage80: float
    NFE: float
    ms: float


def judged(name: str, forecaster: Forecaster, groups: Mapping[str, Sequence[Case]]) -> list[Row]:
    """A row for every group that is not empty. ms is the median time of a case."""
    return [_row(name, group, forecaster, cases) for group, cases in groups.items() if cases]


def _row(name: str, group: str, forecaster: Forecaster, cases: Sequence[Case]) -> Row:
    truths, bands, spent, calls = [], [], [], []
    errors: list[float] = []
    for case in cases:
        start = time.perf_counter()
        answer = forecaster(case)
        spent.append(time.perf_counter() - start)
        calls.append(answer.calls)
        quantiles_QH = metrics.quantiles_of(answer.values_SH) if not answer.levels else _at_levels(answer)
        truths.append(case.truth_H)
        bands.append(quantiles_QH)
        error = metrics.mase(case.truth_H, quantiles_QH[4], case.past_T, case.season)
        errors += [] if error is None else [error]
    shares = [metrics.smape(y_H, q_QH[4]) for y_H, q_QH in zip(truths, bands, strict=True)]
    inside = [metrics.coverage(y_H, q_QH[0], q_QH[-1]) for y_H, q_QH in zip(truths, bands, strict=True)]
    numbers = (np.mean(errors) if errors else np.nan, metrics.wql(truths, bands, LEVELS), np.mean(shares))
    more = (np.mean(inside), np.mean(calls), 1000 * np.median(spent))
    return Row(name, group, len(cases), *(round(float(x), 4) for x in (*numbers, *more)))


def _at_levels(answer: Answer) -> Floats:
    """The nine quantiles that scores are made of. Raises ValueError where the answer lacks one."""
    place = {round(level, 6): i for i, level in enumerate(answer.levels)}
    missing = [level for level in LEVELS if level not in place]
    if missing:
        raise ValueError(f"the forecast has no quantile at {missing[0]}")
    return answer.values_SH[[place[level] for level in LEVELS]]


def skill(rows: Iterable[Row], name: str, measure: str = "WQL", baseline: str = NAIVE) -> float:
    """1 - geometric mean over groups of a measure over the baseline's. Raises UserError if they share no group."""
    table = {(row.forecaster, row.group): float(getattr(row, measure)) for row in rows}
    shared = [group for who, group in table if who == name and (baseline, group) in table]
    if not shared:
        raise UserError(f"{name} and {baseline} were judged on no group that both have; judge them on the same ones.")
    return metrics.skill([table[name, group] for group in shared], [table[baseline, group] for group in shared])


@dataclass(frozen=True)
class Gate:
    """Whether a model may be shown without a warning. beats_naive: on WQL, by group.

    behind_theta: MASE over AutoTheta's - 1 on M3 monthly, None if not both are known.
    """

    beats_naive: Mapping[str, bool]
    behind_theta: float | None

    @property
    def passed(self) -> bool:
        """All groups, and at most a tenth behind."""
        return all(self.beats_naive.values()) and self.behind_theta is not None and self.behind_theta <= WORSE_BY_MOST

    def sentence(self) -> str:
        """The gate in words."""
        lost = [group for group, won in self.beats_naive.items() if not won]
        told = f"beats seasonal naive on WQL in {len(self.beats_naive) - len(lost)} of {len(self.beats_naive)} groups"
        told += f" (not in {', '.join(lost)})" if lost else ""
        if self.behind_theta is None:
            return f"{told}; {JUDGED_ON} was not judged."
        return f"{told}; its MASE on {JUDGED_ON} is {100 * self.behind_theta:+.1f} % against {THETA}."


def gate(rows: Iterable[Row], name: str) -> Gate:
    """What the acceptance gate says about a forecaster, from rows that also hold those of the baselines."""
    table = {(row.forecaster, row.group): row for row in rows}
    shared = [group for who, group in table if who == name and (NAIVE, group) in table]
    ours, theirs = table.get((name, JUDGED_ON)), table.get((THETA, JUDGED_ON))
    behind = None if ours is None or theirs is None else ours.MASE / theirs.MASE - 1
    return Gate({group: table[name, group].WQL < table[NAIVE, group].WQL for group in shared}, behind)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(row) for row in rows)


def as_card(told: Mapping[str, Any]) -> str:
    """JSON with every innermost object on a line of its own: rows of a card are many, and assets are small."""
    return re.sub(r"\{[^{}]*\}", lambda row: " ".join(row.group().split()), json.dumps(told, indent=2)) + "\n"


def read(path: Path) -> list[Row]:
    """What `write` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(r["forecaster"], r["group"], int(r["n"]), *(float(r[field.name]) for field in fields(Row)[3:]))
            for r in csv.DictReader(file)
        ]
