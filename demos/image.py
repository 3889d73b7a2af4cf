"""The image tab: a described portrait, painted pixel by pixel, in any order, or scale by scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from backend.errors import UserError
from backend.registry import Strategy
from backend.trace import Trace
from demos.parts import knobs, page, painting, tokenizer
from demos.parts.buttons import refused
from demos.parts.films import film
from demos.parts.form import PRECISIONS, Form
from demos.parts.lab import Lab
from demos.parts.painting import CHOICES, EXAMPLES, LABELS, MODES, NUMBERS, PROTOCOLS, RACE, SCHEDULES
from demos.parts.views import brush_box, reading_chips, wipe

ID, TITLE = "image", "Image"
USUAL = ("speculative_jacobi", "confidence", "next_scale")  # lanes 2 to 4 where no race was recorded
KINDS = {
    "causal": "Raster painter",
    "masked": "Masked painter",
    "scale": "Scale painter",
    "coarse": "Coarse-to-fine painter",
    "distilled": "Student",
}


def build(lab: Lab) -> None:
    """Place the tab and connect it."""
    known = knobs.playable(knobs.offered(*PROTOCOLS, modality="image"), lab.catalog(), "image")
    page.build(PAGE, lab, known, _build_form, lambda: wipe(ID), lambda form: tokenizer.build(ID))


def run(lab: Lab, form: Mapping[str, Any], owner: str) -> Iterator[tuple[Any, ...]]:
    """Race the lanes of a form; see `page.run`."""
    return page.run(PAGE, lab, form, owner)


def _build_form(lab: Lab, known: Sequence[Strategy], traces: Sequence[Trace]) -> tuple[Form, dict[str, Any]]:
    """The left column. traces: of the race that is shown, whose settings become the defaults."""
    first = painting.form_of(traces) if traces else None
    menus = knobs.model_menus(lab.catalog(), known, "image")
    plain: dict[str, Any] = {}
    buttons: dict[str, Any] = {}
    with gr.Column(elem_classes=["dl-ask", "dl-group"]):
        text = first["prompt"] if first else EXAMPLES[0].prompt
        plain["prompt"] = gr.Textbox(text, label="Describe a portrait", lines=2, max_lines=5, elem_id=f"{ID}-prompt")
        chips = reading_chips(painting.reading(text), ID)
        with gr.Row(elem_classes="dl-chiprow"):
            buttons["chips"] = {
                e.kind: gr.Button(e.kind.capitalize(), size="sm", elem_id=f"{ID}-chip-{e.kind.replace(' ', '-')}")
                for e in EXAMPLES
            }
        mode = first["mode"] if first else RACE
        plain["mode"] = gr.Dropdown(list(MODES), value=mode, label="Paint", elem_id=f"{ID}-mode")
        buttons |= page.build_actions(ID)
    lanes = page.build_lanes(known, menus, traces, f"{ID}-", USUAL)
    with gr.Column(elem_classes="dl-more-settings"):
        plain |= _build_brush(first)
        plain |= _build_settings(lab, first)
    plain["prompt"].change(painting.reading, plain["prompt"], chips, **page.QUICK, trigger_mode="always_last")
    models = [f"model_{protocol}" for protocol in KINDS if f"model_{protocol}" in plain]
    order = ("prompt", "mode", "brush", *models, "schedule", "precision", *NUMBERS, "lock")
    inputs = {name: plain[name] for name in order}
    texts = ("prompt", "brush", *models)
    return Form(inputs, lanes, knobs.pool_sizes(known), menus, NUMBERS, texts, CHOICES), buttons


def _build_brush(first: Mapping[str, Any] | None) -> dict[str, Any]:
    """A picture of which a part is painted again."""
    with gr.Accordion("Paint over a part of a picture", open=False, elem_classes=["dl-group", "dl-fold"]):
        brush = brush_box(first["brush"] if first else "", ID)
        upload = gr.UploadButton(
            "Upload a picture", file_types=["image"], size="sm", elem_id=f"{ID}-upload", elem_classes="dl-upload"
        )

    def on_upload(path: str) -> str:
        try:
            return painting.loaded(path)
        except UserError as error:
            raise refused(error, "This picture does not fit") from error

    upload.upload(on_upload, upload, brush, **page.TELLING)
    return {"brush": brush}


def _build_settings(lab: Lab, first: Mapping[str, Any] | None) -> dict[str, Any]:
    """Guidance, sampling and seed, painters and precision."""
    defaults = {name: default for name, (_, _, default, _) in NUMBERS.items()}
    defaults |= {name: first[name] for name in NUMBERS} if first else {}
    plain: dict[str, Any] = {}
    with gr.Column(elem_classes="dl-group"):
        for name in ("guidance", "temperature"):
            plain[name] = page.slider(ID, name, defaults[name], NUMBERS, LABELS)
        plain |= page.build_seed(defaults["seed"])
        with gr.Accordion("More sampling", open=False):
            for name in ("top_k", "top_p", "share"):
                plain[name] = page.slider(ID, name, defaults[name], NUMBERS, LABELS)
            plain["schedule"] = gr.Dropdown(
                list(SCHEDULES), value=(first or {}).get("schedule", SCHEDULES[0]), label="Guidance over the picture",
                info="from its first cell to its last, or from map to map", elem_id=f"{ID}-schedule",
            )  # fmt: skip
        with gr.Accordion("Painters and precision", open=False):
            for protocol, label in KINDS.items():
                plain |= _build_painters(lab, protocol, label, first)
            plain["precision"] = gr.Radio(
                list(PRECISIONS), value="auto", label="Precision", info="the same for every lane"
            )
    return plain


def _build_painters(lab: Lab, protocol: str, label: str, first: Mapping[str, Any] | None) -> dict[str, Any]:
    """The menu of painters of a kind, where there are any."""
    entries, name = painting.painters(lab.catalog(), protocol), f"model_{protocol}"
    if not entries:
        return {}
    choices = [(f"{e.title}{'' if e.available else ' (not here)'}", e.id) for e in entries]
    usual = next((e.id for e in entries if e.available), entries[0].id)
    value = (first or {}).get(name, usual)
    return {name: gr.Dropdown(choices, value=value, label=label, allow_custom_value=True, elem_id=f"{ID}-{name}")}


def _asked(kind: str) -> dict[str, Any]:
    """The form of an example without a recorded race."""
    return {"prompt": next(e.prompt for e in EXAMPLES if e.kind == kind)}


PAGE = page.Page(ID, [e.kind for e in EXAMPLES], painting.requests_of, painting.form_of, _asked, unit="cell", film=film)
