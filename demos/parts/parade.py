"""All strategies in turn on one prompt, each alone on the device, and the table of rows that they fill.

Nobody else's race is held up for longer than one strategy takes: the device is given back after each.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from backend.catalog import Catalog
from backend.registry import compatible, strategies
from backend.trace import Trace
from backend.types import Request
from demos.parts.form import form_of
from demos.parts.lab import Lab
from demos.parts.lent import is_lent
from demos.parts.links import make_link
from demos.parts.race import Lane, Race, State
from demos.parts.snapshot import MEANING, prompt_text
from demos.parts.why import Cost, is_target, why_slower

SCHEMA = 1
LENT_TOGETHER = 6  # strategies in one lease of a lent GPU
LONGEST_TEXT = 4000  # characters of a row's text
RACES = "text"  # the tab that a row's link opens


class Parade:
    """Requests that run one after the other; the first is the baseline of all ratios.

    Watch it with `watch`; `lanes` holds everything so far. A visitor has one at a time: a new one stops the old one.
    """

    def __init__(self, lab: Lab, requests: Sequence[Request], precision: str, owner: str) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.lanes = [Lane(request) for request in requests]
        self.over = False
        self.stopping = False
        self.ahead = 0  # races that wait for the device in front of this one
        self._lab, self._precision, self._owner = lab, precision, f"parade-{owner}"
        self.stop(lab, owner)
        lab.parades[owner] = self

    @staticmethod
    def stop(lab: Lab, owner: str) -> None:
        """End the visitor's parade at the next step, if there is one."""
        if owner in lab.parades:
            lab.parades[owner].stopping = True
            lab.stop(f"parade-{owner}")

    def watch(self) -> Generator[None, None, None]:
        """Run it; wakes up a few times a second and once at the end. Closing this frees the device."""
        at, message = 0, ""
        while at < len(self.lanes) and not message and not self.stopping:
            size = LENT_TOGETHER if at and is_lent() else 1
            race = self._lab.race([lane.request for lane in self.lanes[at : at + size]], self._precision, self._owner)
            for _ in race.start().watch():
                self._take(race, at)
                yield
            self._take(race, at)
            if at == 0:
                message = self._after_baseline()
            at += size
        for lane in self.lanes:
            if not lane.state.over:
                lane.state, lane.message = State.STOPPED, message or "stopped before its turn"
        self.over = True
        yield

    def _take(self, race: Race, at: int) -> None:
        self.lanes[at : at + len(race.lanes)] = race.lanes
        self.ahead = race.ahead

    def _after_baseline(self) -> str:
        """Leave out what the model cannot play, now that it is loaded; why nothing else can run, if so."""
        base = self.lanes[0]
        if base.state is State.ERROR:
            return "not run, since plain decoding failed"
        catalog, model_id = self._lab.catalog(self._precision), base.request.models.get("target", "")
        if model_id and catalog.loaded(model_id):
            able = {strategy.id for strategy in compatible(catalog.get(model_id).speaks)}
            self.lanes = [lane for lane in self.lanes if lane.request.strategy in able]
        return ""


class Rows:
    """Makes the growing snapshots of a parade. A row that is finished is the same object from then on."""

    def __init__(self, run_id: str) -> None:
        self._id, self._rev = run_id, 0
        self._done: dict[str, dict[str, Any]] = {}
        self._waiting: dict[str, dict[str, Any]] = {}
        self._start = time.perf_counter()

    def take(self, parade: Parade) -> dict[str, Any]:
        """The snapshot now."""
        self._rev += 1
        request, base = parade.lanes[0].request, parade.lanes[0]
        at = next((i for i, lane in enumerate(parade.lanes) if not lane.state.over), len(parade.lanes))
        return {
            "schema": SCHEMA,
            "rev": self._rev,
            "run_id": self._id,
            "recorded": "",
            "state": "done" if parade.over else "running",
            "at": at,
            "ahead": parade.ahead,
            "wall": round(time.perf_counter() - self._start, 1),
            "prompt": prompt_text(request.prompt),
            "temperature": request.sampling.temperature,
            "budget": request.budget,
            "rows": [self._row(lane, base) for lane in parade.lanes],
        }

    def _row(self, lane: Lane, base: Lane) -> dict[str, Any]:
        strategy_id = lane.request.strategy
        if lane.state is State.QUEUED:
            if strategy_id not in self._waiting:
                self._waiting[strategy_id] = live_row(lane, base)
            return self._waiting[strategy_id]
        if strategy_id not in self._done:
            made = live_row(lane, base)
            if not lane.state.over:
                return made
            self._done[strategy_id] = made
        return self._done[strategy_id]


def live_row(lane: Lane, base: Lane) -> dict[str, Any]:
    """A row of a lane: its measures so far, against the baseline's."""
    row = {
        **head(lane.request.strategy, lane.trace.request.knobs if lane.trace else lane.request.knobs),
        "state": lane.state.value,
        "message": lane.message if lane.state is not State.DONE else "",
    }
    if lane.trace is None or not lane.trace.steps:
        return row
    mine, plain = Cost.of(lane.trace), Cost.of(base.trace) if base.trace else None
    drafts = sum(n for step in lane.trace.steps for role, n in step.calls.items() if not is_target(role))
    return row | ratios(mine, plain) | {"draft_calls": drafts} | (_ending(lane, base) if lane.state.over else {})


