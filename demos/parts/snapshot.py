"""From traces to what the browser draws: one dict, cumulative, cheap to send again and again.

Every step of a lane becomes one line of JSON in an append-only text. The server then compares strings instead of
walking trees, only new lines travel, and the browser can replay every moment without asking again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from backend.registry import strategies
from backend.trace import DRAFTED, Trace
from backend.types import Fate, Mark, Step
from demos.parts.films import Filmer
from demos.parts.race import Lane, Race, State
from demos.parts.why import Cost, is_target, why_slower

SCHEMA = 1
MEANING = {
    "lossless": "the output has exactly the target model's distribution",
    "greedy-exact": "at temperature 0 the tokens equal plain greedy decoding",
    "lossy": "another distribution than the target's: compare the text, not only the speed",
}


@dataclass
class LaneLog:
    """The lines of one lane's steps so far. A line: the running totals after the step, its note and its marks.

    [clock, units, target calls, draft calls, target rows, draft rows, target s, draft s, kept, judged, depth, note,
    marks, {role: [calls, rows, seconds]}, {name: figure}]
    with kept, judged, depth (drafted positions), roles and figures of this step alone, and a mark as
    [slot behind the prompt, text, fate, token, p, q, parent, [[text, p], ...]], empty tails left out. Seconds of a
    target's parts count as the target's, their calls and rows only in the roles. Where there is a film, units are its
    own, and behind the figures stands what the step changed in the picture, nothing for nothing; see `films.pack` and
    `Fan.frame`. Forecasts have no marks: their frames say all.
    """

    text: str = ""
    num_steps: int = 0
    written: dict[int, int] = field(default_factory=dict)
    totals: list[float] = field(default_factory=lambda: [0.0] * 7)  # clock, calls x 2, rows x 2, seconds x 2
    agreed: int = 0  # slots up to which the text was found equal to the baseline's
    film: Any = None

    def add(self, trace: Trace) -> None:
        """Append the steps that are new in `trace`."""
        lines = [self._line(trace, step) for step in trace.steps[self.num_steps :]]
        self.text += "".join(lines)
        self.num_steps = len(trace.steps)

    def same_as(self, baseline: LaneLog, first: int) -> int | None:
        """The first slot where both have written but differ, looking only at slots not yet compared; None if none."""
        at = max(self.agreed, first)
        while at in self.written and at in baseline.written:
            if self.written[at] != baseline.written[at]:
                return at
            at += 1
        self.agreed = at
        return None

    @property
    def units(self) -> int:
        """What was written: tokens, or cells of a picture."""
        return len(self.written) if self.film is None else int(self.film.units)

    @property
    def cost(self) -> Cost:
        """What the steps so far have cost."""
        seconds, calls, _, rows, _, target, draft = self.totals
        return Cost(self.units, seconds, int(calls), int(rows), target, draft)

    def _line(self, trace: Trace, step: Step) -> str:
        start, drafted = len(trace.prompt), [m for m in step.marks if m.fate in DRAFTED]
        for mark in step.marks:
            if mark.fate.commits and mark.token is not None:
                self.written[mark.slot] = mark.token
            elif mark.fate is Fate.ERASED:
                self.written.pop(mark.slot, None)
        frame: str | dict[str, Any] = "" if self.film is None else self.film.frame(step)
        clock, *rest = self._count(step)
        kept = sum(m.fate is Fate.KEPT for m in drafted)
        depth = len({m.slot for m in drafted} if not isinstance(frame, dict) else frame.get("k", ()))
        marks = [_mark(trace, mark, start) for mark in step.marks] if not isinstance(frame, dict) else []
        roles = {r: [n, step.rows.get(r, 0), round(step.spent.get(r, 0.0), 6)] for r, n in step.calls.items() if n}
        line = [clock, self.units, *rest, kept, len(drafted), depth, step.note, marks, roles]
        if step.figures or frame:
            line.append({name: _short(figure) for name, figure in step.figures.items()})
        if frame:
            line.append(frame)
        return json.dumps(line, ensure_ascii=True, separators=(",", ":"), allow_nan=False) + "\n"

    def _count(self, step: Step) -> list[float]:
        new: list[float] = [step.seconds]
        for counts in (step.calls, step.rows):
            new += [counts.get("target", 0), sum(n for role, n in counts.items() if not is_target(role))]
        target = sum(seconds for role, seconds in step.spent.items() if is_target(role))
        new += [target, sum(step.spent.values()) - target]
        self.totals = [a + b for a, b in zip(self.totals, new, strict=True)]
        return [round(x, 5) for x in self.totals]


class Snapshots:
    """Makes the growing snapshots of one race, live or recorded."""

    def __init__(
        self,
        run_id: str,
        num_lanes: int,
        *,
        recorded: str = "",
        notice: str = "",
        film: Filmer | None = None,
        unit: str = "",
    ) -> None:
        """recorded: when and where it was recorded; empty for a live race. notice: a sentence shown above the lanes.

        film: makes pictures or fans of traces. unit: what lanes write, one of it; as usual for a film if left out.
        """
        self._id = run_id
        self._rev = 0
        self._recorded = recorded
        self._notice = notice
        self._logs = [LaneLog() for _ in range(num_lanes)]
        self._final: dict[int, dict[str, Any]] = {}
        self._scores: dict[int, dict[str, float]] = {}
        self._start = time.perf_counter()
        self._film = film
        self._unit = unit or ("token" if film is None else "cell")

    def take(self, lanes: Sequence[Lane], ahead: int = 0) -> dict[str, Any]:
        """The snapshot of these lanes now."""
        self._rev += 1
        lanes = [copy(lane) for lane in lanes]  # a race goes on meanwhile: what is "done" here has all its steps here
        for lane, lane_log in zip(lanes, self._logs, strict=True):
            if lane.trace is not None:
                if self._film is not None and lane_log.film is None:
                    lane_log.film = self._film(lane.trace)
                lane_log.add(lane.trace)
        request = lanes[0].request
        return {
            "schema": SCHEMA,
            "rev": self._rev,
            "run_id": self._id,
            "recorded": self._recorded,
            "notice": self._notice,
            "state": overall(lanes),
            "ahead": ahead,
            "wall": 0.0 if self._recorded else round(time.perf_counter() - self._start, 2),
            "unit": self._unit,
            "seeds": several_seeds(lanes),
            "prompt": self._prompt(lanes),
            "budget": request.budget,
            "seed": request.seed,
            "temperature": request.sampling.temperature,
            "lanes": [self._lane(i, lanes) for i in range(len(lanes))],
        }

    def _prompt(self, lanes: Sequence[Lane]) -> str:
        titles = [log.film.title for log in self._logs if _is_fan(log.film)]
        return titles[0] if titles else max((prompt_text(lane.request.prompt) for lane in lanes), key=len)

    def _lane(self, i: int, lanes: Sequence[Lane]) -> dict[str, Any]:
        lane, known = lanes[i], strategies().get(lanes[i].request.strategy)
        request = lane.trace.request if lane.trace else lane.request
        guarantee, film = known.promises(request.knobs).value if known else "", self._logs[i].film
        return {
            "id": i + 1,
            "strategy": request.strategy,
            "name": self._name(i, lanes),
            "family": known.family if known else "",
            "guarantee": guarantee,
            "meaning": MEANING.get(guarantee, ""),
            "knobs": ", ".join(f"{name} {value}" for name, value in request.knobs.items()),
            "models": dict(request.models),
            "state": lane.state.value,
            "message": lane.message,
            "fraction": round(lane.fraction, 3),
            "end": lane.trace.end if lane.trace else "",
            "exact": self._exact(i, lanes),
            "worth": {name: round(x, 4) for name, x in lane.trace.worth.items()} if lane.trace else {},
            "why": why_slower(self._logs[i].cost, self._logs[0].cost, self._unit) if i else "",
            "budget": request.budget,
            "picture": film.head if film else None,
            "scores": self._scored(i, lane),
            "log": self._logs[i].text,
        }

    @staticmethod
    def _name(i: int, lanes: Sequence[Lane]) -> str:
        """The strategy's title; where several lanes run it, with the knob values that tell them apart."""
        strategy_id = lanes[i].request.strategy
        known = strategies().get(strategy_id)
        if known is None:
            return strategy_id
        usual = {name: option.default for name, option in known.knobs.items()}
        settings = [{**usual, **lane.request.knobs} for lane in lanes if lane.request.strategy == strategy_id]
        mine = {**usual, **lanes[i].request.knobs}
        own = [name for name in usual if any(setting.get(name) != mine[name] for setting in settings)]
        values = [str(mine[name]) if isinstance(mine[name], str) else f"{name} {mine[name]}" for name in own]
        values += [f"seed {lanes[i].request.seed}"] if several_seeds(lanes) else []
        return " · ".join([known.title, *values])

    def _exact(self, i: int, lanes: Sequence[Lane]) -> dict[str, Any]:
        """The text against lane 1's: same | differs (at, gap) | sample | prompts | model | nothing to say yet."""
        lane, base = lanes[i], lanes[0]
        if i == 0:
            return {"kind": "baseline"}
        if lane.trace is None or base.trace is None or not lane.trace.steps or not base.trace.steps:
            return {"kind": ""}
        if _is_fan(self._logs[i].film):
            return self._against(i, lanes)
        models = [trace.request.models.get("target", "") for trace in (lane.trace, base.trace)]
        if self._film is not None and models[0] != models[1]:
            return {"kind": "model"}
        if lane.trace.prompt != base.trace.prompt:
            return {"kind": "prompts" if models[0] == models[1] else "model"}
        start = len(lane.trace.prompt)
        if lane.state.over and base.state.over:
            if i not in self._final:
                found = lane.trace.difference(base.trace)
                slot, gap = (None, None) if found is None else (found.slot - start, found.gap)
                self._final[i] = self._verdict(slot, gap, lane, over=True)
            return self._final[i]
        slot = self._logs[i].same_as(self._logs[0], start)
        return self._verdict(None if slot is None else slot - start, None, lane, over=False)

    def _against(self, i: int, lanes: Sequence[Lane]) -> dict[str, Any]:
        """A forecast against lane 1's, when both are whole: same | sample | model | nothing to say."""
        lane, base = lanes[i], lanes[0]
        assert lane.trace is not None
        assert base.trace is not None
        fans = self._logs[i].film, self._logs[0].film
        models = [trace.request.models.get("target", "") for trace in (lane.trace, base.trace)]
        if models[0] != models[1]:
            return {"kind": "model"}
        if not (lane.state is base.state is State.DONE) or fans[0].levels or fans[1].levels:
            return {"kind": ""}
        if fans[0].same_as(fans[1]):
            return {"kind": "same", "over": True}
        known = strategies().get(lane.request.strategy)
        lossless = known is not None and known.promises(lane.trace.request.knobs).value == "lossless"
        return {"kind": "sample" if lossless else ""}

    def _scored(self, i: int, lane: Lane) -> dict[str, float]:
        """What a whole forecast is worth against the truth; {} for everything else."""
        if not _is_fan(self._logs[i].film) or lane.trace is None or not lane.state.over:
            return {}
        if not self._scores.get(i):  # a lane may end between the reading of its steps and this
            found = self._logs[i].film.scores(lane.trace)
            self._scores[i] = {name: float(f"{x:.4g}") for name, x in found.items()}
        return self._scores[i]

    @staticmethod
    def _verdict(slot: int | None, gap: float | None, lane: Lane, over: bool) -> dict[str, Any]:
        if slot is None:
            return {"kind": "same", "over": over}
        kind = "sample" if lane.request.sampling.temperature > 0 else "differs"
        return {"kind": kind, "at": slot, "gap": gap, "over": over}


