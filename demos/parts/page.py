"""A page on which strategies race: form on the left, lanes, plots and tables on the right, and all its events.

A tab says what is its own: the form, how it becomes requests, its examples, and how its traces are drawn.
"""

from __future__ import annotations

import atexit
import inspect
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import gradio as gr

from backend.catalog import Catalog
from backend.errors import UserError
from backend.registry import Strategy, strategies
from backend.trace import Trace
from backend.types import Request
from demos.parts import examples, knobs, links, tables
from demos.parts.buttons import refused
from demos.parts.films import Filmer
from demos.parts.form import BASELINE, Form
from demos.parts.lab import DEVICE, WAITING_ROOM, Lab
from demos.parts.snapshot import MEANING, finished, live
from demos.parts.views import lane_board, live_plots, look_inside

QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
TELLING = {**QUICK, "queue": True, "concurrency_limit": None}  # toasts travel through the queue
BuildForm = Callable[[Lab, Sequence[Strategy], Sequence[Trace]], tuple[Form, dict[str, Any]]]


@dataclass(frozen=True)
class Page:
    """What is special about a tab.

    Args:
        id: of the tab, and in front of the ids of its components. kinds: of its examples, in order.
        requests: a form to one request a lane; raises UserError. form_of: traces to the form that makes them again.
        asked: the form of an example by kind, where no recorded race is shown. unit: what is written, one of it.
        film: makes pictures or fans of traces; None for text. baseline: strategy of lane 1. export: what the traces
        hold as CSV, "" for nothing; None where there is no such file.
    """

    id: str
    kinds: Sequence[str]
    requests: Callable[[Mapping[str, Any], Catalog], list[Request]]
    form_of: Callable[[Sequence[Trace]], dict[str, Any]]
    asked: Callable[[str], dict[str, Any]]
    unit: str = "token"
    film: Filmer | None = None
    baseline: str = BASELINE
    export: Callable[[Sequence[Trace]], str] | None = None

    def recorded(self, kind: str) -> Path | None:
        """The recorded race of an example, if there is one."""
        return examples.recorded_race(self.file_of(kind))

    def file_of(self, kind: str) -> str:
        """What the recorded race of an example is called."""
        return kind if self.film is None else f"{self.id}-{kind.lower().replace(' ', '-')}"

    def first(self) -> Path | None:
        """The recorded race of the first screen: that of the first example which has one."""
        return next((path for kind in self.kinds if (path := self.recorded(kind))), None)

    def show(self, path: Path) -> tuple[dict[str, Any], list[Trace]]:
        """The snapshot of a recorded file, and its traces. Raises UserError."""
        return tables.show_file(path, self.film, "" if self.film is None else self.unit)


def build(
    page: Page,
    lab: Lab,
    known: Sequence[Strategy],
    build_form: BuildForm,
    more: Callable[[], None] | None = None,
    below: Callable[[Form], None] | None = None,
) -> tuple[Form, dict[str, Any]]:
    """Place the tab and connect it. more: places further views under the lanes, below: such as need the form as well,
    under the plots. Returns what `build_form` made.
    """
    shown = page.first()
    value, traces = page.show(shown) if shown else (None, [])
    with gr.Row(elem_classes="dl-page", equal_height=False):
        with gr.Column(scale=1, min_width=330, elem_classes="dl-side"):
            form, buttons = build_form(lab, known, traces)
        with gr.Column(scale=4, min_width=320, elem_classes="dl-stage"):
            board = lane_board(value, page.id, page.unit)
            if more is not None:
                more()
            look_inside(page.id)
            live_plots(page.id)
            if below is not None:
                below(form)
            details = _build_details(page, form, traces, shown)
    _connect(page, lab, form, buttons, board, details, gr.State("recorded" if shown else "live"))
    return form, buttons


