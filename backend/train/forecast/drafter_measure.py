"""What the drafter of the forecaster is worth: a card with acceptance, calls by horizon, and its own forecasts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from backend.chance import Ask, Seeded
from backend.meter import Meter
from backend.models.forecaster import ForecasterModel, load_forecaster
from backend.models.forecaster_cell import CellModel, load_cell
from backend.models.house.forecaster import read_forecaster
from backend.protocols import PathSession
from backend.registry import find
from backend.train.forecast.drafter import NAME, Recipe, accepted, job_of, lessons
from backend.train.forecast.held_out import Case, groups
from backend.train.forecast.patches_measure import PATHS, WARM, held_out, prompt_of, seed_of, went_on
from backend.types import Fate

HORIZONS = (64, 128, 256)  # steps
BATCHES = 4  # of held-out windows


def write_card(recipe: Recipe, windows_NW: Any, data: Path, out: Path, device: str, series: int) -> None:
    """Measure the trained drafter beside its target on the first `series` cases of every group; write its card."""
    path, teacher = out / f"{NAME}.safetensors", out / "forecaster.safetensors"
    draft, target = load_cell(f"house/{NAME}", path, "cpu"), load_forecaster("house/forecaster", teacher, "cpu")
    trained = read_forecaster(teacher)
    job = job_of(recipe, trained, windows_NW, data, out, "cpu")
    cases = {name: of_group[:series] for name, of_group in groups(data).items()}
    few = [case for of_group in cases.values() for case in of_group[: max(1, series // 4)]]
    card: dict[str, Any] = {
        "id": f"house/{NAME}",
        "what": "A recurrent cell over patches of 16 steps that carries on the features of house/forecaster and draws "
        "as it would.",
        "license": "Apache-2.0",
        "num_params": draft.num_params,
        "config": asdict(draft.net.config),
        "data": "Windows of backend.train.forecast.mix, continued by house/forecaster.",
        "recipe": asdict(recipe) | {"device": device},
        **went_on(path),
        "accepted_by_place": accepted(draft.net, lessons(job, trained, BATCHES, held=True)),
        "about_accepted": "Mean chance that a drafted patch is accepted where all in front of it were, by its place in "
        "the draft, in windows that training leaves out.",
        "beside_forecaster": {str(horizon): beside(target, draft, few, horizon) for horizon in HORIZONS},
        "held_out": held_out(draft, cases),
        "about_held_out": f"Errors of {PATHS} sample paths that it draws by itself, without a target to hear.",
        "cannot": "By itself it has never seen what the forecaster sees: its own forecasts are poor.",
        "torch": str(torch.__version__),
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps({name: card[name] for name in ("accepted_by_place", "beside_forecaster")}, indent=2))


def beside(target: ForecasterModel, draft: CellModel, cases: Sequence[Case], horizon: int) -> dict[str, float]:
    """How drafting goes on these cases: alpha, calls of the slowest path, and calls of a path on average."""
    strategy = find("speculative_patches")
    kept = judged = calls = own = 0
    for case in cases:
        prompt, meter = prompt_of(target, case), Meter()
        sessions = [m.open(PathSession, prompt, WARM, n, horizon) for m, n in ((target, meter), (draft, Meter()))]
        for step in strategy.run(*sessions, ask=Ask(horizon, Seeded(seed_of(case))), paths=PATHS):
            fates = [mark.fate for mark in step.marks]
            kept += fates.count(Fate.KEPT)
            judged += fates.count(Fate.KEPT) + fates.count(Fate.REJECTED)
            own += len({mark.slot // horizon for mark in step.marks})
        calls += meter.calls
    return {
        "series": len(cases),
        "paths": PATHS,
        "gamma": strategy.knobs["gamma"].default,
        "alpha": round(kept / max(1, judged), 4),
        "calls": round(calls / len(cases), 3),
        "calls_a_path": round(own / PATHS / len(cases), 3),
        "calls_one_a_patch": -(-horizon // target.net.config.patch),
    }
