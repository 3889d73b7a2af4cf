"""A trace is a request and the steps that answered it: every view, measure, replay and export is made from it alone.

The measures have one definition each, here; those that vLLM also reports carry its names. No torch here.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from backend.errors import UserError
from backend.types import Fate, Mark, Request, Sampling, Step

SCHEMA = 1
LARGEST = 1 << 24  # of any slot, token or count in a file
DRAFTED = (Fate.KEPT, Fate.REJECTED, Fate.UNREAD)


@dataclass(frozen=True)
class Difference:
    """Where a text leaves its baseline: the first differing slot and how close the baseline's best two tokens were.

    gap: p(first) - p(second) at temperature 1 there; None where the baseline's trace does not hold them.
    """

    slot: int
    gap: float | None


@dataclass(frozen=True)
class Summary:
    """The measures of one run. Rates are None where nothing was drafted."""

    new_slots: int
    num_steps: int
    num_target_calls: int
    num_draft_calls: int  # calls of every role but the target and its parts
    rows: Mapping[str, int]
    seconds: float
    spent: Mapping[str, float]  # seconds inside model calls, by role
    mean_acceptance_length: float  # new slots per target call, bonus included
    draft_acceptance_rate: float | None  # KEPT / (KEPT + REJECTED + UNREAD)
    alpha: float | None  # KEPT / (KEPT + REJECTED)
    acceptance_per_position: tuple[float, ...]  # steps that kept a guess at this depth / steps that drafted there
    acceptance_histogram: Mapping[int, int]  # kept guesses -> steps
    units_per_second: float

    def speedup_calls(self, baseline: Summary) -> float:
        """Target calls of the baseline per new slot, over ours. Above 1 is better."""
        return _ratio(
            baseline.num_target_calls * self.new_slots,
            self.num_target_calls * baseline.new_slots,
        )

    def speedup_time(self, baseline: Summary) -> float:
        """Seconds of the baseline per new slot, over ours; same machine, process, precision and threads."""
        return _ratio(baseline.seconds * self.new_slots, self.seconds * baseline.new_slots)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data under the names above."""
        return asdict(self)


