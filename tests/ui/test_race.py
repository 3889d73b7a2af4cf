"""The race: fair, stoppable, one at a time on a device, and a broken lane stays alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from backend.types import Request
from demos.parts import race as race_module
from demos.parts.race import BROKEN, Lane, Line, Race, State
from tests.ui.fakes import FakeCatalog


def make(catalog: FakeCatalog, *strategies: str, budget: int = 24, line: Line | None = None, **kwargs: Any) -> Race:
    requests = [Request(s, "hello there", budget=budget) for s in strategies]
    return Race(requests, catalog, line or Line(catalog.lock), **kwargs)  # type: ignore[arg-type]


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def test_all_lanes_finish_and_free_the_device() -> None:
    catalog = FakeCatalog()
    race = make(catalog, "autoregressive", "speculative", "prompt_lookup", "jacobi").start()
    assert race.wait(60)
    assert [lane.state for lane in race.lanes] == [State.DONE] * 4
    assert all(lane.trace and len(lane.trace.written()) == 24 for lane in race.lanes)
    assert not catalog.lock.locked()


@pytest.mark.parametrize(
    ("strategies", "weighed"),
    [
        (("autoregressive", "jacobi", "speculative"), [True, True, False]),
        (("autoregressive", "speculative"), [False, False]),
        (("speculative",), [True]),
    ],
)
def test_what_lossy_lanes_write_is_weighed_beside_lane_1(
    strategies: tuple[str, ...], weighed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race_module, "is_lossy", lambda request: request.strategy == "jacobi")
    race = make(FakeCatalog(), *strategies, budget=6).start()
    assert race.wait(60)
    traces = [lane.trace for lane in race.lanes]
    assert [lane.state for lane in race.lanes] == [State.DONE] * len(strategies)
    assert [bool(trace and trace.worth) for trace in traces] == weighed
    assert all(trace.worth["log_likelihood"] < 0 for trace in traces if trace and trace.worth)


def test_states_come_in_order() -> None:
    race, seen = make(FakeCatalog(0.002, load_seconds=0.05), "autoregressive", "speculative"), []
    for _ in race.start().watch(pause=0.005):
        seen.append(race.lanes[1].state)
    order = list(dict.fromkeys(seen))
    assert order == sorted(order, key=list(State).index)
    assert order[0] == State.QUEUED
    assert order[-1] == State.DONE
    assert {State.LOADING, State.RUNNING} <= set(order)


def test_the_lane_that_computed_least_goes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks: list[tuple[float, float]] = []
    step = Race._step

    def watched(self: Race, lane: Lane, run: Any) -> bool:
        others = [other.clock for other in self.lanes if not other.state.over]
        clocks.append((lane.clock, min(others)))
        return step(self, lane, run)

    monkeypatch.setattr(Race, "_step", watched)
    assert make(FakeCatalog(0.002), "autoregressive", "speculative").start().wait(60)
    assert clocks
    assert all(mine == least for mine, least in clocks)


def test_stop_keeps_what_was_written() -> None:
    catalog = FakeCatalog(0.01)
    race = make(catalog, "autoregressive", "speculative", budget=500).start()
    until(lambda: all(lane.trace and len(lane.trace.steps) > 2 for lane in race.lanes))
    race.stop()
    assert race.wait(15)
    assert [lane.state for lane in race.lanes] == [State.STOPPED] * 2
    assert all(lane.trace and lane.trace.end == "stopped" and lane.trace.steps for lane in race.lanes)
    assert not catalog.lock.locked()


def test_closing_the_watcher_frees_the_device() -> None:
    catalog = FakeCatalog(0.01)
    race = make(catalog, "autoregressive", budget=500)
    watch = race.start().watch(pause=0.01)
    next(watch)
    until(lambda: race.lanes[0].state == State.RUNNING)
    watch.close()
    assert race.wait(15)
    assert not catalog.lock.locked()


def test_a_lane_that_cannot_run_says_so_and_the_others_go_on() -> None:
    catalog = FakeCatalog()
    requests = [
        Request("autoregressive", "hello", budget=8),
        Request("speculative", "hello", {"draft": "house/none"}, budget=8),
        Request("speculative", "hello", {"target": "house/broken"}, budget=8),
        Request("no_such_thing", "hello", budget=8),
    ]
    race = Race(requests, catalog, Line(catalog.lock)).start()  # type: ignore[arg-type]
    assert race.wait(60)
    assert [lane.state for lane in race.lanes] == [State.DONE, *[State.ERROR] * 3]
    assert "house/none" in race.lanes[1].message
    assert "no probabilities" in race.lanes[2].message
    assert "no_such_thing" in race.lanes[3].message


def test_our_own_bugs_stay_in_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    catalog = FakeCatalog()
    monkeypatch.setattr(catalog, "get", lambda *_: 1 / 0)
    race = make(catalog, "autoregressive").start()
    assert race.wait(60)
    assert race.lanes[0].message == BROKEN
    assert "ZeroDivisionError" in caplog.text


def test_one_race_at_a_time_and_first_come_first_served() -> None:
    catalog = FakeCatalog(0.005)
    line = Line(catalog.lock)
    first, *others = (make(catalog, "autoregressive", budget=40, line=line) for _ in range(4))
    first.start()
    until(lambda: first.lanes[0].state == State.RUNNING)
    for race in others:
        race.start()
        until(lambda race=race: race in line._waiting)  # type: ignore[misc]
    assert [race.ahead for race in others] == [1, 2, 3]
    others[1].stop()
    assert others[1].wait(2), "a waiting race can be stopped"
    assert others[1].lanes[0].state == State.STOPPED
    assert first.wait(60)
    assert others[0].wait(60)
    assert others[2].wait(60)
    assert line.length == 0


def test_every_strategy_is_warmed_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[str] = []
    monkeypatch.setattr(Race, "_warm_up", lambda self, request: warmed.append(request.strategy))
    catalog, warm = FakeCatalog(), set[tuple[str, ...]]()
    for _ in range(2):
        assert make(catalog, "autoregressive", "jacobi", budget=4, warm=warm).start().wait(60)
    assert warmed == ["autoregressive", "jacobi"]


def test_a_race_has_a_deadline() -> None:
    race = make(FakeCatalog(0.01), "autoregressive", budget=500, deadline=0.2).start()
    assert race.wait(60)
    assert race.lanes[0].state == State.STOPPED
    assert race.lanes[0].message == "time limit"


def test_watching_does_not_hold_the_race_back() -> None:
    """The worker never waits for whoever looks: a watcher that sleeps leaves it alone."""
    race = make(FakeCatalog(0.001), "autoregressive", budget=40).start()
    watch = race.watch(pause=0.01)
    next(watch)
    assert race.wait(30), "nobody called next() again, and still it ended"
    assert len(list(watch)) >= 1, "the last look always comes"


def test_threads_end() -> None:
    before = threading.active_count()
    for _ in range(3):
        assert make(FakeCatalog(), "autoregressive", budget=4).start().wait(30)
    until(lambda: threading.active_count() <= before)
    assert race_module.PAUSE_SECONDS >= 0.2, "at most five looks a second"
