"""Classical forecasters on the held-out cases: those of statsforecast, and our own three.

    python -m backend.train.forecast.baselines --data train-data/series    # writes assets/bench/forecast-baselines.csv

The package is only needed to make the file. Gaps are filled by the value before them. A median is the mean forecast.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
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
    """Judge all seven; the file is written after each. Raises UserError without statsforecast.

    Args:
        data: folder of the training windows. path: of the table. resume: keep the forecasters that it has already.
    """
    cases, rows = groups(data), read(path) if resume and path.exists() else []
    there = {row.forecaster for row in rows}
    forecasters = {name: own(kind) for name, kind in OWN.items()} | {name: packaged(name) for name in PACKAGED}
    for name in [name for name in forecasters if name not in there]:
        forecaster = forecasters[name]
        rows += judged(name, forecaster, cases)
        write(path, rows)
        mean = math.exp(float(np.mean([math.log(row.WQL) for row in rows if row.forecaster == name])))
        print(f"{name}: geometric mean of WQL {mean:.4f}", flush=True)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.forecast.baselines", description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of the training windows")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--resume", action="store_true", help="keep the forecasters that the file has already")
    asked = parser.parse_args()
    run(asked.data, asked.out, asked.resume)


if __name__ == "__main__":
    main()
