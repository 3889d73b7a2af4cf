"""Every registered strategy of forecasting on exact toys; what is checked follows from the guarantee that it declares.

No strategy is named in the contract. LOSSLESS: turned back into noise by the target's own laws, the paths are standard
normal numbers, all steps together, and where the joint law is known they have its mean and covariance. All: the horizon
is filled, no row twice, counts are the sessions' own, same seed same trace, JSON and closing midway.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backend.chance import Ask, Seeded
from backend.meter import Meter
from backend.protocols import ForecastSession, LoopSession, PathSession, Prompt, SeriesDiffusionSession
from backend.registry import Strategy, strategies
from backend.run import decode, record
from backend.trace import Trace
from backend.types import Fate, Guarantee, Request, Sampling
from tests.test_gaussian import check_standard_normal
from tests.toys import Toy, ToyCatalog
from tests.toys_diffusion import ToyWindows
from tests.toys_forecast import ToyPaths, toys_for
from tests.toys_linear import ToyLoop

ALL = [s for s in strategies().values() if s.base is ForecastSession]
DRAWN = [s for s in ALL if PathSession in s.protocol.__mro__]  # targets with a law; the others give a curve or bands
PATHS = 2_000
PLAIN = Sampling(temperature=1.0)
GOLDEN = Path(__file__).with_name("golden.json")


def settings(s: Strategy) -> dict[str, dict[str, Any]]:
    """Knob values worth a test: defaults with few paths, every choice and switch once, and what the guarantee needs."""
    usual = {name: o.default for name, o in s.knobs.items()} | ({"paths": 3} if "paths" in s.knobs else {})
    out = {"usual": usual}
    for name, o in s.knobs.items():
        values = [*o.choices, *((True, False) if o.kind is bool else ())]
        if o.kind in (int, float) and name != "paths":
            values = [o.kind(o.low or 0), o.kind(min(o.high or 5, 5))]  # type: ignore[list-item]
        out |= {f"{name}={value}": {**usual, name: value} for value in values if value != usual[name]}
    return out


def with_settings(*promised: Guarantee, among: list[Strategy] = ALL) -> list[Any]:
    return [
        pytest.param(s, knobs, id=f"{s.id}-{name}")
        for s in among
        for name, knobs in settings(s).items()
        if not promised or s.promises(knobs) in promised
    ]


def play(s: Strategy, models: Mapping[str, Toy], knobs: Mapping[str, Any], horizon: int, seed: int = 0) -> Any:
    """The sessions of one decode, run to its end without the runner."""
    sessions = {role: m.make(Prompt(), PLAIN, Meter(), horizon) for role, m in models.items()}
    for _ in s.run(**sessions, ask=Ask(horizon, Seeded(seed)), **knobs):
        pass
    return sessions


def sampled(s: Strategy, models: Mapping[str, Toy], knobs: Mapping[str, Any], patches: int, seed: int = 0) -> Tensor:
    """Many paths [S, N, P] as the target's session holds them."""
    target = models["target"]
    assert isinstance(target, ToyPaths)
    knobs = {**knobs, "paths": PATHS}
    return torch.stack(play(s, models, knobs, patches * target.patch, seed)["target"].written)


# --------------------------------------------------------------------------------------------------------------- laws
@pytest.mark.parametrize(("s", "knobs"), with_settings(Guarantee.LOSSLESS, among=DRAWN))
def test_lossless_law(s: Strategy, knobs: dict[str, Any]) -> None:
    """A target whose mean and spread depend on the past in a crooked way, a drafter that is another model."""
    models = toys_for(dict(s.roles))
    target = models["target"]
    assert isinstance(target, ToyPaths)
    check_standard_normal(target.noise_of(sampled(s, models, knobs, 3)).flatten(1))


@pytest.mark.parametrize("s", [pytest.param(s, id=s.id) for s in DRAWN if s.promises({}) is Guarantee.LOSSLESS])
def test_lossless_joint_law_in_closed_form(s: Strategy) -> None:
    """A VAR over correlated channels: mean and covariance of all patches together."""
    models = toys_for(dict(s.roles))
    pull_PP = torch.tensor([[0.6, 0.3], [-0.4, 0.7]], dtype=torch.float64)
    factor_PP = torch.tensor([[0.5, 0.0], [0.3, 0.4]], dtype=torch.float64)
    target = ToyPaths("toy/target", pull_PP=pull_PP, factor_PP=factor_PP, protocol=s.protocol)
    models["target"] = target
    mean_D, cover_DD = target.joint(3)
    knobs = {name: o.default for name, o in s.knobs.items()}
    away_SD = sampled(s, models, knobs, 3, seed=1).flatten(1) - mean_D
    check_standard_normal(torch.linalg.solve_triangular(torch.linalg.cholesky(cover_DD), away_SD.T, upper=False).T)


