"""Predictability: how acceptance and sweeps depend on the Lyapunov exponent, measured before and for one source now."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator
from typing import Any

import gradio as gr

from backend.catalog import ASSETS
from backend.errors import UserError
from backend.predictability import Probe, read, requests, sources, windows
from demos.parts.buttons import refused, streamed
from demos.parts.fans import opened
from demos.parts.lab import DEVICE, WAITING_ROOM, Lab
from demos.parts.page import QUICK
from demos.parts.race import State
from demos.parts.views import predictability_board

MEASURED = ASSETS / "bench" / "predictability.json"
SCHEMA = 1
LIVE_SERIES, LIVE_HORIZON, LIVE_PATHS = 2, 256, 16
USUAL = "lorenz"


def recorded() -> dict[str, Any]:
    """What the view shows before anything runs."""
    found = read(MEASURED)
    told = {"schema": SCHEMA, "rev": 1, "run_id": "recorded", "state": "recorded", "done": 0, "total": 0, "now": None}
    if found is None:
        return {**told, "environment": None, "rows": [], "message": "Nothing was measured yet; measure one below."}
    return {**told, **found, "message": summary(found["rows"])}


def summary(rows: list[dict[str, Any]]) -> str:
    """The rank correlation of acceptance and of sweeps with the exponent, or the one value that every series has."""
    told, same = [], []
    for name, values in (
        ("acceptance", [(r["exponent"], r["acceptance"]) for r in rows if r["acceptance"] is not None]),
        ("exact sweeps", [(r["exponent"], r["sweeps"]["0.0"]) for r in rows if r["sweeps"]["0.0"] is not None]),
    ):
        if len(values) > 2 and len({value for _, value in values}) > 1:
            told.append(f"{name} {correlation(values):+.2f}")
        elif len(values) > 2:
            same.append(f"{name.capitalize()}: {values[0][1]:g} for every series.")
    return " ".join([*([f"Rank correlation with the exponent: {', '.join(told)}."] if told else []), *same])


def correlation(pairs: list[tuple[float, float]]) -> float:
    """Spearman's, ties by the mean of their ranks; 0 where one side does not vary."""
    ranks = [_ranks(list(side)) for side in zip(*pairs, strict=True)]
    middle = (len(pairs) - 1) / 2
    spread = [sum((r - middle) ** 2 for r in side) for side in ranks]
    if not min(spread):
        return 0.0
    shared = sum((a - middle) * (b - middle) for a, b in zip(*ranks, strict=True))
    return float(shared / (spread[0] * spread[1]) ** 0.5)


def _ranks(values: list[float]) -> list[float]:
    return [sum(y < x for y in values) + (sum(y == x for y in values) - 1) / 2 for x in values]


class Live:
    """One source, measured while a visitor watches: a race of the three lanes for each of its series."""

    def __init__(self, lab: Lab, name: str, owner: str) -> None:
        """Raises UserError for a source that is not known."""
        known = sources()
        if name not in known:
            raise UserError(f"There is no source {name!r}; pick one of: {', '.join(known)}.")
        self.id, self.over, self.stopping, self.message = uuid.uuid4().hex[:12], False, False, ""
        self._lab, self._owner, self._source = lab, f"chaos-{owner}", known[name]
        self._probe, self._rev, self._done = Probe(known[name]), 1, 0

    def watch(self) -> Generator[None, None, None]:
        """Run it; wakes up a few times a second and once at the end. Closing this frees the device."""
        for i, held in enumerate(windows(self._source, LIVE_SERIES, LIVE_HORIZON)):
            self.message = f"{self._source.title}: series {i + 1} of {LIVE_SERIES}"
            race = self._lab.race(requests(held, LIVE_PATHS, i), "auto", self._owner)
            for _ in race.start().watch():
                if not race.over:
                    yield
            for lane in race.lanes:
                if lane.state is State.ERROR:
                    self.message = lane.message
                if lane.state is State.DONE and lane.trace is not None:
                    self._probe.take(lane.trace, opened(lane.trace).forecast, held)
            if any(lane.state is not State.DONE for lane in race.lanes):
                self.stopping = True
                break
            self._done += 1
        self.over = True
        self.message = self._last()
        yield

    def _last(self) -> str:
        row = self._probe.row()
        if row["acceptance"] is None:
            return self.message or "Stopped."
        exact, near = (row["sweeps"][name] for name in ("0.0", "0.001"))
        swept = f"; {exact:.3g} sweeps exactly, {near:.3g} within 0.001" if exact and near else ""
        return (
            f"{row['title']}: {row['acceptance']:.0%} of the judged patches kept{swept}, of {row['patches']} patches."
        )

    def snapshot(self) -> dict[str, Any]:
        """What the view draws: what was measured before, and this one."""
        self._rev += 1
        row = self._probe.row()
        state = "stopped" if self.over and self.stopping else "done" if self.over else "running"
        told = {"rev": self._rev, "run_id": self.id, "state": state, "done": self._done, "total": LIVE_SERIES}
        return {**recorded(), **told, "now": row if row["wql"] else None, "message": self.message}


def build(lab: Lab, name: str) -> None:
    """Place the view and the button that measures one source. name: of the tab."""
    with gr.Column(elem_classes=["dl-group", "dl-more"], elem_id=f"{name}-chaos-part"):
        gr.HTML(
            "<h3>Does predictable mean parallel?</h3><p>Twelve chaotic systems and autoregressions with known roots: "
            "what a draft guesses, and how many sweeps a path needs, by how fast a small difference grows.</p>",
            elem_classes="dl-part-head",
        )
        board = predictability_board(recorded(), name)
        menu = gr.Dropdown(
            [(source.title, source.name) for source in sources().values()], value=USUAL, label="Series to measure here",
            elem_id=f"{name}-chaos-source",
        )  # fmt: skip
        with gr.Row(elem_classes="dl-actions"):
            run_button = gr.Button("Measure it now", elem_id=f"{name}-chaos-run")
            stop_button = gr.Button("Stop", variant="stop", interactive=False, elem_id=f"{name}-chaos-stop")

    def on_run(source: str, request: gr.Request) -> Iterator[Any]:
        yield from run(lab, source, request.session_hash or "")

    run_button.click(
        on_run, menu, [board, run_button, stop_button],
        concurrency_id=DEVICE, concurrency_limit=WAITING_ROOM, show_progress="hidden", api_visibility="private",
    )  # fmt: skip

    def on_stop(request: gr.Request) -> Any:
        lab.stop(f"chaos-{request.session_hash or ''}")
        return gr.Button(interactive=False)

    stop_button.click(on_stop, None, stop_button, **QUICK)


def run(lab: Lab, source: str, owner: str) -> Iterator[tuple[Any, ...]]:
    """Measure a source: values for the view, Run and Stop. Closing this frees the device."""
    try:
        live = Live(lab, source, owner)
        lab.catalog()
    except UserError as error:
        raise refused(error) from error
    yield from streamed((live.snapshot() for _ in live.watch()), lambda: live.over)
