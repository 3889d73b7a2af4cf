"""The table of held-out cases: strategies on our models beside the classical baselines, and what the gate says.

    python -m backend.train.forecast.table --data train-data/series    # writes assets/bench/forecast-held-out.csv

Baselines are read from assets/bench/forecast-baselines.csv, see `backend.train.forecast.baselines`. Models whose
weights are not there are named and left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from backend.catalog import Catalog
from backend.errors import UserError
from backend.run import record
from backend.series.forecasts import forecast_of
from backend.train.forecast import baselines
from backend.train.forecast.held_out import Case, groups
from backend.train.forecast.mix import FOLDER, ROOT
from backend.train.forecast.scoring import Answer, Forecaster, Row, gate, judged, read, skill, write
from backend.types import Request, Sampling

FILE = ROOT / "assets" / "bench" / "forecast-held-out.csv"
GATED = "recursive on house/forecaster"
PAIR = {"target": "house/forecaster", "draft": "house/forecaster-draft"}
LANES: dict[str, tuple[str, Mapping[str, str]]] = {  # strategy and models
    GATED: ("recursive", {"target": PAIR["target"]}),
    "rolled_direct on house/forecaster": ("rolled_direct", {"target": PAIR["target"]}),
    "speculative_patches on house/forecaster": ("speculative_patches", PAIR),
    "recursive on house/forecaster-8": ("recursive", {"target": "house/forecaster-8"}),
    "rolled_direct on house/forecaster-8": ("rolled_direct", {"target": "house/forecaster-8"}),
    "rolled_direct on local/fracast": ("rolled_direct", {"target": "local/fracast"}),
}


def decoded(strategy: str, models: Mapping[str, str], catalog: Catalog, **knobs: object) -> Forecaster:
    """A strategy on models of the catalog, at temperature 1, with a seed made of the case's place in the alphabet."""

    def forecaster(case: Case) -> Answer:
        y = [None if np.isnan(x) else float(x) for x in case.past_T]
        prompt = {"y": y, "season": min(case.season, len(y) - 1)}
        seed = sum(map(ord, case.group + case.name))
        request = Request(strategy, prompt, models, knobs, Sampling(temperature=1.0), len(case.truth_H), seed)
        trace = record(request, catalog)
        scale = catalog.get(trace.request.models["target"]).codec.encode(prompt).extras["scale"]
        made = forecast_of(trace, scale)
        return Answer(made.values_SH, made.levels, trace.summary().num_target_calls)

    return forecaster


def measure(data: Path, path: Path, catalog: Catalog, series: int | None = None, only: str | None = None) -> list[Row]:
    """Judge every lane whose models are here; the file is written after each.

    Args:
        series: at most so many of a group. only: judge this lane, and keep the rows of the others as they are.
    """
    rows = read(baselines.FILE) if baselines.FILE.exists() else []
    rows += [row for row in read(path) if row.forecaster in LANES and row.forecaster != only] if only else []
    cases = {name: of_group[:series] for name, of_group in groups(data).items()}
    for name, (strategy, models) in LANES.items():
        if only not in (None, name):
            continue
        try:
            for model_id in models.values():
                catalog.get(model_id)
        except UserError as error:
            print(f"{name} is left out: {error}")
            continue
        rows += judged(name, decoded(strategy, models, catalog), cases)
        write(path, rows)
        print(f"{name} {gate(rows, name).sentence()} Skill on WQL: {skill(rows, name):.3f}", flush=True)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.forecast.table", description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of the training windows")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--series", type=int, help="at most so many cases of a group")
    parser.add_argument("--only", choices=list(LANES), help="judge one lane and keep the rows of the others")
    asked = parser.parse_args()
    measure(asked.data, asked.out, Catalog("cpu"), asked.series, asked.only)


if __name__ == "__main__":
    main()