@pytest.mark.parametrize(
    ("s", "knobs"), with_settings(Guarantee.LOSSLESS, among=[s for s in ALL if s.protocol is LoopSession])
)
def test_lossless_curve(s: Strategy, knobs: dict[str, Any]) -> None:
    """A target that is a recursion without noise: its curve, as it is defined step by step."""
    models = toys_for(dict(s.roles))
    target = models["target"]
    assert isinstance(target, ToyLoop)
    for horizon in (1, 2, 13, 64):
        trace = record(run_request(s, models, knobs, budget=horizon), ToyCatalog(list(models.values())))
        values = trace.values()
        assert [values[slot] for slot in range(horizon)] == pytest.approx(target.truth(horizon), rel=1e-5, abs=1e-8)


def test_lossless_strategies_are_all_proven() -> None:
    """Every promise is checked by one of the tests above."""
    kept = [s for s in ALL if s.promises({}) is Guarantee.LOSSLESS]
    assert all(s in DRAWN or s.protocol is LoopSession for s in kept)


@pytest.mark.parametrize(
    ("s", "setting"),
    [
        pytest.param(s, setting, id=f"{s.id}-{setting}")
        for s in ALL
        for setting in settings(s)
        if s.protocol is SeriesDiffusionSession and not setting.startswith("block")
    ],
)
def test_lossy_distance_is_pinned(s: Strategy, setting: str) -> None:
    """The law may only change on purpose: how far means and deviations are from the exact ones, in deviations."""
    models = toys_for(dict(s.roles))
    target = models["target"]
    assert isinstance(target, ToyWindows)
    request = run_request(s, models, {**settings(s)[setting], "paths": 100})
    values = record(request, ToyCatalog(list(models.values()))).values()
    paths_SH = torch.tensor([values[slot] for slot in range(len(values))], dtype=torch.float64).reshape(100, -1)
    mean_H, spread_H = target.moments(paths_SH.shape[1])
    away_2H = torch.stack((paths_SH.mean(0) - mean_H, paths_SH.std(0) - spread_H)) / spread_H
    distance = float(away_2H.square().mean().sqrt())
    golden = json.loads(GOLDEN.read_text())
    name = f"forecast/{s.id}/{setting}"
    if os.environ.get("PIN_GOLDEN"):
        GOLDEN.write_text(json.dumps(golden | {name: round(distance, 6)}, indent=1, sort_keys=True) + "\n")
        return
    assert name in golden, f"{distance:.6f} is not pinned: look at it, then run pytest once with PIN_GOLDEN=1"
    assert distance == pytest.approx(golden[name], rel=1e-5, abs=2e-6)


# ------------------------------------------------------------------------------------------------------------- traces
def run_request(s: Strategy, models: Mapping[str, Toy], knobs: Mapping[str, Any], **options: Any) -> Request:
    ids = {role: model.id for role, model in models.items()}
    return Request(s.id, "", ids, dict(knobs), **({"sampling": PLAIN, "budget": 7, "seed": 3} | options))


def without_times(trace: Trace) -> Trace:
    return replace(trace, steps=tuple(replace(step, seconds=0.0, spent={}, frame=None) for step in trace.steps))


@pytest.mark.parametrize(("s", "knobs"), with_settings())
def test_trace(s: Strategy, knobs: dict[str, Any]) -> None:
    """Horizons that patches and heads do not divide, warm and cold."""
    models = toys_for(dict(s.roles))
    for horizon, sampling in ((7, PLAIN), (1, PLAIN), (8, Sampling(temperature=0.0))):
        trace = record(
            run_request(s, models, knobs, budget=horizon, sampling=sampling), ToyCatalog(list(models.values()))
        )
        assert trace.end == "budget"
        values = trace.values()
        rows = 1 + max(values) // horizon
        assert sorted(values) == list(range(rows * horizon)), "slots are missing"
        levels = [
            value for step in trace.steps[:1] for name, value in step.figures.items() if name.startswith("level ")
        ]
        assert rows == (len(levels) or knobs["paths"]), "as many rows as paths, or as levels that the figures name"
        assert levels == sorted(levels)
        written = [
            m.slot + i for step in trace.steps for m in step.marks if m.fate.commits for i in range(len(m.values))
        ]
        assert len(written) == len(set(written)), "a slot was written twice"
        check_counts(trace, models)
        check_fates(trace, horizon)
        if isinstance(models["target"], ToyPaths) and not levels:
            held = torch.stack(models["target"].sessions[-1].written).flatten(1)[:, :horizon].flatten()
            told = torch.tensor([values[slot] for slot in range(rows * horizon)], dtype=torch.float64)
            assert torch.allclose(held, told, rtol=1e-5, atol=1e-8), "the marks do not rebuild the paths"


