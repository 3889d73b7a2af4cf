"""Classical forecasters on the held-out cases: those of statsforecast, and our own three.

    python -m backend.train.forecast.baselines --data train-data/series    # writes assets/bench/forecast-baselines.csv

The package is only needed to make the file. Gaps are filled by the value before them. A median is the mean forecast.
AutoETS and AutoARIMA are asked for seasons of at most 24 steps, beyond which the latter takes hours; the longer one, of
weekly series, is taken for none. The file grows by a group of cases at a time, and `--resume` goes on with it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from backend.classical import Kind, fit
from backend.codecs.dates import Floats
from backend.codecs.series_scale import Scale
from backend.errors import UserError
from backend.series.metrics import LEVELS
from backend.train.forecast.held_out import Case, groups
from backend.train.forecast.mix import FOLDER, ROOT
from backend.train.forecast.scoring import Answer, Forecaster, Row, judged, read, write

FILE = ROOT / "assets" / "bench" / "forecast-baselines.csv"
PACKAGE = "statsforecast"
PACKAGED = {  # name here: class there
    "SeasonalNaive": "SeasonalNaive",
    "AutoETS": "AutoETS",
    "AutoTheta": "DynamicOptimizedTheta",
    "AutoARIMA": "AutoARIMA",
}
LONGEST_SEASON = 24  # that AutoARIMA and AutoETS are asked for; a longer one is taken for none
OWN: dict[str, Kind] = {"own seasonal naive": "seasonal_naive", "own Theta": "theta", "own AR": "ar"}
INTERVALS = (20, 40, 60, 80)  # percent


def filled(y_T: Floats) -> Floats:
    """Gaps filled by the value before them, those in front by the first value."""
    known_T = np.where(np.isfinite(y_T), np.arange(len(y_T)), -1)
    last_T = np.maximum.accumulate(known_T)
    first = int(np.argmax(np.isfinite(y_T)))
    return y_T[np.where(last_T < 0, first, last_T)]


def own(kind: Kind) -> Forecaster:
    """A recursion of `backend.classical`, with normal quantiles."""

    def forecaster(case: Case) -> Answer:
        scale, horizon = Scale.of(case.past_T, bent=False), len(case.truth_H)
        y_T = torch.from_numpy(scale.encode(filled(case.past_T)))
        model = fit(y_T, case.season, kind)
        law = model.patch(y_T[None, -model.lags :], torch.zeros(1, dtype=torch.long), horizon)
        spread_H = law.tril_NPP[0].square().sum(-1).sqrt().numpy()
        z_Q1 = np.array([NormalDist().inv_cdf(level) for level in LEVELS])[:, None]
        return Answer(scale.decode(law.mean_NP[0].numpy() + z_Q1 * spread_H), LEVELS)

    return forecaster


def packaged(name: str) -> Forecaster:
    """A model of statsforecast. Raises UserError where it is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise UserError(f"{name} is a model of {PACKAGE}, which is not installed; add it with: pip install {PACKAGE}")
    kind: Any = getattr(importlib.import_module(f"{PACKAGE}.models"), PACKAGED[name])

    def forecaster(case: Case) -> Answer:
        too_long = case.season > LONGEST_SEASON and name in ("AutoARIMA", "AutoETS")
        fits = 2 * case.season <= len(case.past_T)
        model = kind(season_length=1 if too_long or not fits else case.season)
        told = model.forecast(y=filled(case.past_T), h=len(case.truth_H), level=list(INTERVALS))
        lows = [told[f"lo-{percent}"] for percent in reversed(INTERVALS)]
        highs = [told[f"hi-{percent}"] for percent in INTERVALS]
        return Answer(np.stack([*lows, told["mean"], *highs]).astype(np.float64), LEVELS)

    return forecaster


def run(data: Path, path: Path, resume: bool = False) -> list[Row]:
    """Judge all seven; the file is written after each group. Raises UserError without statsforecast.

    Args:
        data: folder of the training windows. path: of the table. resume: keep the rows that it has already.
    """
    cases, rows = groups(data), read(path) if resume and path.exists() else []
    there = {(row.forecaster, row.group) for row in rows}
    forecasters = {name: own(kind) for name, kind in OWN.items()} | {name: packaged(name) for name in PACKAGED}
    order = {name: place for place, name in enumerate(forecasters)}
    for name, forecaster in forecasters.items():
        missing = {group: found for group, found in cases.items() if (name, group) not in there}
        for group, found in missing.items():
            rows += judged(name, forecaster, {group: found})
            write(path, sorted(rows, key=lambda row: order.get(row.forecaster, len(order))))
            print(f"{name}, {group}: WQL {rows[-1].WQL:.4f}", flush=True)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.forecast.baselines", description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of the training windows")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--resume", action="store_true", help="keep the rows that the file has already")
    asked = parser.parse_args()
    run(asked.data, asked.out, asked.resume)


if __name__ == "__main__":
    main()