def build_actions(page_id: str) -> dict[str, Any]:
    """The row of buttons that every page has."""
    with gr.Row(elem_classes="dl-actions"):
        return {
            "run": gr.Button("Run", variant="primary", elem_id=f"{page_id}-run"),
            "stop": gr.Button("Stop", variant="stop", interactive=False, elem_id=f"{page_id}-stop"),
            "link": gr.Button("Copy link", elem_id=f"{page_id}-link"),
        }


def build_lanes(
    known: Sequence[Strategy],
    menus: knobs.Menus,
    traces: Sequence[Trace],
    prefix: str = "",
    usual: Sequence[str] = (),
    baseline: str = BASELINE,
    by: knobs.MenusBy | None = None,
) -> list[Any]:
    """Lane 1, which is fixed, and the forms of lanes 2 to 4. usual: their strategies where no race is shown.

    by: a component that chooses among menus, see `knobs.build_lane`.
    """
    with gr.Column(elem_classes="dl-lane-list"):
        title = strategies()[baseline].title if baseline in strategies() else baseline
        with gr.Column(elem_classes=["dl-group", "dl-lane-config", "dl-l1"]):
            gr.HTML(f'<div class="dl-promise"><b>Lane 1 · {title}</b></div>' + knobs.promise_of(baseline))
        chosen = _chosen(known, traces, [s for s in usual if s in {k.id for k in known}])
        return [knobs.build_lane(i + 2, chosen[i], known, menus, prefix, by) for i in range(3)]


def build_seed(default: float) -> dict[str, Any]:
    """Seed and lock."""
    with gr.Row():
        return {
            "seed": gr.Number(default, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, min_width=120),
            "lock": gr.Checkbox(True, label="keep this seed", min_width=120),
        }


def slider(
    page_id: str, name: str, value: float, numbers: Mapping[str, Any], labels: Mapping[str, str], **options: Any
) -> gr.Slider:
    """A number of the form. One beyond its bounds reaches the form, whose sentence says more than Gradio's."""
    low, high, _, step = numbers[name]
    made = gr.Slider(
        low, high, value=value, step=step, label=labels[name], buttons=[], elem_id=f"{page_id}-{name}", **options
    )
    made.preprocess = lambda payload: payload
    return made


def _build_details(page: Page, form: Form, traces: Sequence[Trace], shown: Path | None) -> dict[str, Any]:
    """Tables, file and explanations under the plots."""
    lanes = [finished(trace) for trace in traces]
    details: dict[str, Any] = {}
    with gr.Accordion("Summary", open=False):
        details["summary"] = gr.Dataframe(
            tables.summary_rows(lanes, page.film) if lanes else None,
            headers=tables.summary_headers(page.unit),
            interactive=False,
            elem_classes="dl-table",
        )
    with gr.Accordion("Steps", open=False):
        details["steps"] = gr.Dataframe(
            tables.step_rows(lanes) if lanes else None,
            headers=tables.step_headers(page.unit),
            interactive=False,
            max_height=420,
            elem_classes="dl-table",
        )
    with gr.Accordion("How these strategies work", open=False):
        details["how"] = gr.Markdown(
            explain([str(lane.strategy.value) for lane in form.lanes], page.baseline), elem_classes="dl-prose"
        )
    with gr.Row():
        details["file"] = gr.DownloadButton(
            "Download the traces", value=str(shown) if shown else None, size="sm", elem_id=f"{page.id}-download"
        )
        if page.export is not None:
            details["export"] = gr.DownloadButton(
                "Download the forecasts (CSV)", value=exported(page, traces), size="sm", elem_id=f"{page.id}-export"
            )
        details["open"] = gr.UploadButton("Open traces", file_types=[".gz"], size="sm", elem_id=f"{page.id}-open")
    return details


