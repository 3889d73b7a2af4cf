"""The image tab: a described portrait, painted pixel by pixel, in any order, or scale by scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from backend.codecs.styles import PIXEL, STYLES
from backend.errors import UserError
from backend.registry import Strategy
from backend.trace import Trace
from demos.parts import brush, knobs, page, painting, subjects, tokenizer
from demos.parts.buttons import refused
from demos.parts.films import film
from demos.parts.form import PRECISIONS, Form
from demos.parts.lab import Lab
from demos.parts.painting import CHOICES, LABELS, MODES, NUMBERS, RACE, SCHEDULES
from demos.parts.subjects import EXAMPLES, LOOKS, PROTOCOLS, Offer, StyledForm
from demos.parts.views import brush_box, reading_chips, wipe

ID, TITLE = "image", "Image"
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
    offers = subjects.offers(lab.catalog(), known)
    offer, first = offers[PIXEL], painting.form_of(traces) if traces else None
    first = first if first and first["style"] == offer.style else None
    plain, buttons = _build_ask(first, offers, offer)
    by = (plain["style"], {style: each.menus for style, each in offers.items()})
    lanes = page.build_lanes(known, offer.menus, traces, f"{ID}-", LOOKS[PIXEL].usual, by=by)
    with gr.Column(elem_classes="dl-more-settings"):
        plain |= _build_brush(first, plain["style"])
        plain |= _build_settings(offer, first)
    models = [f"model_{protocol}" for protocol in KINDS if f"model_{protocol}" in plain]
    order = ("prompt", "style", "mode", "brush", *models, "schedule", "precision", *NUMBERS, "lock")
    inputs = {name: plain[name] for name in order}
    texts = ("prompt", "brush", *models)
    sizes = knobs.pool_sizes(known)
    form = StyledForm(inputs, lanes, sizes, offer.menus, NUMBERS, texts, CHOICES, offers, buttons["chips"])
    buttons["switch"] = (plain["style"], lambda chosen: _switched(offers[chosen]))
    return form, buttons


def _build_ask(
    first: Mapping[str, Any] | None, offers: Mapping[str, Offer], offer: Offer
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Style, prompt, what was understood of it, examples and the buttons."""
    plain: dict[str, Any] = {}
    buttons: dict[str, Any] = {}
    words = LOOKS[offer.style].words
    with gr.Column(elem_classes=["dl-ask", "dl-group"]):
        styles = [(STYLES[style].title, style) for style in offers]
        plain["style"] = gr.Radio(
            styles, value=offer.style, label="Style", visible=len(offers) > 1, elem_id=f"{ID}-style"
        )
        text = first["prompt"] if first else next(e.prompt for e in EXAMPLES if e.style == offer.style)
        plain["prompt"] = gr.Textbox(
            text, label=f"Describe a {words.name}", placeholder=words.example, lines=2, max_lines=5,
            elem_id=f"{ID}-prompt",
        )  # fmt: skip
        chips = reading_chips(subjects.reading(text, offer.style), ID)
        with gr.Row(elem_classes="dl-chiprow"):
            buttons["chips"] = {e.kind: _build_chip(e, offer) for e in EXAMPLES if e.style in offers}
        mode = first["mode"] if first else RACE
        plain["mode"] = gr.Dropdown(list(MODES), value=mode, label="Paint", elem_id=f"{ID}-mode")
        buttons |= page.build_actions(ID)
    asked = [plain["prompt"], plain["style"]]
    gr.on([c.change for c in asked], subjects.reading, asked, chips, **page.QUICK, trigger_mode="always_last")
    return plain, buttons


def _build_chip(example: subjects.Portrait, offer: Offer) -> gr.Button:
    """An example's button, which only its style shows."""
    name = f"{ID}-chip-{example.kind.replace(' ', '-')}"
    return gr.Button(example.kind.capitalize(), size="sm", visible=example.style == offer.style, elem_id=name)


def _switched(offer: Offer) -> tuple[str, dict[str, Any]]:
    """What another style brings: its first example, its usual lanes and painters, and an empty brush."""
    kind = next(e.kind for e in EXAMPLES if e.style == offer.style)
    return kind, {"lanes": offer.lanes, "brush": brush.emptied(), "mode": RACE, **offer.models}


def _build_brush(first: Mapping[str, Any] | None, style: gr.Radio) -> dict[str, Any]:
    """A picture of which a part is painted again."""
    with gr.Accordion("Paint over a part of a picture", open=False, elem_classes=["dl-group", "dl-fold"]):
        box = brush_box(first["brush"] if first else "", ID)
        upload = gr.UploadButton(
            "Upload a picture", file_types=["image"], size="sm", elem_id=f"{ID}-upload", elem_classes="dl-upload"
        )

    def on_upload(path: str, chosen: str) -> str:
        try:
            return brush.loaded(path, chosen)
        except UserError as error:
            raise refused(error, "This picture does not fit") from error

    upload.upload(on_upload, [upload, style], box, **page.TELLING)
    return {"brush": box}


def _build_settings(offer: Offer, first: Mapping[str, Any] | None) -> dict[str, Any]:
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
                plain |= _build_painters(offer, protocol, label, first)
            plain["precision"] = gr.Radio(
                list(PRECISIONS), value="auto", label="Precision", info="the same for every lane"
            )
    return plain


def _build_painters(offer: Offer, protocol: str, label: str, first: Mapping[str, Any] | None) -> dict[str, Any]:
    """The menu of painters of a kind, where there are any."""
    entries, name = offer.painters[protocol], f"model_{protocol}"
    if not entries:
        return {}
    value = (first or {}).get(name, subjects.usual(entries))
    choices = subjects.painter_choices(entries)
    return {name: gr.Dropdown(choices, value=value, label=label, allow_custom_value=True, elem_id=f"{ID}-{name}")}


def _asked(kind: str) -> dict[str, Any]:
    """The form of an example without a recorded race."""
    example = next(e for e in EXAMPLES if e.kind == kind)
    return {"prompt": example.prompt, "style": example.style}


PAGE = page.Page(ID, [e.kind for e in EXAMPLES], painting.requests_of, painting.form_of, _asked, unit="cell", film=film)
