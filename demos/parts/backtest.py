"""The rolling backtest of the forecasting tab: the lanes of the form at eight origins of its series, in races.

Each origin is a race of its own, so that lanes share the device as they always do, and others get their turn between.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import gradio as gr

from backend.backtest import ORIGINS, Backtest
from backend.errors import UserError
from demos.parts import forecast_form
from demos.parts.buttons import refused, streamed
from demos.parts.fans import opened
from demos.parts.form import Form
from demos.parts.lab import DEVICE, WAITING_ROOM, Lab
from demos.parts.page import QUICK
from demos.parts.race import Race, State
from demos.parts.views import backtest_board

SCHEMA = 1


class Rolling:
    """One visitor's backtest. Watch it with `watch`; a new one of the same visitor stops the old one."""

    def __init__(self, lab: Lab, form: Mapping[str, Any], owner: str, count: int = ORIGINS) -> None:
        """Raises UserError where the form cannot run, or its series is too short for two origins."""
        self.id = uuid.uuid4().hex[:12]
        self.state, self.over, self.stopping = State.QUEUED, False, False
        self._lab, self._form, self._owner = lab, {**form, "truth": forecast_form.HOLD}, f"backtest-{owner}"
        self._precision = str(form["precision"])
        series, horizon = forecast_form.series_of(form), int(form["horizon"])
        season = int(form.get("season") or 0) or None
        first = forecast_form.requests_of({**self._form, "back": 0}, lab.catalog(self._precision))
        self.backtest = Backtest.plan(series, first, horizon, count, season)
        self._result, self._rev, self.done, self._ahead = self.backtest.result(), 0, 0, 0
        self.stop(lab, owner)
        lab.backtests[owner] = self

    @staticmethod
    def stop(lab: Lab, owner: str) -> None:
        """End the visitor's backtest at the next step, if there is one."""
        if owner in lab.backtests:
            lab.backtests[owner].stopping = True
            lab.stop(f"backtest-{owner}")

    def watch(self) -> Generator[None, None, None]:
        """Run it; wakes up a few times a second and once at the end. Closing this frees the device."""
        self.state = State.RUNNING
        for origin, until in enumerate(self.backtest.known):
            if self.stopping:
                break
            back = len(self.backtest.series) - self.backtest.horizon - until
            try:
                requests = forecast_form.requests_of({**self._form, "back": back}, self._lab.catalog(self._precision))
            except UserError as error:
                for lane in range(len(self.backtest.tallies)):
                    self.backtest.fail(origin, lane, str(error))
                self.done += 1
                continue
            race = self._lab.race(requests, self._precision, self._owner)
            for _ in race.start().watch():
                self._ahead = race.ahead
                if not race.over:
                    yield
            if not self.stopping:
                self._take(origin, race)
        self.over = True
        self.state = State.STOPPED if self.stopping else State.DONE
        yield

    def _take(self, origin: int, race: Race) -> None:
        base = race.lanes[0].trace if race.lanes[0].state is State.DONE else None
        for i, lane in enumerate(race.lanes):
            if lane.state is State.DONE and lane.trace is not None:
                self.backtest.take(origin, i, lane.trace, opened(lane.trace).forecast, base)
            else:
                self.backtest.fail(origin, i, lane.message or "stopped")
        self.done += 1
        self._result = self.backtest.result()

    def snapshot(self) -> dict[str, Any]:
        """What the view draws, cumulative."""
        self._rev += 1
        total = len(self.backtest.known)
        return {
            "schema": SCHEMA,
            "rev": self._rev,
            "run_id": self.id,
            "state": self.state.value,
            "done": self.done,
            "total": total,
            "message": self._message(total),
            "result": self._result,
        }

    def _message(self, total: int) -> str:
        if self.state is State.STOPPED:
            return f"Stopped after {self.done} of {total} origins."
        if self.state is not State.DONE:
            wait = f"; {self._ahead} before you at the device" if self._ahead else ""
            return f"Origin {min(self.done + 1, total)} of {total}{wait}"
        lanes = [lane for lane in self._result["lanes"] if lane["pooled"]["wql"] is not None]
        if not lanes:
            problems = [text for lane in self._result["lanes"] for text in lane["problems"] if text]
            return f"No lane could be scored{': ' + problems[0] if problems else '.'}"
        best = min(lanes, key=lambda lane: float(lane["pooled"]["wql"]))
        return f"{best['title']} has the smallest WQL over {total} origins: {best['pooled']['wql']:.4g}."


def build(lab: Lab, form: Form, name: str) -> None:
    """Place the button, the progress bar and the view, and connect them. form: of the tab that is called `name`."""
    with gr.Column(elem_classes=["dl-group", "dl-more"], elem_id=f"{name}-backtest-part"):
        gr.HTML(
            f"<h3>Rolling backtest</h3><p>The lanes above, with the same settings, at {ORIGINS} origins of the series: "
            "how good each is on the whole, at every origin, and how far ahead.</p>",
            elem_classes="dl-part-head",
        )
        with gr.Row(elem_classes="dl-actions"):
            run_button = gr.Button("Run the backtest", elem_id=f"{name}-backtest-run")
            stop_button = gr.Button("Stop", variant="stop", interactive=False, elem_id=f"{name}-backtest-stop")
        board = backtest_board(None, name)

    def on_run(request: gr.Request, *values: Any) -> Iterator[Any]:
        yield from run(lab, form.read(values), request.session_hash or "")

    run_button.click(
        on_run, form.inputs, [board, run_button, stop_button],
        concurrency_id=DEVICE, concurrency_limit=WAITING_ROOM, show_progress="hidden", api_visibility="private",
    )  # fmt: skip

    def on_stop(request: gr.Request) -> Any:
        Rolling.stop(lab, request.session_hash or "")
        return gr.Button(interactive=False)

    stop_button.click(on_stop, None, stop_button, **QUICK)


def run(lab: Lab, form: Mapping[str, Any], owner: str) -> Iterator[tuple[Any, ...]]:
    """Backtest the lanes of a form: values for the view, Run and Stop. Closing this frees the device."""
    try:
        rolling = Rolling(lab, form, owner)
    except UserError as error:
        raise refused(error) from error
    yield from streamed((rolling.snapshot() for _ in rolling.watch()), lambda: rolling.over)
