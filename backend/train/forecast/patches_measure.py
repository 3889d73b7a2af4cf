"""What a forecaster over patches is worth on held-out series: a card with errors of every group.

Letters: S sample paths, H horizon, Q quantile levels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend.chance import Ask, Seeded
from backend.codecs.series_scale import Scale
from backend.meter import Meter
from backend.models.forecaster import ForecasterModel, load_forecaster
from backend.models.forecaster_cell import CellModel
from backend.models.house.forecaster import read_forecaster
from backend.protocols import BandSession, PathSession, Prompt
from backend.registry import find
from backend.train.forecast import baselines
from backend.train.forecast.held_out import Case, groups
from backend.train.forecast.patches import NAMES, Job, Recipe, held_out_loss, spans
from backend.train.forecast.scoring import Answer, Forecaster, Row, judged
from backend.types import Sampling

PATHS = 64  # of every forecast
WARM = Sampling(temperature=1.0)
THEN = "trained_on_together"  # recipes of `paired` on a card, which measuring keeps
SHOWN = ("n", "MASE", "WQL", "sMAPE", "coverage80")  # of a row, on the card
WHAT = {
    "target": "A causal transformer over patches of 16 steps: normal laws of the next patch and of three behind it, "
    "quantiles of the next 16, 32, 64 and 128 steps.",
    "target-8": "The same over patches of 8 steps, with quantiles of the next 8, 16, 32 and 64.",
}


PathModel = ForecasterModel | CellModel


def write_card(model: str, recipe: Recipe, data: Path, out: Path, device: str, series: int) -> None:
    """Measure a trained model on the first `series` cases of every group, and write its card beside it."""
    from backend.train.forecast.mix import windows

    path = out / f"{NAMES[model]}.safetensors"
    net = read_forecaster(path)
    loaded = load_forecaster(f"house/{NAMES[model]}", path, "cpu")
    windows_NW = windows(data)
    job = Job(model, recipe, windows_NW, spans(windows_NW), data, out)
    cases = {name: of_group[:series] for name, of_group in groups(data).items()}
    card: dict[str, Any] = {
        "id": f"house/{NAMES[model]}",
        "what": WHAT[model],
        "license": "Apache-2.0",
        "num_params": net.num_params,
        "config": asdict(net.config),
        "data": "Windows of backend.train.forecast.mix: generated series, and real ones of M1, M3 and Tourism.",
        "recipe": {name: getattr(recipe, name) for name in ("steps", "tokens", "ahead", "rate", "average", "seed")}
        | {"device": device},
        **went_on(path),
        "windows_nats_a_value": round(held_out_loss(job, net), 4),
        "held_out": held_out(loaded, cases),
        "about_held_out": f"The first {series} cases of every group that no training window holds: errors of {PATHS} "
        "sample paths, of the quantile heads where they reach the horizon in one call, and of seasonal naive. "
        "windows_nats_a_value: -log density of the next patch in windows that were left out, in model units.",
    }
    card["cannot"] = "Knows nothing of dates, and of other series than the one it continues."
    card["torch"] = str(torch.__version__)
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card["held_out"], indent=2))


def went_on(path: Path) -> dict[str, Any]:
    """What the card beside these weights says of training by `paired`."""
    card = path.with_suffix(".json")
    told = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    return {THEN: told[THEN]} if THEN in told else {}


def held_out(model: PathModel, cases: Mapping[str, Sequence[Case]]) -> dict[str, dict[str, Any]]:
    """Rows of the card by group and way of forecasting."""
    out: dict[str, dict[str, Any]] = {name: {} for name, of_group in cases.items() if of_group}
    ways: dict[str, tuple[Forecaster, Mapping[str, Sequence[Case]]]] = {
        "recursive": (recursive_of(model), cases),
        "seasonal naive": (baselines.own("seasonal_naive"), cases),
    }
    if isinstance(model, ForecasterModel) and model.net.config.sizes:
        most = model.net.config.sizes[-1] * model.net.config.patch
        within = {g: [c for c in of_group if len(c.truth_H) <= most] for g, of_group in cases.items()}
        ways["direct"] = (direct_of(model), within)
    for name, (forecaster, chosen) in ways.items():
        for row in judged(name, forecaster, chosen):
            out[row.group][name] = _told(row)
    return out


def recursive_of(model: PathModel) -> Forecaster:
    """Sample paths, patch by patch."""

    def forecaster(case: Case) -> Answer:
        prompt, horizon = prompt_of(model, case), len(case.truth_H)
        session = model.open(PathSession, prompt, WARM, Meter(), horizon)
        held = np.full((PATHS, horizon), np.nan)
        for step in find("recursive").run(session, ask=Ask(horizon, Seeded(seed_of(case))), paths=PATHS):
            for mark in step.marks:
                row, at = divmod(mark.slot, horizon)
                held[row, at : at + len(mark.values)] = mark.values
        scale: Scale = prompt.extras["scale"]
        return Answer(scale.decode(held))

    return forecaster


def direct_of(model: ForecasterModel) -> Forecaster:
    """Quantiles of the smallest head that reaches the horizon."""

    def forecaster(case: Case) -> Answer:
        prompt, horizon = prompt_of(model, case), len(case.truth_H)
        session = model.open(BandSession, prompt, WARM, Meter(), horizon)
        size = next(size for size in session.sizes if size >= horizon)
        scale: Scale = prompt.extras["scale"]
        return Answer(scale.decode(session.predict(size)[0, :, :horizon].numpy()), tuple(session.levels))

    return forecaster


def prompt_of(model: PathModel, case: Case) -> Prompt:
    """The past of a case as the model reads it."""
    past = [None if np.isnan(y) else float(y) for y in case.past_T]
    return model.codec.encode({"y": past, "season": min(case.season, len(past) - 1)})


def _told(row: Row) -> dict[str, float | int]:
    return {name: getattr(row, name) for name in SHOWN}


def seed_of(case: Case) -> int:
    """The seed of its sample paths."""
    return sum(map(ord, case.group + case.name))