def _connect(
    page: Page,
    lab: Lab,
    form: Form,
    buttons: dict[str, Any],
    board: gr.HTML,
    details: dict[str, Any],
    showing: gr.State,
) -> None:
    """Events. Only compute waits for the device; all others answer at once."""
    tables_out = [details[name] for name in ("summary", "steps", "file", "export") if name in details]

    def on_run(request: gr.Request, *values: Any) -> Iterator[Any]:
        yield from run(page, lab, form.read(values), request.session_hash or "")

    buttons["run"].click(
        on_run, form.inputs, [board, buttons["run"], buttons["stop"], form.plain["seed"], showing, *tables_out],
        concurrency_id=DEVICE, concurrency_limit=WAITING_ROOM, show_progress="hidden", api_visibility="private",
    )  # fmt: skip

    def on_stop(request: gr.Request) -> Any:
        lab.stop(request.session_hash or "")
        return gr.Button(interactive=False)

    buttons["stop"].click(on_stop, None, buttons["stop"], **QUICK)
    link = gr.Textbox(visible="hidden", elem_id=f"{page.id}-link-text")
    buttons["link"].click(lambda *values: make_link(page.id, form.read(values)), form.inputs, link, **TELLING).then(
        None, link, None, js="(link) => { window.DecodingLab.copyLink(link); }", **QUICK
    )
    for kind, chip in buttons["chips"].items():
        chip.click(partial(_choose, page, form, kind), showing, [*form.outputs, board, *tables_out], **QUICK)
    if "switch" in buttons:  # a menu of which every choice brings an example, and settings where that has no race
        menu, brings = buttons["switch"]

        def on_switch(value: Any, shown: str) -> tuple[Any, ...]:
            kind, settings = brings(value)
            return _choose(page, form, kind, shown, settings)

        menu.input(on_switch, [menu, showing], [*form.outputs, board, *tables_out], **QUICK)
    menus = [lane.strategy for lane in form.lanes]
    gr.on([m.change for m in menus], lambda *s: explain(s, page.baseline), menus, details["how"], **QUICK)
    opened = partial(_open_file, page)
    details["open"].upload(opened, details["open"], [board, showing, *tables_out], **TELLING)
    blocks = gr.context.Context.root_block
    assert blocks is not None

    def on_load(request: gr.Request) -> list[Any]:
        query = dict(request.query_params)
        return form.fill(links.read_link(query) if query.get("tab", "text") == page.id else {})

    blocks.load(on_load, None, form.outputs, **QUICK)


def run(page: Page, lab: Lab, form: Mapping[str, Any], owner: str) -> Iterator[tuple[Any, ...]]:
    """Race the lanes of a form: snapshots while it runs, then the tables. Closing this frees the device.

    Yields values for board, Run, Stop, seed, what is shown, summary, steps, file, and the export where there is one.
    """
    same = gr.skip()
    try:
        requests = page.requests(form, lab.catalog(form["precision"]))
        race = lab.race(requests, form["precision"], owner)
    except UserError as error:
        raise refused(error) from error
    snapshots, first = live(race, page.film, "" if page.film is None else page.unit), True
    extra = () if page.export is None else (same,)
    for _ in race.start().watch():
        over = race.over
        board = snapshots.take(race.lanes, race.ahead)
        if over:
            break
        head = (
            (gr.Button(interactive=False), gr.Button(interactive=True), requests[0].seed, "live")
            if first
            else (same,) * 4
        )
        yield board, *head, same, same, same, *extra
        first = False
    environment = lab.catalog(form["precision"]).environment()
    label = f"on {time.strftime('%Y-%m-%d')}, {machine(environment)}"
    with tempfile.TemporaryDirectory(prefix="decoding-lab-") as folder:  # gradio copies the file when it is yielded
        file = tables.download(race.id, race.lanes, label, Path(folder))
        done = (tables.summary_rows(race.lanes, page.film), tables.step_rows(race.lanes), file)
        if page.export is not None:
            extra = (exported(page, [lane.trace for lane in race.lanes if lane.trace], Path(folder)),)
        yield board, gr.Button(interactive=True), gr.Button(interactive=False), requests[0].seed, "live", *done, *extra


def make_link(page_id: str, form: Mapping[str, Any]) -> str:
    """A link to this form; a notice and "" where the prompt is too long for one."""
    link = links.make_link(page_id, {name: value for name, value in form.items() if name != "lock"})
    if not link:
        gr.Warning("This prompt is too long for a link; shorten it, or share the downloaded traces.")
    return link


