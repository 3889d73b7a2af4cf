"""Snapshots: cumulative, append-only, true to the trace, and the same live and recorded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.errors import UserError
from backend.run import record
from backend.trace import Trace
from backend.types import Request, Sampling
from demos.parts import tables
from demos.parts.race import Lane, State
from demos.parts.snapshot import Snapshots, finished, overall, recorded
from tests.ui.fakes import FakeCatalog


def trace_of(strategy: str, temperature: float = 0.0, budget: int = 40, seed: int = 0) -> Trace:
    request = Request(strategy, "hello there", sampling=Sampling(temperature), budget=budget, seed=seed)
    return record(request, FakeCatalog())  # type: ignore[arg-type]


def lines(lane: dict[str, Any]) -> list[list[Any]]:
    return [json.loads(line) for line in lane["log"].splitlines()]


def test_text_only_grows_and_ends_as_the_recording_shows_it() -> None:
    traces = [trace_of("autoregressive"), trace_of("speculative")]
    snapshots, logs, revs = Snapshots("run", 2), ["", ""], [0]
    for n in range(0, 43, 3):
        lanes = [Lane(t.request, State.RUNNING, trace=replace(t, steps=t.steps[:n], end="")) for t in traces]
        taken = snapshots.take(lanes)
        for i, lane in enumerate(taken["lanes"]):
            assert lane["log"].startswith(logs[i])
            logs[i] = lane["log"]
        revs.append(taken["rev"])
    assert revs == sorted(set(revs))
    assert [lane["log"] for lane in recorded(traces, "then")["lanes"]] == logs


def test_lines_hold_the_measures_of_the_trace() -> None:
    trace = trace_of("speculative", temperature=1.0)
    rows, summary = lines(recorded([trace, trace], "then")["lanes"][1]), trace.summary()
    clock, units, calls, draft_calls, target_rows, draft_rows, seconds, draft_seconds, *_ = rows[-1]
    assert (units, calls, draft_calls) == (summary.new_slots, summary.num_target_calls, summary.num_draft_calls)
    assert (target_rows, draft_rows) == (summary.rows["target"], summary.rows["draft"])
    assert clock == pytest.approx(summary.seconds, abs=1e-4)
    assert (seconds, draft_seconds) == pytest.approx((summary.spent["target"], summary.spent["draft"]), abs=1e-4)
    kept, judged = sum(row[8] for row in rows), sum(row[9] for row in rows)
    assert kept / judged == pytest.approx(summary.draft_acceptance_rate)


def test_marks_rebuild_the_text() -> None:
    trace = trace_of("speculative")
    marks = [mark for row in lines(recorded([trace], "then")["lanes"][0]) for mark in row[12]]
    kept = sorted((m for m in marks if m[2] in ("kept", "fixed", "bonus")), key=lambda m: m[0])
    assert [m[0] for m in kept] == list(range(40))
    assert [m[3] for m in kept] == trace.written()
    assert all(m[-1] is not None for m in marks), "an empty tail is left out"


def test_lanes_of_one_strategy_are_told_apart_by_their_knobs() -> None:
    knobs = [{"gamma": 2}, {"gamma": 5}, {}]
    lanes = [Lane(Request("speculative", "x", knobs=k)) for k in knobs] + [Lane(Request("jacobi", "x"))]
    names = [lane["name"] for lane in Snapshots("run", 4).take(lanes)["lanes"]]
    title = names[0].partition(" · ")[0]
    assert names[:3] == [f"{title} · gamma 2", f"{title} · gamma 5", f"{title} · gamma 4"]
    assert "·" not in names[3]


def test_other_prompts_are_not_compared() -> None:
    base = trace_of("autoregressive")
    other = replace(base, prompt=(*base.prompt, 1))
    assert recorded([base, other], "then")["lanes"][1]["exact"] == {"kind": "prompts"}


def test_trees_keep_their_parents() -> None:
    marks = [m for row in lines(recorded([trace_of("token_recycling")], "then")["lanes"][0]) for m in row[12]]
    assert any(len(m) > 6 and m[6] is not None for m in marks)


@pytest.mark.parametrize(
    ("strategy", "temperature", "seed", "kind"),
    [("speculative", 0.0, 0, "same"), ("prompt_lookup", 1.0, 0, "same"), ("speculative", 1.0, 5, "sample")],
)
def test_verdict_against_lane_1(strategy: str, temperature: float, seed: int, kind: str) -> None:
    base = trace_of("autoregressive", temperature)
    verdict = recorded([base, trace_of(strategy, temperature, seed=seed)], "then")["lanes"][1]["exact"]
    assert verdict["kind"] == kind


def test_a_text_that_differs_at_temperature_0_names_place_and_gap() -> None:
    base = trace_of("autoregressive")
    token = base.written()[7]
    wrong = [replace(m, token=(token + 1) % 20) for m in base.steps[7].marks]
    steps = (*base.steps[:7], replace(base.steps[7], marks=tuple(wrong)), *base.steps[8:])
    verdict = recorded([base, replace(base, steps=steps)], "then")["lanes"][1]["exact"]
    assert verdict["kind"] == "differs"
    assert verdict["at"] == 7
    assert 0 <= verdict["gap"] <= 1


def test_the_state_of_a_race_is_that_of_its_liveliest_lane() -> None:
    request = Request("autoregressive", "x")
    assert overall([Lane(request, State.ERROR), Lane(request, State.DONE)]) == "done"
    assert overall([Lane(request, State.ERROR), Lane(request, State.RUNNING)]) == "running"
    assert overall([Lane(request, State.ERROR)]) == "error"


def test_a_snapshot_is_cheap() -> None:
    """Taking a snapshot again costs no more than comparing strings: the lines are the same objects."""
    snapshots, lane = Snapshots("run", 1), finished(trace_of("autoregressive", budget=300))
    first = snapshots.take([lane])["lanes"][0]["log"]
    assert snapshots.take([lane])["lanes"][0]["log"] is not None
    assert snapshots._logs[0].num_steps == 300
    assert snapshots.take([lane])["lanes"][0]["log"] == first


def test_files_go_both_ways(tmp_path: Path) -> None:
    traces = [trace_of("autoregressive"), trace_of("speculative")]
    path = tables.save_race(traces, tmp_path / "race-x.json.gz", "on a day")
    again, label = tables.load_race(path)
    assert label == "on a day"
    assert [t.to_json() for t in again] == [t.to_json() for t in traces]
    traces[0].save(tmp_path / "one.json.gz")
    assert len(tables.load_race(tmp_path / "one.json.gz")[0]) == 1


@pytest.mark.parametrize("content", [b"", b"no gzip", b"\x1f\x8b broken"])
def test_other_files_are_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"not a race of Decoding Lab"):
        tables.load_race(path)


def test_what_a_text_is_worth_is_shown_where_it_is_known() -> None:
    plain, other = trace_of("autoregressive"), replace(trace_of("speculative"), worth={"log_likelihood": -1.23456})
    assert [lane["worth"] for lane in recorded([plain, other], "then")["lanes"]] == [{}, {"log_likelihood": -1.2346}]
    rows = tables.summary_rows([finished(plain), finished(other)])
    assert [row[tables.SUMMARY.index("nats/token")] for row in rows] == [None, -1.235]


def test_tables_have_a_row_a_lane_and_a_row_a_step() -> None:
    failed = Lane(Request("speculative", "x"), State.ERROR, "It broke.")
    lanes = [finished(trace_of("autoregressive")), finished(trace_of("speculative")), failed]
    rows = tables.summary_rows(lanes)
    assert [len(row) for row in rows] == [len(tables.SUMMARY)] * 3
    assert rows[1][-3] == "same text"
    assert rows[2][-2:] == ["It broke.", ""]
    steps = tables.step_rows(lanes)
    assert len(steps) == sum(len(lane.trace.steps) for lane in lanes if lane.trace)
    assert {len(row) for row in steps} == {len(tables.STEPS)}
