"""What a model of series as tokens is worth on held-out series: its loss, and the error of the forecasts it draws.

Letters: S sample paths, H horizon, T steps of the past.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
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
from backend.protocols import CausalSession, FleetSession, GridSession, MaskedSession, Model, Prompt
from backend.registry import find
from backend.series.metrics import skill
from backend.train.forecast import baselines
from backend.train.forecast.held_out import Case, groups
from backend.train.forecast.scoring import Answer, Forecaster, as_card, judged
from backend.train.forecast.tokens import LONGEST
from backend.types import Fate, Sampling

PATHS = 20  # of every forecast
ROUNDS = 12  # calls of a masked path
NAIVE = "seasonal naive"
SHOWN = ("n", "MASE", "WQL", "sMAPE", "coverage80")  # of a row, on the card
WAY = {True: "drawn at temperature 1", False: f"by halton_order in {ROUNDS} calls, drawn at temperature 1"}
GIVEN = {True: "what came before it", False: "the past alone"}
GAMMA = 4  # steps drafted before each call
WARM = Sampling(temperature=1.0)


def measure(path: Path, series: int, data: Path) -> None:
    """Add to the card beside a model what it does on up to `series` cases of every held-out group, spread over it.

    data: folder of the training windows, beside which the held-out ones of M3 are. The card is written after every
    group, so that what was measured stays when this is ended early.
    """
    name = path.stem
    model = load_series_tokens(f"house/{name}", path, "cpu")
    start = time.perf_counter()
    chosen = {group: spread(model, cases, series) for group, cases in groups(data).items()}
    card = path.with_suffix(".json")
    out = json.loads(card.read_text(encoding="utf-8"))
    out["about_held_out"] = (
        f"Up to {series} cases of every group that no training window holds, spread over it: errors of {PATHS} paths "
        f"{WAY[isinstance(model, SeriesTokenModel)]}, beside seasonal naive with normal bands. nats_per_step: of the "
        f"truth, given {GIVEN[isinstance(model, SeriesTokenModel)]}. skill_on_wql: 1 - the geometric mean over groups "
        "of WQL over that of seasonal naive."
    )
    out["held_out"] = told = {}
    for group, cases in chosen.items():
        if cases:
            told[group] = on_cases(model, group, cases)
            out["skill_on_wql"] = skill_of(told.values())
            card.write_text(as_card(out))
            print(f"{time.perf_counter() - start:.0f} s", group, json.dumps(told[group]), flush=True)
    target = path.with_name("series-tokens.safetensors")
    if name == "series-tokens-draft" and target.is_file():
        whole = load_series_tokens("house/series-tokens", target, "cpu")
        out["beside_series-tokens"] = acceptance(whole, model, [cases[0] for cases in chosen.values() if cases])
        card.write_text(as_card(out))
    print(json.dumps({name: out.get(name) for name in ("skill_on_wql", "beside_series-tokens")}))


def spread(model: Model, cases: Sequence[Case], count: int) -> list[Case]:
    """So many of the cases, evenly over them; those with a horizon that no model of tokens reaches are left out, and
    those whose past has no scale."""
    fit = [case for case in cases if len(case.truth_H) <= LONGEST and prompt_of(model, case) is not None]
    count = min(count, len(fit))
    return [fit[i * len(fit) // count] for i in range(count)]


def on_cases(model: Model, group: str, cases: Sequence[Case]) -> dict[str, Any]:
    """Loss and errors over these cases, and errors of seasonal naive."""

    def forecaster(case: Case) -> Answer:
        prompt = prompt_of(model, case)
        assert prompt is not None, case.name
        return Answer(paths_of(model, prompt, len(case.truth_H)))

    ways: dict[str, Forecaster] = {"sampled": forecaster, NAIVE: baselines.own("seasonal_naive")}
    out: dict[str, Any] = {
        way: {name: getattr(row, name) for name in SHOWN}
        for way, found in ways.items()
        for row in judged(way, found, {group: cases})
    }
    nats = [x for case in cases if (prompt := prompt_of(model, case)) is not None for x in nats_of(model, prompt, case)]
    return out | {"nats_per_step": round(float(np.mean(nats)), 4)}


def skill_of(told: Iterable[dict[str, Any]]) -> float:
    """Skill on WQL of the sampled paths, against seasonal naive."""
    pairs = [(row["sampled"]["WQL"], row[NAIVE]["WQL"]) for row in told]
    return round(skill([ours for ours, _ in pairs], [naive for _, naive in pairs]), 4)


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
    """One future by `halton_order` in ROUNDS calls, whose draws no confidence picks."""
    session = model.open(GridSession, prompt, WARM, Meter(), horizon)
    knobs = find("halton_order").settle({"steps": min(ROUNDS, horizon)})
    frames = [step.frame for step in find("halton_order").run(session, Ask(horizon, Seeded(seed)), **knobs)]
    return list(frames[-1])[len(prompt.tokens) :]


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
