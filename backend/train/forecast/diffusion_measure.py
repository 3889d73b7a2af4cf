"""What the diffusion model of windows forecasts on held-out series, and what each way of sampling it costs in calls.

Letters: S sample paths, H horizon, N series.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend.chance import Ask, Seeded
from backend.classical import fit
from backend.codecs.dates import Floats
from backend.codecs.series_scale import Scale
from backend.errors import UserError
from backend.gaussian import placed
from backend.meter import Meter
from backend.models.series_diffusion import SeriesDiffusionModel, load_series_diffusion
from backend.protocols import Prompt, SeriesDiffusionSession
from backend.registry import find
from backend.series.metrics import LEVELS, coverage, mase, quantiles_of, wql
from backend.train.forecast.held_out import Case, groups
from backend.train.forecast.scoring import as_card
from backend.train.smollm2_corpus import ROOT
from backend.types import Sampling
from backend.unrolling import filled

FILE = ROOT / "assets" / "bench" / "diffusion.json"
PATHS = 32
SHOWN = ("series", "wql", "mase", "coverage80")  # of a row, on the card
LONGEST = 64  # steps of a horizon that are judged
NAIVE = "seasonal naive"
USUAL = ("self_guided", "in_painting", "refine")  # ways that are strategies with their default knobs
WAYS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    NAIVE: ("", {}),
    **{name: (name, {}) for name in USUAL},
    "self_guided, DDPM, skip 10": ("self_guided", {"sampler": "ddpm", "skip": 10}),
    "self_guided, skip 5": ("self_guided", {"skip": 5}),
    "self_guided, skip 20": ("self_guided", {"skip": 20}),
    "in_painting, 3 repeats, skip 10": ("in_painting", {"repeats": 3, "skip": 10}),
    "refine, seasonal naive": ("refine", {"base": "seasonal_naive"}),
}


@dataclass
class Told:
    """The forecasts of one way, series by series."""

    calls: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    truths: list[Floats] = field(default_factory=list)
    bands: list[Floats] = field(default_factory=list)
    scaled: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)

    def add(self, case: Case, paths_SH: Floats, calls: int, seconds: float) -> None:
        """Judge one forecast; horizons are in units of the series, and weighed by its size."""
        truth_H = case.truth_H[: paths_SH.shape[1]]
        size = float(np.nanmean(np.abs(truth_H)))
        if not size > 0:
            return
        quantiles_QH = quantiles_of(paths_SH, LEVELS)
        self.calls.append(calls)
        self.seconds.append(seconds)
        self.truths.append(truth_H / size)  # every series weighs the same
        self.bands.append(quantiles_QH / size)
        self.inside.append(coverage(truth_H, quantiles_QH[0], quantiles_QH[-1]))
        error = mase(truth_H, quantiles_QH[LEVELS.index(0.5)], case.past_T, case.season)
        if error is not None:
            self.scaled.append(error)

    def row(self) -> dict[str, Any]:
        """Means over the series."""
        return {
            "series": len(self.calls),
            "calls": round(float(np.mean(self.calls)), 1),
            "seconds": round(float(np.mean(self.seconds)), 2),
            "wql": round(wql(self.truths, self.bands, LEVELS), 4),
            "mase": round(float(np.mean(self.scaled)), 4) if self.scaled else None,
            "series_of_mase": len(self.scaled),
            "coverage80": round(float(np.mean(self.inside)), 4),
        }


def paths_of(
    model: SeriesDiffusionModel, prompt: Prompt, horizon: int, strategy: str, knobs: Mapping[str, Any]
) -> tuple[Floats, int]:
    """Sample paths [S, H] in the units of the series, and the calls that they took; "" is seasonal naive alone."""
    scale, meter, ask = prompt.extras["scale"], Meter(), Ask(horizon, Seeded(0))
    assert isinstance(scale, Scale)
    session = model.open(SeriesDiffusionSession, prompt, Sampling(temperature=1.0), meter, horizon)
    if not strategy:
        series_T = filled(session.series_CT)
        forecaster = fit(series_T, session.season, "seasonal_naive")
        tail_Sp = series_T[-forecaster.lags :].expand(PATHS, -1)
        law = forecaster.patch(tail_Sp, torch.zeros(PATHS, dtype=torch.long), horizon)
        return scale.decode(placed(law, ask.chance.noise((PATHS, horizon))).numpy()), 0
    found = find(strategy)
    held: dict[int, float] = {}
    for step in found.run(session, ask, **found.settle({"paths": PATHS, **knobs})):
        for mark in step.marks:
            if mark.fate.commits:
                held.update(enumerate(mark.values, mark.slot))
    canvas = np.array([held[slot] for slot in range(PATHS * horizon)])
    return scale.decode(canvas.reshape(PATHS, horizon)), meter.calls


def chosen(data: Path, series: int) -> dict[str, list[Case]]:
    """So many cases of every group, spread over it. data: folder of the windows, where the series of M3 are."""
    return {name: cases[:: max(1, len(cases) // series)][:series] for name, cases in groups(data).items()}


def judge(model: SeriesDiffusionModel, case: Case, told: Mapping[str, Sequence[Told]]) -> None:
    """Forecast a case in every way and note how it went. Nothing is where its past has no scale."""
    past = [None if np.isnan(y) else float(y) for y in case.past_T]
    try:
        prompt = model.codec.encode({"y": past, "season": case.season})
    except UserError:
        return
    for way, notes in told.items():
        start = time.perf_counter()
        paths_SH, calls = paths_of(model, prompt, min(len(case.truth_H), LONGEST), *WAYS[way])
        seconds = time.perf_counter() - start
        for note in notes:
            note.add(case, paths_SH, calls, seconds)


def measure(card: Path, data: Path, series: int, ways: Sequence[str] = tuple(WAYS), file: Path = FILE) -> None:
    """Add to the card what the strategies forecast with their default knobs, and write error against calls to a file.

    Both are written after every group, so that what was measured stays when this is ended early.
    """
    model = load_series_diffusion("house/series-diffusion", card.with_suffix(".safetensors"))
    out = json.loads(card.read_text(encoding="utf-8"))
    about = (
        f"Up to {series} series of every held-out group at their own origins, horizons up to {LONGEST} steps, {PATHS} "
        "paths, seed 0. WQL gives every series the same weight. Few series: differences of a tenth mean little."
    )
    every, by_group = {way: Told() for way in ways}, dict[str, dict[str, Any]]()
    start = time.perf_counter()
    for group, cases in chosen(data, series).items():
        told = {way: Told() for way in ways}
        for case in cases:
            judge(model, case, {way: (told[way], every[way]) for way in ways})
        shown = [way for way in (*USUAL, NAIVE) if way in told and told[way].calls]
        if not shown:
            continue
        by_group[group] = {way: {name: told[way].row()[name] for name in SHOWN} for way in shown}
        overall = {way: {name: every[way].row()[name] for name in SHOWN} for way in shown}
        out["held_out"] = {"about": about, **by_group, "all": overall}
        card.write_text(as_card(out))
        environment = {"threads": torch.get_num_threads(), "torch": str(torch.__version__)}
        rows = {"all": {way: found.row() for way, found in every.items()}}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(as_card({"about": about, "environment": environment, "rows": rows}))
        print(f"{time.perf_counter() - start:.0f} s", group, json.dumps(by_group[group]), flush=True)
    print(table(file))


def table(path: Path = FILE) -> str:
    """Error against calls as a Markdown table. Raises UserError where nothing was measured."""
    if not path.is_file():
        raise UserError(f"There is no {path.name}; make it with: python -m backend.train.forecast.diffusion --measure")
    told = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| way | calls | seconds | WQL | MASE | 80 % band holds |", "|---|---|---|---|---|---|"]
    for way, row in sorted(told["rows"]["all"].items(), key=lambda item: item[1]["calls"]):
        mean = "" if row["mase"] is None else f"{row['mase']:.2f}"
        figures = f"{row['wql']:.3f} | {mean} | {100 * row['coverage80']:.0f} %"
        lines.append(f"| {way} | {row['calls']:.0f} | {row['seconds']:.1f} | {figures} |")
    return "\n".join([*lines, "", told["about"]])