def head(strategy_id: str, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a strategy before it runs."""
    known = strategies().get(strategy_id)
    guarantee = known.promises(knobs).value if known else ""
    return {
        "id": strategy_id,
        "title": known.title if known else strategy_id,
        "family": known.family if known else "",
        "about": known.about if known else "",
        "guarantee": guarantee,
        "meaning": MEANING.get(guarantee, ""),
    }


def ratios(mine: Cost, base: Cost | None) -> dict[str, Any]:
    """The numbers of a row; the speedups are per token, against the baseline."""
    numbers: dict[str, Any] = {
        "tokens": mine.units,
        "calls": mine.calls,
        "length": _rounded(mine.units, mine.calls),
        "rate": _rounded(mine.units, mine.seconds),
    }
    if base is not None and base.units and mine.units:
        numbers["speed_calls"] = _rounded(base.calls * mine.units, mine.calls * base.units)
        numbers["speed_time"] = _rounded(base.seconds * mine.units, mine.seconds * base.units)
        numbers["why"] = why_slower(mine, base)
    return numbers


def _ending(lane: Lane, base: Lane) -> dict[str, Any]:
    trace = lane.trace
    assert trace is not None
    text = "".join(trace.pieces.get(token, "") for token in trace.written())[:LONGEST_TEXT]
    return {
        "text": text,
        "same": _same(trace, base),
        "end": trace.end,
        "worth": trace.worth.get("log_likelihood"),
        "link": make_link(RACES, form_of([base.trace or trace, trace])),
    }


def _same(trace: Trace, base: Lane) -> str:
    """The text against the baseline's: "baseline", "same", "sample" (at a temperature), or where it differs."""
    if base.trace is None or trace is base.trace:
        return "baseline"
    found = trace.difference(base.trace)
    if found is None:
        return "same"
    if trace.request.sampling.temperature > 0:
        return "sample"
    return f"differs at {found.slot - len(trace.prompt) + 1}"


def recorded_rows(path: Path) -> dict[str, Any] | None:
    """The gallery before any run: a shipped benchmark, labelled with day and machine; None where there is none."""
    if not path.exists():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    env, ours = data["environment"], [r for r in data["rows"] if not r.get("peer") and "guarantee" in r]
    base = next((r for r in ours if r["strategy"] == "autoregressive"), None)
    known = strategies()
    rows = [_recorded_row(r, base) for r in ours if r["strategy"] in known]
    where = f"{env.get('cores')}-core {env.get('cpu')}" if env.get("device") == "cpu" else str(env.get("device"))
    label = (
        f"on {env.get('date')}, {where}, {env.get('dtype')}, {env.get('model')}: {env.get('prompts')} prompts of "
        f"{env.get('new_tokens')} tokens, medians of {env.get('repeats')} repeats"
    )
    return {
        "schema": SCHEMA,
        "rev": 1,
        "run_id": "recorded",
        "recorded": label,
        "state": "done",
        "at": len(rows),
        "ahead": 0,
        "wall": 0.0,
        "prompt": "",
        "temperature": env.get("temperature", 0.0),
        "budget": env.get("new_tokens", 0),
        "rows": rows,
    }


def _recorded_row(r: Mapping[str, Any], base: Mapping[str, Any] | None) -> dict[str, Any]:
    numbers = ratios(cost_of(r), cost_of(base) if base else None)
    measured = {
        "rate": round(r["units_per_second"], 3),
        "speed_calls": round(r["speedup_calls"], 3),
        "speed_time": round(r["speedup_time"], 3),
        "why": numbers.get("why", "") if r["speedup_time"] < 1 else "",
        "draft_calls": r["num_draft_calls"],
        "same": "baseline" if r["strategy"] == "autoregressive" else f"same on {r['same_text']:.0%}",
        "worth": r.get("log_likelihood"),
        "link": make_link(RACES, {"lanes": [{"strategy": r["strategy"], "knobs": {}, "models": {}}]}),
    }
    return {
        **head(r["strategy"], {}),
        "guarantee": r["guarantee"],
        "state": "done",
        "message": "",
        **numbers,
        **measured,
    }


def cost_of(r: Mapping[str, Any]) -> Cost:
    """What the lane of a benchmark's row has cost."""
    target = sum(s for role, s in r["spent"].items() if is_target(role))
    rest = sum(s for role, s in r["spent"].items() if not is_target(role))
    return Cost(r["new_slots"], r["seconds"], r["num_target_calls"], r["rows"].get("target", 0), target, rest)


def _rounded(a: float, b: float) -> float | None:
    return float(f"{a / b:.5g}") if b and math.isfinite(a / b) else None


def known_model(catalog: Catalog, model_id: str) -> str:
    """The model's id, or the usual one of the catalog where none is named."""
    return model_id or next((e.id for e in catalog.entries() if e.available and e.protocol == "causal"), "")
