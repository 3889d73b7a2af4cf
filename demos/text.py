"""The text tab: one prompt, four lanes, every causal strategy."""

from __future__ import annotations

import inspect
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from backend.errors import UserError
from backend.registry import Strategy, strategies
from backend.trace import Trace
from demos.parts import knobs, links, tables
from demos.parts.examples import EXAMPLES, SEVERAL, Example, first_race, recorded_race
from demos.parts.form import BASELINE, LABELS, NUMBERS, PRECISIONS, Form, fitted, form_of, make_requests
from demos.parts.lab import DEVICE, WAITING_ROOM, Lab
from demos.parts.snapshot import MEANING, finished, live
from demos.parts.views import lane_board, live_plots, look_inside

ID, TITLE = "text", "Text"
PROTOCOL = "causal"
TOGETHER = "temporal_fusion"  # answers several prompts at once


def build(lab: Lab) -> None:
    """Place the tab and connect it."""
    shown = first_race()
    value, traces = tables.show_file(shown) if shown else (None, [])
    known = knobs.offered(PROTOCOL)
    with gr.Row(elem_classes="dl-page", equal_height=False):
        with gr.Column(scale=1, min_width=330, elem_classes="dl-side"):
            form, buttons = _build_form(lab, known, traces)
        with gr.Column(scale=4, min_width=320, elem_classes="dl-stage"):
            board = lane_board(value, ID)
            look_inside(ID)
            live_plots(ID)
            details = _build_details(form, known, traces)
    showing = gr.State("recorded" if shown else "live")
    _connect(lab, form, buttons, board, details, showing)


def _build_form(lab: Lab, known: Sequence[Strategy], traces: Sequence[Trace]) -> tuple[Form, dict[str, Any]]:
    """The left column. traces: of the race that is shown, whose settings become the defaults."""
    first = form_of(traces) if traces else None
    entries, menus = knobs.targets(lab.catalog(), known), knobs.model_menus(lab.catalog(), known)
    plain: dict[str, Any] = {}
    buttons: dict[str, Any] = {}
    with gr.Column(elem_classes=["dl-ask", "dl-group"]):
        text = first["prompt"] if first else EXAMPLES[0].prompt
        hint = "Lines of --- separate several prompts, for strategies that answer them together."
        plain["prompt"] = gr.Textbox(
            text, label="Prompt", lines=4, max_lines=8, placeholder=hint, elem_id=f"{ID}-prompt"
        )
        with gr.Row(elem_classes="dl-chiprow"):
            shown = [*EXAMPLES, *([SEVERAL] if TOGETHER in {s.id for s in known} else [])]
            buttons["chips"] = {
                e: gr.Button(e.kind.capitalize(), size="sm", elem_id=f"{ID}-chip-{e.kind}") for e in shown
            }
        mode = first["mode"] if first else "Chat"
        plain["mode"] = gr.Radio(
            ["Chat", "Complete"], value=mode, show_label=False, container=False, elem_id=f"{ID}-mode"
        )
        with gr.Row(elem_classes="dl-actions"):
            buttons["run"] = gr.Button("Run", variant="primary", elem_id=f"{ID}-run")
            buttons["stop"] = gr.Button("Stop", variant="stop", interactive=False, elem_id=f"{ID}-stop")
            buttons["link"] = gr.Button("Copy link", elem_id=f"{ID}-link")
    with gr.Column(elem_classes="dl-lane-list"):
        title = strategies()[BASELINE].title if BASELINE in strategies() else BASELINE
        with gr.Column(elem_classes=["dl-group", "dl-lane-config", "dl-l1"]):
            gr.HTML(f'<div class="dl-promise"><b>Lane 1 · {title}</b></div>' + knobs.promise_of(BASELINE))
        chosen = _chosen(known, traces)
        lanes = [knobs.build_lane(i + 2, chosen[i], known, menus) for i in range(3)]
    with gr.Column(elem_classes="dl-more-settings"):
        plain |= _build_settings(entries, first)
    order = ("prompt", "mode", "model", "precision", *NUMBERS, "lock")
    return Form({name: plain[name] for name in order}, lanes, knobs.pool_sizes(known), menus), buttons


