"""Events of the forecasting tab: a point process continued event by event, and by drafts judged in one call."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from backend.codecs.events import read_event_table
from backend.errors import UserError
from backend.event_scores import paths_of, rate, under_target, under_truth, uniformity
from backend.registry import find
from backend.series.event_sets import EventSet, event_sets
from backend.trace import Trace
from backend.types import Fate, Request, Sampling
from demos.parts import links
from demos.parts.assets import TRACES
from demos.parts.buttons import refused, streamed
from demos.parts.lab import DEVICE, WAITING_ROOM, Lab
from demos.parts.page import QUICK, TELLING, machine
from demos.parts.race import Lane, State
from demos.parts.views import events_board

SCHEMA = 1
LANES = ("event_sampling", "speculative_events")
MOST_EVENTS = 400  # of a path
SHOWN_PATHS = 8  # whose events are drawn
SHOWN_PAST = 60  # events of the history that are drawn
BINS = 20
OWN = "own"
NUMBERS = {"horizon": (0.001, 1e9), "gamma": (1, 64), "paths": (1, 64), "seed": (0, 2**32 - 1)}  # lowest, highest
LABELS = {"horizon": "Time ahead", "gamma": "Events a draft", "paths": "Sample paths", "seed": "Seed"}
RECORDED = TRACES / "race-events.json.gz"  # what the view shows before anything was drawn
USUAL: dict[str, Any] = {"data": "bursts", "horizon": 30, "gamma": 4, "paths": 16, "seed": 0}


@dataclass(frozen=True, eq=False)
class Asked:
    """What the form asks for: a prompt of events, its horizon, and where they come from."""

    title: str
    prompt: Mapping[str, Any]
    horizon: float
    shipped: EventSet | None
    problems: tuple[str, ...] = ()

    @property
    def now(self) -> float:
        """Time of the last known event."""
        return float(self.prompt["times"][-1])


def asked(form: Mapping[str, Any]) -> Asked:
    """Read the form. Raises UserError with what is wrong."""
    for name, (low, high) in NUMBERS.items():
        value = form[name]
        if not isinstance(value, int | float) or not low <= value <= high or (name != "horizon" and value % 1):
            kind = "number" if name == "horizon" else "whole number"
            given = "nothing" if value is None else repr(value)
            raise UserError(f"'{LABELS[name]}' must be a {kind} from {low:.10g} to {high:.10g}, but {given} was given.")
    horizon = float(form["horizon"])
    if form["data"] == OWN:
        table = read_event_table(str(form["csv"] or ""))
        prompt = {"times": list(table.times), "marks": list(table.marks), "horizon": horizon}
        return Asked("Your events", prompt, horizon, None, table.problems)
    known = event_sets()
    if form["data"] not in known:
        raise UserError(f"There are no events {form['data']!r}; pick one of: {', '.join(known)}.")
    shipped = known[form["data"]]
    return Asked(shipped.title, shipped.prompt(horizon), horizon, shipped)


class Live:
    """Both ways to continue one history, run while a visitor watches."""

    def __init__(self, lab: Lab, form: Mapping[str, Any], owner: str) -> None:
        """Raises UserError where the form cannot run."""
        self.id, self._rev, self._lab = uuid.uuid4().hex[:12], 0, lab
        self.asked = asked(form)
        knobs: dict[str, Any] = {"paths": int(form["paths"])}
        more: dict[str, dict[str, Any]] = {"speculative_events": {"gamma": int(form["gamma"])}}
        requests = [
            Request(
                name, self.asked.prompt, {}, {**knobs, **more.get(name, {})}, Sampling(temperature=1.0), MOST_EVENTS,
                int(form["seed"]),
            )
            for name in LANES
        ]  # fmt: skip
        self.race = lab.race(requests, "auto", f"events-{owner}")
        self._residuals: list[dict[str, Any]] = [{} for _ in LANES]

    def watch(self) -> Generator[None, None, None]:
        """Run it; wakes up a few times a second and once at the end. Closing this frees the device."""
        for _ in self.race.start().watch():
            if not self.race.over:
                yield
        for i, lane in enumerate(self.race.lanes):
            if lane.state is State.DONE and lane.trace is not None:
                self._residuals[i] = self._judge(lane.trace)
        yield

    def _judge(self, trace: Trace) -> dict[str, Any]:
        """Residuals of the paths, on nobody's clock."""
        paths = paths_of(trace)
        told = {"target": uniformity(under_target(trace, paths, self.asked.horizon, self._lab.catalog()))}
        if self.asked.shipped is not None and self.asked.shipped.process is not None:
            told["true"] = uniformity(under_truth(paths, self.asked.horizon, self.asked.shipped))
        return told

    def snapshot(self) -> dict[str, Any]:
        """What the view draws, cumulative."""
        self._rev += 1
        lanes = self.race.lanes
        over = all(lane.state.over for lane in lanes)
        failed = next((lane.message for lane in lanes if lane.state is State.ERROR), "")
        stopped = over and any(lane.state is State.STOPPED for lane in lanes)
        state = "error" if over and failed else "stopped" if stopped else "done" if over else "running"
        return {
            "schema": SCHEMA,
            "rev": self._rev,
            "run_id": self.id,
            "recorded": "",
            "state": state,
            "message": failed or self._message(state),
            "problems": list(self.asked.problems[:20]),
            "told": self._told(),
            "lanes": [_lane(lane, self.asked, found) for lane, found in zip(lanes, self._residuals, strict=True)],
        }

    def _told(self) -> dict[str, Any]:
        """The history and the truth, in times of their own."""
        prompt, shipped = self.asked.prompt, self.asked.shipped
        marks = list(prompt.get("marks") or ["event"] * len(prompt["times"]))
        history = list(zip(prompt["times"], marks, strict=True))
        truth: list[tuple[float, str]] = []
        if shipped is not None:
            behind = zip(shipped.times_N[shipped.history :], shipped.kinds_N[shipped.history :], strict=True)
            truth = [(float(t), shipped.mark(int(k))) for t, k in behind if t <= self.asked.now + self.asked.horizon]
        reach = shipped.reach if shipped is not None else 0.0
        return {
            "title": self.asked.title,
            "kinds": sorted(set(marks)),
            "known": len(history),
            "history": history[-SHOWN_PAST:],
            "truth": truth,
            "whole_truth": reach >= self.asked.horizon,
            "now": self.asked.now,
            "until": self.asked.now + self.asked.horizon,
        }

    def _message(self, state: str) -> str:
        if state == "running":
            ahead = self.race.ahead
            notes = [lane.message for lane in self.race.lanes if lane.message]
            return f"{ahead} before you at the device" if ahead else notes[-1] if notes else "Drawing events"
        plain, ours = (lane.trace for lane in self.race.lanes)
        if state != "done" or plain is None or ours is None:
            return "Stopped."
        a, b = plain.summary(), ours.summary()
        if not a.new_slots or not b.new_slots:
            return "No event came before the end of time; take a longer horizon."
        calls, seconds = b.speedup_calls(a), b.speedup_time(a)
        word = "faster" if seconds >= 1 else "slower"
        ratio = seconds if seconds >= 1 else 1 / seconds
        cut = any(not path.whole for trace in (plain, ours) for path in paths_of(trace))
        more = f" Some paths stopped at {MOST_EVENTS} events, before the end of time." if cut else ""
        return (
            f"Speculation needs {calls:.2f}x fewer target calls an event and is {ratio:.2f}x {word} here; both draw "
            f"from the same law.{more}"
        )