def live(race: Race, film: Filmer | None = None, unit: str = "") -> Snapshots:
    """The snapshots of a race that is about to run."""
    return Snapshots(race.id, len(race.lanes), film=film, unit=unit)


def recorded(
    traces: Sequence[Trace], label: str, run_id: str = "recorded", film: Filmer | None = None, unit: str = ""
) -> dict[str, Any]:
    """One snapshot of finished traces. label: when and where they were recorded."""
    snapshots = Snapshots(run_id, len(traces), recorded=label, film=film, unit=unit)
    return snapshots.take([finished(trace) for trace in traces])


def finished(trace: Trace) -> Lane:
    """A lane that shows a finished trace."""
    stopped = trace.end == "stopped"
    state = State.ERROR if trace.end.startswith("error") else State.STOPPED if stopped else State.DONE
    message = trace.end.removeprefix("error: ") if state is State.ERROR else ""
    return Lane(trace.request, state, message, 1.0, trace, sum(step.seconds for step in trace.steps))


def several_seeds(lanes: Sequence[Lane]) -> bool:
    """Whether the lanes are one strategy with several seeds, and no race of strategies."""
    first = lanes[0].request
    same = all((lane.request.strategy, lane.request.knobs) == (first.strategy, first.knobs) for lane in lanes)
    return same and len({lane.request.seed for lane in lanes}) > 1