def check_counts(trace: Trace, models: Mapping[str, Toy]) -> None:
    for role, model in models.items():
        session = model.sessions[-1]
        assert sum(step.calls[role] for step in trace.steps) == session.calls
        assert sum(step.rows[role] for step in trace.steps) == session.rows
    most = 3 if SeriesDiffusionSession in models["target"].speaks else 1  # forward, and forward and back for guidance
    assert all(step.calls["target"] <= most for step in trace.steps)


def check_fates(trace: Trace, horizon: int) -> None:
    """In every row of a step: kept ones, then a corrected or a new one; a rejected one stands where it is corrected."""
    for step in trace.steps:
        by_row: dict[int, dict[Fate, list[int]]] = {}
        for mark in step.marks:
            assert mark.token is None
            assert 0 < len(mark.values) <= horizon - mark.slot % horizon
            by_row.setdefault(mark.slot // horizon, {}).setdefault(mark.fate, []).append(mark.slot)
        for fates in by_row.values():
            assert len(fates.get(Fate.REJECTED, [])) <= 1
            if len(by_row) == len({*by_row}) and fates.get(Fate.REJECTED) and fates.get(Fate.FIXED):
                assert fates[Fate.REJECTED] == fates[Fate.FIXED]
            if fates.get(Fate.KEPT) and fates.get(Fate.UNREAD):
                assert max(fates[Fate.KEPT]) < min(fates[Fate.UNREAD])


@pytest.mark.parametrize("s", [pytest.param(s, id=s.id) for s in ALL])
def test_same_seed_same_trace_and_json(s: Strategy) -> None:
    models = toys_for(dict(s.roles))
    request = run_request(s, models, settings(s)["usual"])
    state = torch.get_rng_state()
    first, second = (without_times(record(request, ToyCatalog(list(models.values())))) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.get_rng_state()), "randomness that does not come from ask.chance"
    assert Trace.from_json(json.loads(json.dumps(first.to_json()))) == first
    assert first.summary().new_slots == len(first.values())


@pytest.mark.parametrize("s", [pytest.param(s, id=s.id) for s in ALL])
def test_closing_midway(s: Strategy) -> None:
    models = toys_for(dict(s.roles))
    for taken in (0, 1, 2):
        with decode(run_request(s, models, settings(s)["usual"]), ToyCatalog(list(models.values()))) as run:
            for _, _ in zip(range(taken), run, strict=False):
                pass
        assert run.trace.end in ("stopped", "budget")
        assert list(run) == []


# -------------------------------------------------------------------------------------------------- traps (section 2.8)
@pytest.mark.parametrize("s", [pytest.param(s, id=s.id) for s in DRAWN if s.promises({}) is Guarantee.LOSSLESS])
def test_paths_of_different_length_all_reach_the_horizon(s: Strategy) -> None:
    """Rows are ragged on the way; none is left short, and none costs more calls than plain sampling."""
    models = toys_for(dict(s.roles))
    sessions = play(s, models, {**settings(s)["usual"], "paths": 40}, 24)
    assert {len(path) for path in sessions["target"].written} == {12}
    assert sessions["target"].lengths == [12] * 40
    assert sessions["target"].calls <= 12


def test_laws_of_a_draft_do_not_change_with_what_comes_behind() -> None:
    """Frozen scale: perturb patch j of a draft, and the laws up to it stay the same to the last bit."""
    target = toys_for({"target": PathSession})["target"]
    session = target.make(Prompt(), PLAIN, Meter(), 99)
    session.fork(2)
    draft_RKP = torch.randn(2, 4, 2, dtype=torch.float64)
    before = session.score(draft_RKP)
    for j in range(4):
        other_RKP = draft_RKP.clone()
        other_RKP[:, j] += 100.0
        after = session.score(other_RKP)
        assert torch.equal(before.mean_NP[:, : j + 1], after.mean_NP[:, : j + 1])
        assert not torch.equal(before.mean_NP[:, j + 1], after.mean_NP[:, j + 1])