def exported(page: Page, traces: Sequence[Trace], folder: Path | None = None) -> str | None:
    """A file with what the traces hold, in a folder that stays as long as the process if none is given."""
    text = page.export(traces) if page.export is not None and traces else ""
    if not text:
        return None
    path = (folder or Path(_folder())) / f"decoding-lab-{page.id}-{zlib.crc32(text.encode()):08x}.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


@cache
def _folder() -> str:
    made = tempfile.TemporaryDirectory(prefix="decoding-lab-")
    atexit.register(made.cleanup)
    return made.name


def explain(chosen: Sequence[str], baseline: str = BASELINE) -> str:
    """What the chosen strategies do, from the docstrings of their own files."""
    parts = []
    for found in (strategies().get(s) for s in dict.fromkeys([baseline, *chosen])):
        if found is not None:
            text = inspect.getdoc(sys.modules[found.run.__module__]) or ""
            rest = text.partition("\n\n")[2].replace("\nShow: ", "\n\n**Watch** ").replace("\n\n\n", "\n\n")
            link = (
                f"[arXiv:{found.paper}](https://arxiv.org/abs/{found.paper})"
                if found.paper[:4].isdigit()
                else found.paper
            )
            usual = found.promises({}).value
            promise = f"**{usual}**: {MEANING[usual]}."
            if found.only:
                promise += f" It is {found.guarantee.value} with {knobs.needed(found)}, and lossy otherwise."
            source = f"Source: {link}; `{found.run.__module__.replace('.', '/')}.py`."
            parts.append(f"#### {found.title}\n{found.about}\n\n{rest}\n\n{promise} {source}")
    return "\n\n".join(parts)


def machine(environment: Mapping[str, Any]) -> str:
    """The kind of machine in a few words."""
    on_cpu = environment.get("device") == "cpu"
    name = f"{environment.get('cores')}-core CPU" if on_cpu else str(environment.get("device"))
    return f"{name}, {environment.get('dtype')}"


def _choose(
    page: Page, form: Form, kind: str, showing: str, settings: Mapping[str, Any] | None = None
) -> tuple[Any, ...]:
    """An example's form; with its recorded race and that race's settings as long as no live race is shown.

    settings: further ones, which those of the race go before.
    """
    path = page.recorded(kind)
    if path is None or showing != "recorded":
        asked = {**(settings or {}), **page.asked(kind)}
        return *form.fill(asked), *(gr.skip() for _ in range(4 + (page.export is not None)))
    raced = {**(settings or {}), **page.form_of(tables.load_race(path)[0])}
    return *form.fill(raced), *_recorded(page, path)


def _recorded(page: Page, path: Path) -> tuple[Any, ...]:
    """Values for board, summary, steps and file."""
    value, traces = page.show(path)
    lanes = [finished(trace) for trace in traces]
    made = (value, tables.summary_rows(lanes, page.film), tables.step_rows(lanes), str(path))
    return made if page.export is None else (*made, exported(page, traces))


def _open_file(page: Page, path: str) -> tuple[Any, ...]:
    """Show an uploaded file of traces."""
    try:
        value, *rest = _recorded(page, Path(path))
    except UserError as error:
        raise refused(error, "This file cannot be shown") from error
    return value, "recorded", *rest


def _chosen(known: Sequence[Strategy], traces: Sequence[Trace], usual: Sequence[str]) -> list[str]:
    """Strategies of lanes 2 to 4: those of the race shown, else the usual ones, else the first of each family."""
    if traces or usual:
        chosen = [trace.request.strategy for trace in traces[1:]] or list(usual)
    else:
        families = {s.family: s.id for s in reversed(known[1:])}
        chosen = sorted(families.values(), key=[s.id for s in known].index)
    return [*chosen, knobs.NONE, knobs.NONE, knobs.NONE][:3]
