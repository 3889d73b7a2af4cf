"""The page of all strategies: one prompt through each of those of text in turn, sorted by time, calls or guarantee.

What the benchmarks of pictures and forecasts measured is shown in the same table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr

from backend.catalog import ASSETS
from backend.errors import UserError
from demos.parts import knobs, measured
from demos.parts.buttons import refused, streamed
from demos.parts.examples import EXAMPLES
from demos.parts.form import BASELINE, LABELS, NUMBERS, PRECISIONS, make_requests
from demos.parts.lab import DEVICE, WAITING_ROOM, Lab
from demos.parts.parade import Parade, Rows, known_model, recorded_rows
from demos.parts.views import gallery_table

ID, TITLE = "gallery", "All strategies"
PROTOCOL = "causal"
BUDGET = 48
RECORDED = ASSETS / "bench" / "text.json"


def build(lab: Lab) -> None:
    """Place the tab and connect it."""
    with gr.Row(elem_classes="dl-page", equal_height=False):
        with gr.Column(scale=1, min_width=330, elem_classes="dl-side"):
            plain, buttons = _build_form(lab)
        with gr.Column(scale=4, min_width=320, elem_classes="dl-stage"):
            table = gallery_table(recorded_rows(RECORDED), ID, measured.others())
    _connect(lab, plain, buttons, table)


def _build_form(lab: Lab) -> tuple[dict[str, Any], dict[str, Any]]:
    """The left column: the inputs by name, and the buttons."""
    entries = knobs.targets(lab.catalog(), knobs.offered(PROTOCOL))
    plain: dict[str, Any] = {}
    buttons: dict[str, Any] = {}
    with gr.Column(elem_classes=["dl-ask", "dl-group"]):
        plain["prompt"] = gr.Textbox(EXAMPLES[0].prompt, label="Prompt", lines=4, max_lines=8, elem_id=f"{ID}-prompt")
        with gr.Row(elem_classes="dl-chiprow"):
            buttons["chips"] = [gr.Button(e.kind.capitalize(), size="sm") for e in EXAMPLES]
        plain["mode"] = gr.Radio(["Chat", "Complete"], value="Chat", show_label=False, container=False)
        with gr.Row(elem_classes="dl-actions"):
            buttons["run"] = gr.Button("Run all", variant="primary", elem_id=f"{ID}-run")
            buttons["stop"] = gr.Button("Stop", variant="stop", interactive=False, elem_id=f"{ID}-stop")
    with gr.Column(elem_classes=["dl-group", "dl-more-settings"]):
        plain["model"] = gr.Dropdown(
            [(f"{e.title}{'' if e.available else ' (not here)'}", e.id) for e in entries],
            value=known_model(lab.catalog(), ""),
            label="Model",
            info="or type hub/<owner>/<name>",
            allow_custom_value=True,
            elem_id=f"{ID}-model",
        )
        plain["precision"] = gr.Radio(list(PRECISIONS), value="auto", label="Precision", info="the same for every row")
        for name, default in (("budget", BUDGET), ("temperature", 0.0)):
            low, high, _, step = NUMBERS[name]
            label = LABELS[name].replace("a lane", "a strategy")
            plain[name] = gr.Slider(
                low, high, value=default, step=step, label=label, buttons=[], elem_id=f"{ID}-{name}"
            )
        plain["seed"] = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
    return plain, buttons


def _connect(lab: Lab, plain: dict[str, Any], buttons: dict[str, Any], table: gr.HTML) -> None:
    """Events. Only compute waits for the device."""
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def on_run(request: gr.Request, *values: Any) -> Iterator[Any]:
        yield from run(lab, dict(zip(plain, values, strict=True)), request.session_hash or "")

    buttons["run"].click(
        on_run, list(plain.values()), [table, buttons["run"], buttons["stop"]],
        concurrency_id=DEVICE, concurrency_limit=WAITING_ROOM, show_progress="hidden", api_visibility="private",
    )  # fmt: skip

    def on_stop(request: gr.Request) -> Any:
        Parade.stop(lab, request.session_hash or "")
        return gr.Button(interactive=False)

    buttons["stop"].click(on_stop, None, buttons["stop"], **quick)
    for example, chip in zip(EXAMPLES, buttons["chips"], strict=True):
        values = (example.prompt, "Chat" if example.chat else "Complete")
        chip.click(lambda values=values: values, None, [plain["prompt"], plain["mode"]], **quick)


def run(lab: Lab, form: Mapping[str, Any], owner: str) -> Iterator[tuple[Any, ...]]:
    """One prompt through all strategies: values for table, Run and Stop. Closing this frees the device."""
    known = [s.id for s in knobs.offered(PROTOCOL) if s.id != BASELINE]
    numbers = {name: default for name, (_, _, default, _) in NUMBERS.items()}
    settings = {**numbers, **form, "model": known_model(lab.catalog(), form["model"] or ""), "lock": True}
    settings["lanes"] = [{"strategy": s, "models": {}, "knobs": {}} for s in known]
    try:
        parade = Parade(lab, make_requests(settings), form["precision"], owner)
        lab.catalog(form["precision"])
    except UserError as error:
        raise refused(error) from error
    rows = Rows(parade.id)
    yield from streamed((rows.take(parade) for _ in parade.watch()), lambda: parade.over)