@dataclass(frozen=True)
class Trace:
    """A request, the tokens it started from, and the steps so far.

    pieces: readable text of every token that occurs, so that a trace can be shown without its model.
    environment: device, dtype, threads, versions; the request holds models and knobs as
    resolved. end: "" while running, then "budget",
    "end token", "stopped" or "error: <sentence>". worth: measures of the finished output that no run pays for, such as
    log_likelihood (nats a token under the target at temperature 1). scale: of a series, what its numbers are written
    in: location, spread, bent (0 or 1), and how many steps of context it was taken from; empty for everything else.
    """

    request: Request
    prompt: tuple[int, ...] = ()
    pieces: Mapping[int, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    end: str = ""
    worth: Mapping[str, float] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)

    def replay(self, num_steps: int | None = None) -> list[int]:
        """The canvas after the first `num_steps` steps (all if None): prompt and committed tokens, -1 where open."""
        canvas = dict(enumerate(self.prompt))
        for step in self.steps[:num_steps]:
            for mark in step.marks:
                if mark.fate.commits and mark.token is not None:
                    canvas[mark.slot] = mark.token
                elif mark.fate is Fate.ERASED:
                    canvas.pop(mark.slot, None)
        return [canvas.get(slot, -1) for slot in range(max(canvas, default=-1) + 1)]

    def written(self, num_steps: int | None = None) -> list[int]:
        """The canvas behind the prompt."""
        return self.replay(num_steps)[len(self.prompt) :]

    def values(self, num_steps: int | None = None) -> dict[int, float]:
        """The number in every slot that holds one after the first `num_steps` steps (all if None)."""
        held: dict[int, float] = {}
        for step in self.steps[:num_steps]:
            for mark in step.marks:
                if mark.fate.commits:
                    held.update(enumerate(mark.values, mark.slot))
        return held

    def summary(self) -> Summary:
        """The measures of the steps so far."""
        return summarise([self])

    def difference(self, baseline: Trace) -> Difference | None:
        """The first slot where the text differs from the baseline's, or None where it is the same as far as both go.

        A text that stopped early (end token) differs where the other goes on; one that was stopped or is still
        running is compared as far as it goes.
        """
        ours, theirs = self.replay(), baseline.replay()
        both = min(len(ours), len(theirs))
        at = next((i for i in range(both) if ours[i] != theirs[i]), None)
        if at is None and len(ours) != len(theirs):
            shorter = self if len(ours) < len(theirs) else baseline
            at = both if shorter.end == "end token" else None
        if at is None:
            return None
        best = next((m.options for s in baseline.steps for m in s.marks if m.slot == at and m.fate.commits), ())
        return Difference(at, best[0][1] - best[1][1] if len(best) > 1 else None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; frames are left out."""
        return {
            "schema": SCHEMA,
            "request": asdict(self.request),
            "prompt": list(self.prompt),
            "pieces": {str(token): piece for token, piece in self.pieces.items()},
            "environment": dict(self.environment),
            "steps": [_step_to_json(step) for step in self.steps],
            "end": self.end,
            **({"worth": dict(self.worth)} if self.worth else {}),
            **({"scale": dict(self.scale)} if self.scale else {}),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Trace:
        """The trace that `to_json` wrote. Raises UserError for anything else."""
        try:
            if data["schema"] != SCHEMA:
                raise UserError(f"This trace has schema {data['schema']}, this version reads {SCHEMA}.")
            request = Request(**{**data["request"], "sampling": Sampling(**data["request"]["sampling"])})
            return Trace(
                request=request,
                prompt=tuple(_whole(token) for token in data["prompt"]),
                pieces={int(token): str(piece) for token, piece in data["pieces"].items()},
                environment=dict(data["environment"]),
                steps=tuple(_step_from_json(i, step) for i, step in enumerate(data["steps"])),
                end=str(data["end"]),
                worth={str(name): float(x) for name, x in data.get("worth", {}).items()},
                scale={str(name): float(x) for name, x in data.get("scale", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"This is not a trace of Decoding Lab ({error}); export one with Download JSON.") from error

    def save(self, path: Path) -> None:
        """Write the trace as gzipped JSON, the same bytes for the same trace."""
        text = json.dumps(self.to_json(), separators=(",", ":"), ensure_ascii=False)
        path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))

    @staticmethod
    def load(path: Path) -> Trace:
        """Read what `save` wrote. Raises UserError for any other file."""
        packed = path.read_bytes()
        try:
            data = json.loads(gzip.decompress(packed))
        except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
            raise UserError(f"{path.name} is not a trace of Decoding Lab ({error}); export one again.") from error
        return Trace.from_json(data)


def summarise(traces: Sequence[Trace]) -> Summary:
    """The measures of several runs of one strategy together: counts and seconds add up, rates are over all steps."""
    steps = [step for trace in traces for step in trace.steps]
    fates: Counter[Fate] = Counter()
    depths_drafted: Counter[int] = Counter()
    depths_kept: Counter[int] = Counter()
    histogram: Counter[int] = Counter()
    calls: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    spent: dict[str, float] = {}
    for step in steps:
        fates.update(mark.fate for mark in step.marks)
        drafted = [m for m in step.marks if m.fate in DRAFTED]
        first = min((m.slot for m in drafted), default=0)
        depths_drafted.update({m.slot - first for m in drafted})
        depths_kept.update({m.slot - first for m in drafted if m.fate is Fate.KEPT})
        histogram[sum(m.fate is Fate.KEPT for m in drafted)] += 1
        calls.update(step.calls)
        rows.update(step.rows)
        for role, part in step.spent.items():
            spent[role] = spent.get(role, 0.0) + part
    kept, rejected, unread = (fates[f] for f in DRAFTED)
    new_slots = sum(map(_num_written, traces))
    target, seconds = calls["target"], sum(step.seconds for step in steps)
    return Summary(
        new_slots=new_slots,
        num_steps=len(steps),
        num_target_calls=target,
        num_draft_calls=sum(n for role, n in calls.items() if role.partition(".")[0] != "target"),
        rows=dict(rows),
        seconds=seconds,
        spent=spent,
        mean_acceptance_length=_ratio(new_slots, target),
        draft_acceptance_rate=kept / (kept + rejected + unread) if kept + rejected + unread else None,
        alpha=kept / (kept + rejected) if kept + rejected else None,
        acceptance_per_position=tuple(depths_kept[d] / depths_drafted[d] for d in sorted(depths_drafted)),
        acceptance_histogram=dict(sorted(histogram.items())),
        units_per_second=_ratio(new_slots, seconds),
    )


def modelled_seconds(trace: Trace, cost: Callable[[int], float], draft_cost: float) -> float:
    """Seconds on a machine where a target call over n rows takes cost(n) and a draft call draft_cost."""
    return sum(
        step.calls.get("target", 0) * cost(_ceil_div(step.rows.get("target", 0), step.calls.get("target", 0)))
        + draft_cost * sum(n for role, n in step.calls.items() if role.partition(".")[0] != "target")
        for step in trace.steps
    )


def speedup_modelled(trace: Trace, cost: Callable[[int], float], draft_ratio: float) -> float:
    """new slots x cost(1) / modelled seconds, where a draft call costs `draft_ratio` of a one-row target call."""
    slots = _num_written(trace)
    return _ratio(slots * cost(1), modelled_seconds(trace, cost, draft_ratio * cost(1)))


def _step_to_json(step: Step) -> dict[str, Any]:
    return {
        "marks": [
            [m.slot, m.token, m.fate.value, m.p, m.q, m.parent, [list(o) for o in m.options]]
            + ([list(m.values)] if m.values else [])
            for m in step.marks
        ],
        "note": step.note,
        "calls": dict(step.calls),
        "rows": dict(step.rows),
        "seconds": step.seconds,
        "spent": dict(step.spent),
        **({"figures": dict(step.figures)} if step.figures else {}),
    }


def _step_from_json(index: int, data: Mapping[str, Any]) -> Step:
    return Step(
        tuple(_mark_from_json(*row) for row in data["marks"]),
        str(data["note"]),
        None,
        index,
        {str(role): _whole(n) for role, n in data["calls"].items()},
        {str(role): _whole(n) for role, n in data["rows"].items()},
        float(data["seconds"]),
        {str(role): float(seconds) for role, seconds in data["spent"].items()},
        {str(name): float(figure) for name, figure in data.get("figures", {}).items()},
    )


def _mark_from_json(
    slot: Any,
    token: Any,
    fate: Any,
    p: Any,
    q: Any,
    parent: Any,
    options: Sequence[tuple[Any, Any]],
    values: Sequence[Any] = (),
) -> Mark:
    p, q = (None if x is None else float(x) for x in (p, q))
    token, parent = (None if x is None else _whole(x) for x in (token, parent))
    likely = tuple((_whole(t), float(x)) for t, x in options)
    return Mark(_whole(slot), token, Fate(fate), p, q, parent, likely, tuple(float(x) for x in values))


def _whole(x: Any) -> int:
    """A count, slot or token from a file that anyone may have written; a slot of 10^12 would fill the memory."""
    if type(x) is not int or not 0 <= x < LARGEST:
        raise ValueError(f"{x!r} is no whole number from 0 to {LARGEST - 1}")
    return x


def _num_written(trace: Trace) -> int:
    """New slots that hold a token, a number or both; open ones, such as those behind the end of a text, count not."""
    tokens = {slot for slot, token in enumerate(trace.replay()) if token >= 0 and slot >= len(trace.prompt)}
    return len(tokens | set(trace.values()))


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b) if b else 0


def committed(marks: Sequence[Mark]) -> list[Mark]:
    """The marks whose tokens stay, in slot order."""
    return sorted((m for m in marks if m.fate.commits), key=lambda m: m.slot)