def overall(lanes: Sequence[Lane]) -> str:
    """The state of the race: the most alive of its lanes', an error only where every lane failed."""
    states = [lane.state for lane in lanes]
    for state in (State.RUNNING, State.LOADING, State.QUEUED, State.STOPPED, State.DONE):
        if state in states:
            return state.value
    return State.ERROR.value


def prompt_text(prompt: Any) -> str:
    """The text of a prompt, whatever form it has; several prompts with a line of --- between them."""
    if not isinstance(prompt, Mapping):
        return str(prompt)
    texts = prompt.get("texts")
    return (
        "\n---\n".join(map(str, texts))
        if isinstance(texts, list)
        else str(prompt.get("text", prompt.get("prompt", "")))
    )


def _is_fan(film: Any) -> bool:
    return getattr(film, "unit", "") == "value"


def _short(figure: float) -> float | None:
    """Six digits of a figure; None where it is no number."""
    return float(f"{figure:.6g}") if math.isfinite(figure) else None


def _mark(trace: Trace, mark: Mark, start: int) -> list[Any]:
    text = "" if mark.token is None else trace.pieces.get(mark.token, f"‹{mark.token}›")
    options = [[trace.pieces.get(token, f"‹{token}›"), p] for token, p in mark.options]
    out: list[Any] = [mark.slot - start, text, mark.fate.value, mark.token, mark.p, mark.q, mark.parent, options]
    while out[-1] is None or out[-1] == []:
        out.pop()
    return out
