"""A finished race as tables, as a file, and back from a file."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend.errors import UserError
from backend.registry import strategies
from backend.trace import SCHEMA, Trace, speedup_modelled
from demos.parts.race import Lane
from demos.parts.snapshot import recorded
from demos.parts.why import Cost, why_slower

SUMMARY = [
    "strategy", "tokens", "calls", "draft calls", "seconds", "tok/s", "tok/call", "kept", "× calls", "× modelled",
    "× time", "nats/token", "against lane 1", "end", "why slower",
]  # fmt: skip
STEPS = [
    "lane",
    "step",
    "new tokens",
    "kept",
    "rejected",
    "unread",
    "target calls",
    "draft calls",
    "rows",
    "ms",
    "note",
]
DRAFT_RATIO = 0.05
LARGEST_FILE = 30_000_000  # bytes after unpacking


def summary_rows(lanes: Sequence[Lane]) -> list[list[Any]]:
    """One row a lane; the same measures as `backend.bench` prints."""
    rows: list[list[Any]] = []
    base = lanes[0].trace.summary() if lanes[0].trace else None
    for i, lane in enumerate(lanes):
        if lane.trace is None:
            rows.append([_title(lane.request.strategy), *[None] * 11, "", lane.message, ""])
            continue
        s, against = lane.trace.summary(), "baseline"
        speeds: list[float | None] = [1.0, 1.0, 1.0]
        if i and base is not None:
            speeds = [
                s.speedup_calls(base),
                speedup_modelled(lane.trace, lambda rows: 1.0, DRAFT_RATIO),
                s.speedup_time(base),
            ]
            against = _against(lane, lanes[0])
        rows.append([
            _title(lane.request.strategy), s.new_slots, s.num_target_calls, s.num_draft_calls, round(s.seconds, 3),
            round(s.units_per_second, 2), round(s.mean_acceptance_length, 3),
            *(None if x is None else round(x, 3) for x in (s.alpha, *speeds, lane.trace.worth.get("log_likelihood"))),
            against,
            lane.trace.end or lane.state.value,
            why_slower(Cost.of(lane.trace), Cost.of(lanes[0].trace)) if i and lanes[0].trace else "",
        ])  # fmt: skip
    return rows


def step_rows(lanes: Sequence[Lane]) -> list[list[Any]]:
    """One row a step of every lane."""
    rows: list[list[Any]] = []
    for i, lane in enumerate(lanes):
        for step in lane.trace.steps if lane.trace else ():
            fates = [mark.fate.value for mark in step.marks]
            new, target = sum(m.fate.commits for m in step.marks), step.calls.get("target", 0)
            rows.append([
                i + 1, step.index + 1, new, fates.count("kept"), fates.count("rejected"), fates.count("unread"), target,
                sum(step.calls.values()) - target, step.rows.get("target", 0), round(1000 * step.seconds, 2), step.note,
            ])  # fmt: skip
    return rows


def save_race(traces: Sequence[Trace], path: Path, label: str = "") -> Path:
    """Write traces as one compressed file. label: when and where they were made."""
    data = {"schema": SCHEMA, "kind": "race", "recorded": label, "traces": [trace.to_json() for trace in traces]}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    return path


def load_race(path: Path) -> tuple[list[Trace], str]:
    """The traces and label of a file written by `save_race` or `Trace.save`. Raises UserError for anything else."""
    try:
        with gzip.open(path) as stream:
            text = stream.read(LARGEST_FILE + 1)
        if len(text) > LARGEST_FILE:
            raise UserError(f"{path.name} is larger than {LARGEST_FILE // 1_000_000} MB when unpacked.")
        data = json.loads(text)
        if not isinstance(data, dict):
            raise UserError(f"{path.name} is not a race of Decoding Lab.")
        traces = [Trace.from_json(item) for item in data.get("traces", [data])][:4]
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise UserError(f"{path.name} is not a race of Decoding Lab; make one with Download.") from error
    if not traces:
        raise UserError(f"{path.name} holds no trace.")
    return traces, str(data.get("recorded", ""))[:200]


def show_file(path: Path) -> tuple[dict[str, Any], list[Trace]]:
    """The snapshot of a recorded file, and its traces."""
    traces, label = load_race(path)
    name = f"{path.name.removesuffix('.json.gz')}-{zlib.crc32(path.read_bytes()):08x}"
    return recorded(traces, label or "from a file", name), traces


def download(race_id: str, lanes: Sequence[Lane], label: str, folder: Path) -> str | None:
    """A file in `folder` with all traces of a race; None where there is none."""
    traces = [lane.trace for lane in lanes if lane.trace is not None]
    return str(save_race(traces, folder / f"decoding-lab-{race_id}.json.gz", label)) if traces else None


def _against(lane: Lane, base: Lane) -> str:
    assert lane.trace is not None
    if base.trace and lane.trace.prompt != base.trace.prompt:
        return "other prompts"
    found = lane.trace.difference(base.trace) if base.trace else None
    if found is None:
        return "same text"
    gap = "" if found.gap is None else f" (gap {found.gap:.2g})"
    other = "another sample" if lane.request.sampling.temperature > 0 else f"differs{gap}"
    return f"{other} from token {found.slot - len(lane.trace.prompt) + 1}"


def _title(strategy_id: str) -> str:
    found = strategies().get(strategy_id)
    return found.title if found else strategy_id
