"""A finished race as tables, as a file, and back from a file."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend.errors import UserError
from backend.registry import strategies
from backend.trace import SCHEMA, Summary, Trace
from demos.parts.fans import is_forecast
from demos.parts.films import Filmer, developed, is_picture
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


def summary_headers(unit: str) -> list[str]:
    """Headers of `summary_rows`; unit: what is written, one of it."""
    return [_unit(name, unit) for name in SUMMARY]


def step_headers(unit: str) -> list[str]:
    """Headers of `step_rows`."""
    return [_unit(name, unit) for name in STEPS]


def _unit(name: str, unit: str) -> str:
    if name == "nats/token":
        return "nats/cell" if unit == "cell" else name
    return name.replace("token", unit).replace("tok", f"{unit}s")


def measured(trace: Trace, film: Filmer | None = None) -> Summary:
    """The measures of a trace; of a picture, per cell that was painted, whatever the model wrote for it."""
    s = trace.summary()
    if film is None:
        return s
    units = developed(trace, film).units
    rate, length = (units / n if n else 0.0 for n in (s.seconds, s.num_target_calls))
    return replace(s, new_slots=units, units_per_second=rate, mean_acceptance_length=length)


def summary_rows(lanes: Sequence[Lane], film: Filmer | None = None) -> list[list[Any]]:
    """One row a lane; the same measures as `backend.bench` prints. film: for pictures."""
    rows: list[list[Any]] = []
    base = measured(lanes[0].trace, film) if lanes[0].trace else None
    for i, lane in enumerate(lanes):
        if lane.trace is None:
            rows.append([_title(lane.request.strategy), *[None] * 11, "", lane.message, ""])
            continue
        s, against = measured(lane.trace, film), "baseline"
        speeds: list[float | None] = [1.0, 1.0, 1.0]
        if i and base is not None:
            speeds = [
                s.speedup_calls(base),
                _modelled(s, base),
                s.speedup_time(base),
            ]
            against = _against(lane, lanes[0], film)
        rows.append([
            _title(lane.request.strategy), s.new_slots, s.num_target_calls, s.num_draft_calls, round(s.seconds, 3),
            round(s.units_per_second, 2), round(s.mean_acceptance_length, 3),
            *(None if x is None else round(x, 3) for x in (s.alpha, *speeds, _nats(lane.trace))),
            against,
            lane.trace.end or lane.state.value,
            _why(lane, lanes[0], film) if i else "",
        ])  # fmt: skip
    return rows


def _nats(trace: Trace) -> float | None:
    """Of a picture nats a cell under its style's plain painter, which compare; else nats a token under the target."""
    return trace.worth.get("by_painter" if is_picture(trace) else "log_likelihood")


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


def kind_of(trace: Trace) -> str:
    """The tab that shows a trace: text, image or forecasting."""
    return "forecasting" if is_forecast(trace) else "image" if is_picture(trace) else "text"


def show_file(path: Path, film: Filmer | None = None, unit: str = "") -> tuple[dict[str, Any], list[Trace]]:
    """The snapshot of a recorded file, and its traces; film: where they paint or forecast. Raises UserError."""
    traces, label = load_race(path)
    wanted = "text" if film is None else "forecasting" if unit == "value" else "image"
    other = next((kind for trace in traces if (kind := kind_of(trace)) != wanted), None)
    if other is not None:
        raise UserError(f"{path.name} is a race of another kind; open it in the {other} tab.")
    name = f"{path.name.removesuffix('.json.gz')}-{zlib.crc32(path.read_bytes()):08x}"
    return recorded(traces, label or "from a file", name, film, unit), traces


def download(race_id: str, lanes: Sequence[Lane], label: str, folder: Path) -> str | None:
    """A file in `folder` with all traces of a race; None where there is none."""
    traces = [lane.trace for lane in lanes if lane.trace is not None]
    return str(save_race(traces, folder / f"decoding-lab-{race_id}.json.gz", label)) if traces else None


def _modelled(s: Summary, base: Summary) -> float:
    """Speedup where a call costs the same whatever it scores, and a draft call `DRAFT_RATIO` of it."""
    mine, theirs = (x.num_target_calls + DRAFT_RATIO * x.num_draft_calls for x in (s, base))
    return theirs * s.new_slots / (mine * base.new_slots) if mine and base.new_slots else 0.0


def _why(lane: Lane, base: Lane, film: Filmer | None) -> str:
    if lane.trace is None or base.trace is None:
        return ""
    if film is None:
        return why_slower(Cost.of(lane.trace), Cost.of(base.trace))
    made = [developed(t, film) for t in (lane.trace, base.trace)]
    mine, theirs = (replace(Cost.of(t), units=m.units) for t, m in zip((lane.trace, base.trace), made, strict=True))
    return why_slower(mine, theirs, made[0].unit)


def _against(lane: Lane, base: Lane, film: Filmer | None) -> str:
    assert lane.trace is not None
    painted = film is not None
    if painted and base.trace and lane.trace.request.models.get("target") != base.trace.request.models.get("target"):
        return "another model"
    if film is not None and base.trace and is_forecast(lane.trace):
        same = developed(lane.trace, film).same_as(developed(base.trace, film))
        return "same paths" if same else "another sample" if not is_lossy(lane) else "another forecast"
    if base.trace and lane.trace.prompt != base.trace.prompt:
        return "other prompts"
    found = lane.trace.difference(base.trace) if base.trace else None
    if found is None:
        return "same picture" if painted else "same text"
    gap = "" if found.gap is None else f" (gap {found.gap:.2g})"
    other = "another sample" if lane.request.sampling.temperature > 0 else f"differs{gap}"
    return f"{other} from {'cell' if painted else 'token'} {found.slot - len(lane.trace.prompt) + 1}"


def is_lossy(lane: Lane) -> bool:
    """Whether a lane promises nothing about the law of what it writes."""
    known = strategies().get(lane.request.strategy)
    return known is not None and known.promises(lane.request.knobs).value == "lossy"


def _title(strategy_id: str) -> str:
    found = strategies().get(strategy_id)
    return found.title if found else strategy_id
