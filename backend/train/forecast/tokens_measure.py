"""What a model of series as tokens is worth on held-out series: its loss, and the error of the forecasts it draws.

Letters: S sample paths, H horizon, T steps of the past.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backend.chance import Ask, Seeded
from backend.codecs.bins import MISSING, REACH, tokens_of, values_of
from backend.codecs.dates import Floats
from backend.codecs.series_scale import Scale
from backend.errors import UserError
from backend.meter import Meter
from backend.models.series_tokens import SeriesTokenModel, load_series_tokens
from backend.protocols import CausalSession, FleetSession, MaskedSession, Model, Prompt
from backend.registry import find
from backend.series.metrics import LEVELS, coverage, mase, quantiles_of, wql
from backend.train.forecast.held_out import Case, groups
from backend.train.forecast.tokens import LONGEST
from backend.types import Fate, Sampling

PATHS = 20  # of every forecast
ROUNDS = 12  # calls of a masked forecast
GAMMA = 4  # steps drafted before each call
WARM = Sampling(temperature=1.0)


def measure(path: Path, series: int, data: Path) -> None:
    """Add to the card beside a model what it does on `series` cases of every held-out group, spread over it.

    data: folder of the training windows, beside which the held-out ones of M3 are.
    """
    name = path.stem
    model = load_series_tokens(f"house/{name}", path, "cpu")
    start = time.perf_counter()
    judged = {group: spread(cases, series) for group, cases in groups(data).items()}
    told = {group: on_cases(model, cases) for group, cases in judged.items() if cases}
    card = path.with_suffix(".json")
    out = json.loads(card.read_text(encoding="utf-8"))
    out["held_out"] = told
    out["about_held_out"] = (
        f"Up to {series} cases of every group, spread over it: nats a step of the truth, given what came "
        f"before it{' (all steps at once, none known, for a masked model)' if MaskedSession in model.speaks else ''}; "
        f"errors of {PATHS} paths drawn at temperature 1. MASE of a seasonal naive forecast beside it, of the same "
        "series."
    )
    target = path.with_name("series-tokens.safetensors")
    if name == "series-tokens-draft" and target.is_file():
        whole = load_series_tokens("house/series-tokens", target, "cpu")
        out["beside_series-tokens"] = acceptance(whole, model, [case for cases in judged.values() for case in cases])
    card.write_text(json.dumps(out, indent=2) + "\n")
    print(json.dumps({"held_out": told, "beside": out.get("beside_series-tokens")}, indent=2))
    print(f"{time.perf_counter() - start:.0f} s")


def spread(cases: Sequence[Case], count: int) -> list[Case]:
    """So many of the cases, evenly over them; those with a horizon that no model of tokens reaches are left out."""
    fit = [case for case in cases if len(case.truth_H) <= LONGEST]
    count = min(count, len(fit))
    return [fit[i * len(fit) // count] for i in range(count)]


def on_cases(model: Model, cases: Sequence[Case]) -> dict[str, Any]:
    """Loss and errors over these cases; those whose past cannot be scaled are left out, but there is one at least."""
    nats: list[float] = []
    scaled: list[tuple[float, float]] = []
    truths: list[Floats] = []
    bands: list[Floats] = []
    inside: list[float] = []
    for case in cases:
        prompt = prompt_of(model, case)
        if prompt is None:
            continue
        nats += nats_of(model, prompt, case)
        paths_SH = paths_of(model, prompt, len(case.truth_H))
        quantiles_QH = quantiles_of(paths_SH, LEVELS)
        truths.append(case.truth_H)
        bands.append(quantiles_QH)
        inside.append(coverage(case.truth_H, quantiles_QH[0], quantiles_QH[-1]))
        ours, naive = (
            mase(case.truth_H, median_H, case.past_T, case.season)
            for median_H in (quantiles_QH[LEVELS.index(0.5)], repeated(case))
        )
        if ours is not None and naive is not None:
            scaled.append((ours, naive))
    assert scaled, "no case can be judged"
    return {
        "series": len(truths),
        "steps": len(nats),
        "nats_per_step": round(float(np.mean(nats)), 4),
        "mase": round(float(np.mean([ours for ours, _ in scaled])), 4),
        "mase_of_seasonal_naive": round(float(np.mean([naive for _, naive in scaled])), 4),
        "wql": round(wql(truths, bands, LEVELS), 4),
        "coverage80": round(float(np.mean(inside)), 4),
    }


def prompt_of(model: Model, case: Case) -> Prompt | None:
    """The past of a case as the model reads it, None where its end is constant."""
    past = [None if np.isnan(y) else float(y) for y in case.past_T]
    try:
        return model.codec.encode({"y": past, "season": case.season})
    except UserError:
        return None


def truth_of(prompt: Prompt, case: Case) -> list[int]:
    """The tokens of what came next; the outermost bins stand for what lies beyond them."""
    scale: Scale = prompt.extras["scale"]
    return [int(token) for token in tokens_of(scale.encode(case.truth_H).clip(-REACH, REACH))]


def nats_of(model: Model, prompt: Prompt, case: Case) -> list[float]:
    """-log p of every known step of the truth."""
    truth, past = truth_of(prompt, case), len(prompt.tokens)
    if isinstance(model, SeriesTokenModel):
        session = model.open(CausalSession, prompt, WARM, Meter(), len(truth))
        p_HV = session.score(truth[:-1]).p_NV
    else:
        masked = model.open(MaskedSession, prompt, WARM, Meter(), len(truth))
        p_HV = masked.denoise(masked.canvas_L)[past:]
    return [-float(p_HV[h, token].log()) for h, token in enumerate(truth) if token != MISSING]


def paths_of(model: Model, prompt: Prompt, horizon: int, paths: int = PATHS) -> Floats:
    """Sample paths [S, H] in the units of the series."""
    scale: Scale = prompt.extras["scale"]
    if isinstance(model, SeriesTokenModel):
        several = Prompt(prompt.tokens * paths, {**prompt.extras, "texts": (prompt.tokens,) * paths})
        fleet = model.open(FleetSession, several, WARM, Meter(), paths * horizon)
        knobs = find("temporal_fusion").settle({"concurrency": paths})
        for _ in find("temporal_fusion").run(fleet, Ask(paths * horizon, Seeded(0)), **knobs):
            pass
        told = [text[len(prompt.tokens) :] for text in fleet.texts]
    else:
        told = [filled(model, prompt, horizon, seed) for seed in range(paths)]
    return np.stack([values_of(tokens, scale) for tokens in told])


def filled(model: Model, prompt: Prompt, horizon: int, seed: int) -> list[int]:
    """One future by `confidence` in ROUNDS calls."""
    session = model.open(MaskedSession, prompt, WARM, Meter(), horizon)
    knobs = find("confidence").settle({"steps": ROUNDS})
    frames = [step.frame for step in find("confidence").run(session, Ask(horizon, Seeded(seed)), **knobs)]
    return list(frames[-1])[len(prompt.tokens) :]


def repeated(case: Case) -> Floats:
    """The seasonal naive forecast: the last season again and again, or the last value of the past where it has none."""
    past_T = case.past_T
    last = past_T[np.isfinite(past_T)][-1]
    season = past_T[-case.season :] if len(past_T) >= case.season else past_T[-1:]
    season = np.where(np.isfinite(season), season, last)
    return np.resize(season, len(case.truth_H))


def acceptance(target: Model, draft: Model, cases: Sequence[Case]) -> dict[str, float | int]:
    """How speculative sampling with the draft goes on these cases, at temperature 1 and 0."""
    out: dict[str, float | int] = {"series": len(cases), "gamma": GAMMA}
    run: Callable[..., Any] = find("speculative").run
    for temperature in (1.0, 0.0):
        kept = judged = calls = steps = 0
        for case in cases:
            prompt, horizon = prompt_of(target, case), len(case.truth_H)
            if prompt is None:
                continue
            sampling, meter = Sampling(temperature), Meter()
            sessions = [
                m.open(CausalSession, prompt, sampling, n, horizon) for m, n in ((target, meter), (draft, Meter()))
            ]
            for step in run(*sessions, Ask(horizon, Seeded(0)), gamma=GAMMA):
                fates = [mark.fate for mark in step.marks]
                kept += fates.count(Fate.KEPT)
                judged += fates.count(Fate.KEPT) + fates.count(Fate.REJECTED)
            calls, steps = calls + meter.calls, steps + horizon
        out[f"alpha_at_temperature_{temperature:g}"] = round(kept / max(judged, 1), 4)
        out[f"steps_per_call_at_temperature_{temperature:g}"] = round(steps / calls, 3)
    return out