def _build_settings(entries: Sequence[Any], first: Mapping[str, Any] | None) -> dict[str, Any]:
    """Model, precision, sampling, budget and seed."""
    defaults = {name: default for name, (_, _, default, _) in NUMBERS.items()}
    defaults |= {name: first[name] for name in NUMBERS} if first else {}
    plain: dict[str, Any] = {}
    with gr.Column(elem_classes="dl-group"):
        choices = [(f"{e.title}{'' if e.available else ' (not here)'}", e.id) for e in entries]
        usual = next((e.id for e in entries if e.available), entries[0].id if entries else "")
        plain["model"] = gr.Dropdown(
            choices,
            value=usual,
            label="Model",
            info="or type hub/<owner>/<name>",
            allow_custom_value=True,
            elem_id=f"{ID}-model",
        )
        plain["precision"] = gr.Radio(list(PRECISIONS), value="auto", label="Precision", info="the same for every lane")
        plain["budget"] = _slider("budget", defaults["budget"])
        plain["temperature"] = _slider("temperature", defaults["temperature"])
        with gr.Accordion("More sampling", open=False):
            for name in ("top_k", "top_p", "min_p", "repetition_penalty"):
                plain[name] = _slider(name, defaults[name])
        with gr.Row():
            plain["seed"] = gr.Number(
                defaults["seed"], label="Seed", precision=0, minimum=0, maximum=2**31 - 1, min_width=120
            )
            plain["lock"] = gr.Checkbox(True, label="keep this seed", min_width=120)
    return plain


def _build_details(form: Form, known: Sequence[Strategy], traces: Sequence[Trace]) -> dict[str, Any]:
    """Tables, file and explanations under the plots."""
    lanes = [finished(trace) for trace in traces]
    details: dict[str, Any] = {}
    with gr.Accordion("Summary", open=False):
        details["summary"] = gr.Dataframe(
            tables.summary_rows(lanes) if lanes else None,
            headers=tables.SUMMARY,
            interactive=False,
            elem_classes="dl-table",
        )
    with gr.Accordion("Steps", open=False):
        details["steps"] = gr.Dataframe(
            tables.step_rows(lanes) if lanes else None,
            headers=tables.STEPS,
            interactive=False,
            max_height=420,
            elem_classes="dl-table",
        )
    with gr.Accordion("How these strategies work", open=False):
        details["how"] = gr.Markdown(
            explain([str(lane.strategy.value) for lane in form.lanes]), elem_classes="dl-prose"
        )
    with gr.Row():
        shown = first_race()
        details["file"] = gr.DownloadButton(
            "Download the traces", value=str(shown) if shown else None, size="sm", elem_id=f"{ID}-download"
        )
        details["open"] = gr.UploadButton("Open traces", file_types=[".gz"], size="sm", elem_id=f"{ID}-open")
    return details


def _connect(
    lab: Lab, form: Form, buttons: dict[str, Any], board: gr.HTML, details: dict[str, Any], showing: gr.State
) -> None:
    """Events. Only compute waits for the device; all others answer at once."""
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    telling = {**quick, "queue": True, "concurrency_limit": None}  # toasts travel through the queue
    tables_out = [details["summary"], details["steps"], details["file"]]

    def on_run(request: gr.Request, *values: Any) -> Iterator[Any]:
        yield from run(lab, form.read(values), request.session_hash or "")

    buttons["run"].click(
        on_run, form.inputs, [board, buttons["run"], buttons["stop"], form.plain["seed"], showing, *tables_out],
        concurrency_id=DEVICE, concurrency_limit=WAITING_ROOM, show_progress="hidden", api_visibility="private",
    )  # fmt: skip

    def on_stop(request: gr.Request) -> Any:
        lab.stop(request.session_hash or "")
        return gr.Button(interactive=False)

    buttons["stop"].click(on_stop, None, buttons["stop"], **quick)
    link = gr.Textbox(visible="hidden", elem_id=f"{ID}-link-text")
    buttons["link"].click(lambda *values: make_link(form.read(values)), form.inputs, link, **telling).then(
        None, link, None, js="(link) => { window.DecodingLab.copyLink(link); }", **quick
    )
    for example, chip in buttons["chips"].items():
        choose = partial(_choose, form, example)
        chip.click(choose, showing, [*form.outputs, board, *tables_out], **quick)
    menus = [lane.strategy for lane in form.lanes]
    gr.on([m.change for m in menus], lambda *chosen: explain(chosen), menus, details["how"], **quick)
    details["open"].upload(_open_file, details["open"], [board, showing, *tables_out], **telling)
    blocks = gr.context.Context.root_block
    assert blocks is not None

    def on_load(request: gr.Request) -> list[Any]:
        query = dict(request.query_params)
        return form.fill(links.read_link(query) if query.get("tab", ID) == ID else {})

    blocks.load(on_load, None, form.outputs, **quick)