def _lane(lane: Lane, asked_for: Asked, residuals: Mapping[str, Any]) -> dict[str, Any]:
    """One lane: its figures, the events of some paths, its rate and residuals."""
    strategy, trace = find(lane.request.strategy), lane.trace
    told: dict[str, Any] = {
        **{"strategy": strategy.id, "title": strategy.title, "guarantee": strategy.promises({}).value},
        **{"state": lane.state.value, "residuals": dict(residuals), "raster": [], "rate": None, "summary": None},
    }
    if trace is None or not trace.steps:
        return told
    summary, draft = trace.summary(), trace.request.models.get("draft")
    paths = paths_of(trace)
    return {
        **told,
        "models": [trace.request.models["target"], *([draft] if draft else [])],
        "summary": {
            **{"calls": summary.num_target_calls, "draft_calls": summary.num_draft_calls, "seconds": summary.seconds},
            **{"events": summary.new_slots, "per_call": summary.mean_acceptance_length, "alpha": summary.alpha},
        },
        "raster": _raster(trace, asked_for.now),
        "rate": rate(paths, asked_for.horizon, BINS),
        "acceptance": _acceptance(trace),
        "residuals": dict(residuals),
    }


def _raster(trace: Trace, now: float) -> list[list[Any]]:
    """[path, call, time, kind, fate] of the events of some paths; guesses that nobody read are left out."""
    budget, unit = trace.request.budget, trace.scale["spread"]
    return [
        [mark.slot // budget, step.index + 1, round(now + unit * mark.values[0], 6), mark.token, mark.fate.value]
        for step in trace.steps
        for mark in step.marks
        if mark.slot < SHOWN_PATHS * budget and mark.fate is not Fate.UNREAD
    ]


def _acceptance(trace: Trace) -> list[list[float]]:
    """[chance, chance if time and kind are judged apart] by place of the draft, means over all calls."""
    out = []
    for k in range(1, 65):
        rows = [s.figures for s in trace.steps if f"chance {k}" in s.figures]
        if not rows:
            break
        out.append([sum(row[f"{name} {k}"] for row in rows) / len(rows) for name in ("chance", "apart")])
    return out


def record(lab: Lab, path: Path = RECORDED) -> Path:
    """Draw the usual events and write what the view shows of them, for visitors who have not drawn any."""
    live = Live(lab, USUAL, "record")
    for _ in live.watch():
        pass
    where = machine(lab.catalog().environment())
    told = live.snapshot() | {"run_id": "recorded", "rev": 1, "recorded": f"on {time.strftime('%Y-%m-%d')}, {where}"}
    path.write_bytes(gzip.compress(json.dumps(told, separators=(",", ":")).encode(), 9, mtime=0))
    return path


def recorded(path: Path = RECORDED) -> dict[str, Any] | None:
    """What was recorded; None where nothing was."""
    told: dict[str, Any] | None = json.loads(gzip.decompress(path.read_bytes())) if path.is_file() else None
    return told


def make_link(name: str, form: Mapping[str, Any]) -> str:
    """A link to this part of the tab and its form; "" if the visitor's own events are too many for one."""
    return links.make_link(name, {"events": dict(form)}, view="events")


def linked(query: Mapping[str, str], name: str) -> dict[str, Any]:
    """The form of such a link, the usual values where it says nothing that fits; {} if it is none."""
    given = links.read_link(query).get("events") if query.get("tab") == name else None
    if not isinstance(given, dict):
        return {}
    out: dict[str, Any] = {key: links.number(given, key, *NUMBERS[key], USUAL[key]) for key in NUMBERS}
    data, csv = given.get("data"), given.get("csv")
    out["csv"] = csv if isinstance(csv, str) else ""
    out["data"] = data if data in event_sets() or (data == OWN and out["csv"]) else USUAL["data"]
    return out


# -------------------------------------------------------------------------------------------------------- on the page
def build(lab: Lab, name: str) -> None:
    """Place the view, its form and its buttons. name: of the tab."""
    with gr.Column(elem_classes=["dl-group", "dl-more"], elem_id=f"{name}-events-part"):
        gr.HTML(
            "<h3>Events</h3><p>Not values but moments: when the next event comes, and of which kind. A point process "
            "is continued one event a call, and by drafts of which both time and kind are judged; the law is the same."
            "</p>",
            elem_classes="dl-part-head",
        )
        with gr.Row(elem_classes="dl-actions"):
            choices = [(f"{item.title}: {item.about}", key) for key, item in event_sets().items()]
            data = gr.Dropdown(
                [*choices, ("Your own events", OWN)], value=USUAL["data"], label="Events", min_width=220,
                elem_id=f"{name}-events-data",
            )  # fmt: skip
        with gr.Accordion("Your own events", open=False, elem_classes="dl-fold"):
            csv = gr.Textbox(
                "", label="A time in each row, and its mark behind a comma if there are any",
                info="Numbers or dates (dates count as days); at least 16 rows, up to 4 different marks.",
                placeholder="time,mark\n0.4,buy\n1.1,sell\n1.3,sell", lines=4, max_lines=9,
                elem_id=f"{name}-events-csv",
            )  # fmt: skip
        with gr.Row():
            numbers = [
                gr.Number(USUAL[key], label=label, precision=None if key == "horizon" else 0, min_width=110,
                          elem_id=f"{name}-events-{key}")
                for key, label in LABELS.items()
            ]  # fmt: skip
        with gr.Row(elem_classes="dl-actions"):
            run_button = gr.Button("Draw events", elem_id=f"{name}-events-run")
            stop_button = gr.Button("Stop", variant="stop", interactive=False, elem_id=f"{name}-events-stop")
            link_button = gr.Button("Copy link", elem_id=f"{name}-events-link")
        link = gr.Textbox(visible=False)
        board = events_board(recorded(), name)

    _connect(lab, name, (data, csv, *numbers), (board, run_button, stop_button), (link_button, link))


def _connect(
    lab: Lab, name: str, inputs: Sequence[Any], outputs: Sequence[Any], share: tuple[gr.Button, gr.Textbox]
) -> None:
    """What the buttons and links do. inputs: data, csv and NUMBERS. outputs: the view, Run, Stop."""
    data, csv, *_ = inputs
    board, run_button, stop_button = outputs
    link_button, link = share

    def read(values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(("data", "csv", *NUMBERS), values, strict=True))

    def on_run(request: gr.Request, *values: Any) -> Iterator[Any]:
        yield from run(lab, read(values), request.session_hash or "")

    run_button.click(
        on_run, [*inputs], [board, run_button, stop_button],
        concurrency_id=DEVICE, concurrency_limit=WAITING_ROOM, show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    csv.change(lambda text: OWN if (text or "").strip() else gr.skip(), csv, data, **QUICK, trigger_mode="always_last")

    def on_stop(request: gr.Request) -> Any:
        lab.stop(f"events-{request.session_hash or ''}")
        return gr.Button(interactive=False)

    stop_button.click(on_stop, None, stop_button, **QUICK)

    def on_link(*values: Any) -> str:
        told = make_link(name, read(values))
        if not told:
            gr.Warning("These events are too many for a link; share their file instead.")
        return told

    link_button.click(on_link, [*inputs], link, **TELLING).then(
        None, link, None, js="(link) => { window.DecodingLab.copyLink(link); }", **QUICK
    )

    def on_load(request: gr.Request) -> list[Any]:
        form = linked(dict(request.query_params), name)
        return [form[key] if form else gr.skip() for key in ("data", "csv", *NUMBERS)]

    blocks = gr.context.Context.root_block
    assert blocks is not None
    blocks.load(on_load, None, [*inputs], **QUICK)


def run(lab: Lab, form: Mapping[str, Any], owner: str) -> Iterator[tuple[Any, ...]]:
    """Continue the events of a form: values for the view, Run and Stop. Closing this frees the device."""
    try:
        live = Live(lab, form, owner)
    except UserError as error:
        raise refused(error) from error
    yield from streamed((live.snapshot() for _ in live.watch()), lambda: live.race.over)
