"""Paths of events in traces: what they are, their rate, and residuals that are Exp(1) under the right law alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import backend.event_cases
from backend import forecast_table
from backend.errors import UserError
from backend.event_cases import EventLane, event_cases, event_quality
from backend.event_scores import paths_of, rate, under_target, under_truth, uniformity
from backend.image_bench import cost
from backend.models.events import EventModel
from backend.models.house.event_rows import FrozenEvents
from backend.models.house.events import EventConfig, EventNet
from backend.run import record
from backend.series.event_sets import event_sets
from backend.trace import Trace
from backend.types import Request, Sampling
from demos.parts import events as view
from demos.parts.events import Asked, asked
from demos.parts.race import Lane, State

SHIPPED = event_sets()["two_sides"]
HORIZON = 40.0


class Two:
    """The part of a catalog that the runner uses: a point process of random weights, and another that drafts for it."""

    def __init__(self) -> None:
        names = ("house/events", "house/events-draft")
        self._models = {name: self._model(name, seed) for seed, name in enumerate(names)}

    def _model(self, name: str, seed: int) -> EventModel:
        torch.manual_seed(seed)
        net = EventNet(EventConfig(dim=16, num_layers=1, num_heads=2, ffn_dim=16, parts=3, window=16))
        return EventModel(name, FrozenEvents(net.eval()))

    def get(self, model_id: str, progress: Any = None) -> EventModel:
        """The model."""
        return self._models[model_id]

    def default_target(self, protocol: type) -> str:
        """The target."""
        return "house/events"

    def default(self, role: str, target: str) -> str:
        """The draft."""
        return "house/events-draft"

    def sync(self) -> None:
        """Nothing to wait for."""

    def environment(self) -> dict[str, Any]:
        """What a trace says about the machine."""
        return {"device": "test"}


CATALOG: Any = Two()


def drawn(strategy: str, horizon: float = HORIZON, budget: int = 300, paths: int = 12, **knobs: Any) -> Trace:
    asked_for = Request(
        strategy, SHIPPED.prompt(horizon), {}, {"paths": paths, **knobs}, Sampling(temperature=1.0), budget, 1
    )
    return record(asked_for, CATALOG)


@pytest.mark.parametrize("strategy", ["event_sampling", "speculative_events"])
def test_paths_have_the_law_of_their_target_and_not_of_another(strategy: str) -> None:
    trace = drawn(strategy)
    paths = paths_of(trace)
    assert all(path.whole and max(path.times, default=0.0) <= HORIZON for path in paths)
    assert sum(len(path.times) for path in paths) == trace.summary().new_slots > 200
    residuals = under_target(trace, paths, HORIZON, CATALOG)
    assert len(residuals) == trace.summary().new_slots
    told = uniformity(residuals)
    assert told["distance"] < 1.5 * told["band"]
    slower = [2 * x for x in residuals]
    assert uniformity(slower)["distance"] > 2 * told["band"]


def test_a_model_that_knows_nothing_is_found_out_by_the_true_intensity() -> None:
    paths = paths_of(drawn("event_sampling"))
    told = uniformity(under_truth(paths, HORIZON, SHIPPED))
    assert told["count"] == sum(len(path.times) for path in paths)
    assert told["distance"] > told["band"]


def test_rates_count_events() -> None:
    trace = drawn("event_sampling")
    paths = paths_of(trace)
    found = rate(paths, HORIZON, 8)
    assert sum(found["mean"]) * HORIZON / 8 * len(paths) == pytest.approx(trace.summary().new_slots, rel=1e-4)
    assert all(low <= high for low, high in zip(found["low"], found["high"], strict=True))


def test_paths_that_are_cut_at_the_budget_are_told() -> None:
    paths = paths_of(drawn("event_sampling", budget=3))
    assert not any(path.whole for path in paths)
    assert {len(path.times) for path in paths} == {3}


def test_no_events_have_no_residuals() -> None:
    assert uniformity([])["distance"] is None
    trace = drawn("speculative_events", horizon=1e-6, gamma=2)
    assert under_target(trace, paths_of(trace), 1e-6, CATALOG) == []


# ------------------------------------------------------------------------------------------------------------ the view
FORM = {"data": "bursts", "csv": "", "horizon": 20, "gamma": 4, "paths": 3, "seed": 0}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": "nothing"}, "no events 'nothing'"),
        ({"horizon": 0}, "'Time ahead' must be a number from 0.001"),
        ({"gamma": 2.5}, "'Events a draft' must be a whole number from 1 to 64"),
        ({"paths": None}, "'Sample paths' must be a whole number from 1 to 64, but nothing was given"),
        ({"data": "own", "csv": "1\n2"}, "16 or more are needed"),
    ],
)
def test_forms_that_cannot_run(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        asked({**FORM, **change})


def test_own_events_keep_what_can_be_used() -> None:
    found = asked({**FORM, "data": "own", "csv": "\n".join(map(str, range(30))) + "\nlater"})
    assert (found.now, found.shipped, len(found.problems)) == (29.0, None, 1)


def test_a_lane_tells_its_events_and_what_they_cost() -> None:
    trace = drawn("speculative_events", gamma=3)
    lane = Lane(trace.request, State.DONE, trace=trace)
    told = view._lane(lane, Asked("Two sides", SHIPPED.prompt(HORIZON), HORIZON, SHIPPED), {})
    assert told["summary"]["calls"] == trace.summary().num_target_calls
    assert told["guarantee"] == "lossless"
    assert all(path < view.SHOWN_PATHS and time > SHIPPED.now for path, _, time, _, _ in told["raster"])
    kept = [row for row in told["raster"] if row[0] == 0 and row[4] != "rejected"]
    assert len(kept) == len(paths_of(trace)[0].times)
    assert len(told["acceptance"]) == 3
    assert all(0 < apart <= together * (1 + 1e-6) <= 1 + 1e-6 for together, apart in told["acceptance"])
    assert math.isfinite(told["rate"]["mean"][0])


# ------------------------------------------------------------------------------------------------------- the benchmark
def test_lanes_of_events_are_timed_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.event_cases, "MOST_EVENTS", 20)
    cases = event_cases()[:2]
    lanes = [
        EventLane(name, CATALOG, "house/events", Sampling(temperature=1.0), None, horizon=128, paths=4)
        for name in ("event_sampling", "speculative_events:gamma=2")
    ]
    assert {lane.kind for lane in lanes} == {"events"}
    found = event_quality(lanes[0], cases)
    assert (found["cases"], found["paths"]) == (2, 4)
    assert found["ks_distance"] < 1.5 * found["ks_band"]
    timed = {lane.name: [[lane.run(case, 0) for case in cases]] for lane in lanes}
    rows = []
    for lane in lanes:
        row = cost(lane, timed[lane.name], timed["event_sampling"])
        rows.append({**row, "kind": "events", "against": "event_sampling", "paths": 4, "quality": {**found}})
    rows[1]["quality"] = {"law_of": "event_sampling"}
    assert rows[1]["calls"] < rows[0]["calls"]
    shown = forecast_table.for_gallery({"environment": {"horizon": 128}, "rows": rows})["rows"]
    assert shown[0]["horizon"] == rows[0]["slots"] / 4
    assert "as `event_sampling`" in forecast_table.table(rows)
