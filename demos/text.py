"""The text tab: one prompt, four lanes, every causal strategy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from backend.catalog import Catalog
from backend.registry import Strategy, strategies
from backend.trace import Trace
from backend.types import Request
from demos.parts import knobs, page
from demos.parts.examples import EXAMPLES, SEVERAL
from demos.parts.form import LABELS, NUMBERS, PRECISIONS, Form, fitted, form_of, make_requests
from demos.parts.lab import Lab

ID, TITLE = "text", "Text"
PROTOCOL = "causal"
TOGETHER = "temporal_fusion"  # answers several prompts at once


def build(lab: Lab) -> None:
    """Place the tab and connect it."""
    page.build(PAGE, lab, knobs.offered(PROTOCOL), _build_form)


def run(lab: Lab, form: Mapping[str, Any], owner: str) -> Iterator[tuple[Any, ...]]:
    """Race the lanes of a form; see `page.run`."""
    return page.run(PAGE, lab, form, owner)


def _requests(form: Mapping[str, Any], catalog: Catalog) -> list[Request]:
    return fitted(make_requests(form), catalog)


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
                e.kind: gr.Button(e.kind.capitalize(), size="sm", elem_id=f"{ID}-chip-{e.kind}") for e in shown
            }
        mode = first["mode"] if first else "Chat"
        plain["mode"] = gr.Radio(
            ["Chat", "Complete"], value=mode, show_label=False, container=False, elem_id=f"{ID}-mode"
        )
        buttons |= page.build_actions(ID)
    lanes = page.build_lanes(known, menus, traces)
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
        plain["budget"] = page.slider(ID, "budget", defaults["budget"], NUMBERS, LABELS)
        plain["temperature"] = page.slider(ID, "temperature", defaults["temperature"], NUMBERS, LABELS)
        with gr.Accordion("More sampling", open=False):
            for name in ("top_k", "top_p", "min_p", "repetition_penalty"):
                plain[name] = page.slider(ID, name, defaults[name], NUMBERS, LABELS)
        plain |= page.build_seed(defaults["seed"])
    return plain


def _asked(kind: str) -> dict[str, Any]:
    """The form of an example without a recorded race."""
    example = next(e for e in (*EXAMPLES, SEVERAL) if e.kind == kind)
    asked = {"prompt": example.prompt, "mode": "Chat" if example.chat else "Complete"}
    return asked | (_together() if example is SEVERAL else {})


def _together() -> dict[str, Any]:
    """Lanes for several prompts: each schedule of the strategy that answers them together."""
    schedules = strategies()[TOGETHER].knobs["schedule"].choices
    lanes = [{"strategy": TOGETHER, "models": {}, "knobs": {"schedule": s, "concurrency": 3}} for s in schedules]
    return {"lanes": lanes, "budget": 144}


PAGE = page.Page(ID, [e.kind for e in EXAMPLES], _requests, form_of, _asked)