def run(lab: Lab, form: Mapping[str, Any], owner: str) -> Iterator[tuple[Any, ...]]:
    """Race the lanes of a form: snapshots while it runs, then the tables. Closing this frees the device.

    Yields values for board, Run, Stop, seed, what is shown, summary, steps and file.
    """
    same = gr.skip()
    try:
        requests = fitted(make_requests(form), lab.catalog(form["precision"]))
        race = lab.race(requests, form["precision"], owner)
    except UserError as error:
        raise gr.Error(str(error), duration=12, print_exception=False, title="This cannot run yet") from error
    snapshots, first = live(race), True
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
        yield board, *head, same, same, same
        first = False
    environment = lab.catalog(form["precision"]).environment()
    label = f"on {time.strftime('%Y-%m-%d')}, {machine(environment)}"
    with tempfile.TemporaryDirectory(prefix="decoding-lab-") as folder:  # gradio copies the file when it is yielded
        file = tables.download(race.id, race.lanes, label, Path(folder))
        done = (tables.summary_rows(race.lanes), tables.step_rows(race.lanes), file)
        yield board, gr.Button(interactive=True), gr.Button(interactive=False), requests[0].seed, "live", *done


def make_link(form: Mapping[str, Any]) -> str:
    """A link to this form; a notice and "" where the prompt is too long for one."""
    link = links.make_link(ID, {name: value for name, value in form.items() if name != "lock"})
    if not link:
        gr.Warning("This prompt is too long for a link; shorten it, or share the downloaded traces.")
    return link


def explain(chosen: Sequence[str]) -> str:
    """What the chosen strategies do, from the docstrings of their own files."""
    parts = []
    for found in (strategies().get(s) for s in dict.fromkeys([BASELINE, *chosen])):
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
            source = f"Source: {link}; `backend/strategies/{PROTOCOL}/{found.id}.py`."
            parts.append(f"#### {found.title}\n{found.about}\n\n{rest}\n\n{promise} {source}")
    return "\n\n".join(parts)


def machine(environment: Mapping[str, Any]) -> str:
    """The kind of machine in a few words."""
    on_cpu = environment.get("device") == "cpu"
    name = f"{environment.get('cores')}-core CPU" if on_cpu else str(environment.get("device"))
    return f"{name}, {environment.get('dtype')}"


def _choose(form: Form, example: Example, showing: str) -> tuple[Any, ...]:
    """An example's prompt; with its recorded race and that race's settings as long as no live race is shown."""
    path = recorded_race(example.kind)
    if path is None or showing != "recorded":
        asked = {"prompt": example.prompt, "mode": "Chat" if example.chat else "Complete"}
        filled = form.fill(asked | (_together() if example is SEVERAL else {}))
        return *filled, *(gr.skip() for _ in range(4))
    return *form.fill(form_of(tables.load_race(path)[0])), *_recorded(path)


def _together() -> dict[str, Any]:
    """Lanes for several prompts: each schedule of the strategy that answers them together."""
    schedules = strategies()[TOGETHER].knobs["schedule"].choices
    lanes = [{"strategy": TOGETHER, "models": {}, "knobs": {"schedule": s, "concurrency": 3}} for s in schedules]
    return {"lanes": lanes, "budget": 144}


def _recorded(path: Path) -> tuple[Any, ...]:
    """Values for board, summary, steps and file."""
    value, traces = tables.show_file(path)
    lanes = [finished(trace) for trace in traces]
    return value, tables.summary_rows(lanes), tables.step_rows(lanes), str(path)


def _open_file(path: str) -> tuple[Any, ...]:
    """Show an uploaded file of traces."""
    try:
        value, *rest = _recorded(Path(path))
    except UserError as error:
        raise gr.Error(str(error), duration=12, print_exception=False, title="This file cannot be shown") from error
    return value, "recorded", *rest


def _chosen(known: Sequence[Strategy], traces: Sequence[Trace]) -> list[str]:
    """Strategies of lanes 2 to 4: those of the race shown, else the first of each family."""
    if traces:
        chosen = [trace.request.strategy for trace in traces[1:]]
    else:
        families = {s.family: s.id for s in reversed(known[1:])}
        chosen = sorted(families.values(), key=[s.id for s in known].index)
    return [*chosen, knobs.NONE, knobs.NONE, knobs.NONE][:3]


def _slider(name: str, value: float) -> gr.Slider:
    low, high, _, step = NUMBERS[name]
    return gr.Slider(low, high, value=value, step=step, label=LABELS[name], buttons=[], elem_id=f"{ID}-{name}")
