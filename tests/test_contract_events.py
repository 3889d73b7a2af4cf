"""Every registered strategy of events on exact toys; what is checked follows from the guarantee that it declares.

No strategy is named. LOSSLESS: turned back into uniform numbers by the target's own laws, times and kinds of all places
together are uniform and independent; where the law of the number of events until the end of time is known, the paths
have it (chi-square at 1 in 10,000). All: paths end in time, counts are the sessions' own, same seed same trace, JSON
and closing midway.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from backend.chance import Ask, Seeded
from backend.meter import Meter
from backend.protocols import EventSession, Prompt
from backend.registry import Strategy, strategies
from backend.run import decode, record
from backend.trace import Trace
from backend.types import Fate, Guarantee, Request, Sampling
from tests.test_gaussian import check_standard_normal
from tests.toys import ToyCatalog
from tests.toys_events import ToyEvents, toys_for

ALL = [s for s in strategies().values() if s.base is EventSession]
EXACT = [s for s in ALL if s.promises({}) is Guarantee.LOSSLESS]
PLAIN = Sampling(temperature=1.0)
PATHS = 2_500
CHI_SQUARE = {3: 21.1, 4: 23.5}  # by degrees of freedom, exceeded by chance once in 10,000 times


def each(among: list[Strategy]) -> list[Any]:
    return [pytest.param(s, id=s.id) for s in among]


def settings(s: Strategy) -> dict[str, dict[str, Any]]:
    """Defaults with few paths, and every number at its lowest and at 5."""
    usual = {name: o.default for name, o in s.knobs.items()} | {"paths": 5}
    out = {"usual": usual}
    for name, o in s.knobs.items():
        if name != "paths":
            out |= {f"{name}={value}": {**usual, name: value} for value in (o.kind(o.low or 0), o.kind(5))}
    return out


def with_settings(among: list[Strategy]) -> list[Any]:
    return [pytest.param(s, knobs, id=f"{s.id}-{name}") for s in among for name, knobs in settings(s).items()]


def play(s: Strategy, models: Mapping[str, ToyEvents], knobs: Mapping[str, Any], budget: int, seed: int = 0) -> Any:
    """The sessions of one decode, run to its end without the runner."""
    sessions = {role: m.make(Prompt(), PLAIN, Meter(), budget) for role, m in models.items()}
    for _ in s.run(**sessions, ask=Ask(budget, Seeded(seed)), **knobs):
        pass
    return sessions


def check_law(s: Strategy, knobs: Mapping[str, Any], places: int = 3, seed: int = 0) -> None:
    """Times and kinds of the first places, under a target that depends on its past in a crooked way."""
    models = toys_for(dict(s.roles))
    written = play(s, models, {**knobs, "paths": PATHS}, places, seed)["target"].written
    gaps_SN, kinds_SN = (torch.stack([getattr(path, name) for path in written]) for name in ("gap_N", "kind_N"))
    share = models["target"].uniform_of(gaps_SN, kinds_SN).clamp(1e-9, 1 - 1e-9)
    check_standard_normal(torch.special.ndtri(share))


# --------------------------------------------------------------------------------------------------------------- laws
@pytest.mark.parametrize(("s", "knobs"), with_settings(EXACT))
def test_lossless_law(s: Strategy, knobs: dict[str, Any]) -> None:
    check_law(s, knobs)


@pytest.mark.parametrize(("s", "knobs"), with_settings(EXACT))
def test_lossless_number_of_events(s: Strategy, knobs: dict[str, Any]) -> None:
    """Renewal processes until an end of time: how many events paths have."""
    models = toys_for(dict(s.roles), bend=0.0, until=2.5)
    wanted = models["target"].counts(4)
    assert math.isclose(sum(wanted), 1.0)
    assert min(wanted) > 0.01
    written = play(s, models, {**knobs, "paths": PATHS}, 40, seed=1)["target"].written
    seen = Counter(min(len(path.gap_N), 4) for path in written)
    statistic = sum((seen[n] - PATHS * p) ** 2 / (PATHS * p) for n, p in enumerate(wanted))
    assert statistic < CHI_SQUARE[len(wanted) - 1]


def test_there_is_a_strategy_and_all_promise_the_law() -> None:
    assert ALL
    assert EXACT == ALL


# ------------------------------------------------------------------------------------------------------------- traces
def run_request(s: Strategy, models: Mapping[str, Any], knobs: Mapping[str, Any], **options: Any) -> Request:
    ids = {role: model.id for role, model in models.items()}
    return Request(s.id, "", ids, dict(knobs), **({"sampling": PLAIN, "budget": 50, "seed": 3} | options))


def without_times(trace: Trace) -> Trace:
    return replace(trace, steps=tuple(replace(step, seconds=0.0, spent={}, frame=None) for step in trace.steps))


@pytest.mark.parametrize(("s", "knobs"), with_settings(ALL))
@pytest.mark.parametrize(
    ("budget", "until", "temperature"), [(50, 4.0, 1.0), (3, 40.0, 1.0), (1, 2.0, 0.7), (50, 0.01, 1.0), (50, 4.0, 0.0)]
)
def test_trace(s: Strategy, knobs: dict[str, Any], budget: int, until: float, temperature: float) -> None:
    models = toys_for(dict(s.roles), until=until)
    sampling = Sampling(temperature=temperature)
    trace = record(run_request(s, models, knobs, budget=budget, sampling=sampling), ToyCatalog(list(models.values())))
    assert trace.end == "budget"
    held = models["target"].sessions[-1]
    times, kinds = trace.values(), trace.replay()
    for path, own in enumerate(held.written):
        slots = range(path * budget, path * budget + len(own.gap_N))
        assert [times[slot] for slot in slots] == pytest.approx(own.gap_N.cumsum(0).tolist(), rel=1e-8)
        assert [kinds[slot] for slot in slots] == own.kind_N.tolist()
        assert len(own.gap_N) <= budget
        assert float(own.gap_N.sum()) <= until, "the first event after the end of time is not part of a path"
    assert sum(len(own.gap_N) for own in held.written) == len(times) == trace.summary().new_slots
    written = [m.slot for step in trace.steps for m in step.marks if m.fate.commits]
    assert len(written) == len(set(written)), "a slot was written twice"
    for role, model in models.items():
        session = model.sessions[-1]
        assert sum(step.calls[role] for step in trace.steps) == session.calls
        assert sum(step.rows[role] for step in trace.steps) == session.rows
        assert session.lengths == held.lengths
    assert all(step.calls["target"] == 1 for step in trace.steps)
    check_fates(trace, budget)


def check_fates(trace: Trace, budget: int) -> None:
    """In every path of a step: kept ones, then a corrected or new one; a rejected one stands where it is corrected."""
    for step in trace.steps:
        by_path: dict[int, dict[Fate, list[int]]] = {}
        for mark in step.marks:
            assert mark.token is not None
            assert len(mark.values) == 1
            by_path.setdefault(mark.slot // budget, {}).setdefault(mark.fate, []).append(mark.slot)
        for fates in by_path.values():
            assert len(fates.get(Fate.REJECTED, [])) <= 1
            assert len(fates.get(Fate.FIXED, [])) + len(fates.get(Fate.BONUS, [])) <= 1
            if fates.get(Fate.FIXED):
                assert fates.get(Fate.REJECTED) == fates[Fate.FIXED]
            if fates.get(Fate.KEPT) and fates.get(Fate.UNREAD):
                assert max(fates[Fate.KEPT]) < min(fates[Fate.UNREAD])


@pytest.mark.parametrize("s", each(ALL))
def test_same_seed_same_trace_and_json(s: Strategy) -> None:
    models = toys_for(dict(s.roles), until=4.0)
    request = run_request(s, models, settings(s)["usual"])
    state = torch.get_rng_state()
    first, second = (without_times(record(request, ToyCatalog(list(models.values())))) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.get_rng_state()), "randomness that does not come from ask.chance"
    assert Trace.from_json(json.loads(json.dumps(first.to_json()))) == first


@pytest.mark.parametrize("s", each(ALL))
def test_closing_midway(s: Strategy) -> None:
    models = toys_for(dict(s.roles), until=4.0)
    for taken in (0, 1, 2, 99):
        with decode(run_request(s, models, settings(s)["usual"]), ToyCatalog(list(models.values()))) as run:
            for _, _ in zip(range(taken), run, strict=False):
                pass
        assert run.trace.end in ("stopped", "budget")
        assert list(run) == []


@pytest.mark.parametrize("s", each(EXACT))
def test_paths_of_different_length_all_reach_the_end_of_time(s: Strategy) -> None:
    """Paths are ragged on the way; none costs more calls than plain sampling."""
    models = toys_for(dict(s.roles), until=6.0)
    sessions = play(s, models, {**settings(s)["usual"], "paths": 60}, 100)
    lengths = sessions["target"].lengths
    assert len(set(lengths)) > 3
    assert sessions["target"].calls <= max(lengths) + 1
