"""The line at the top: what this is, and what it runs on."""

from __future__ import annotations

import html

import gradio as gr

from demos.parts.lab import Lab, offline
from demos.parts.lent import is_lent

SENTENCE = "Every way of decoding a generative model, side by side, on real weights."


def build(lab: Lab) -> None:
    """Place the header."""
    gr.HTML(render(lab), elem_id="dl-header", apply_default_css=False)


def render(lab: Lab) -> str:
    """The header as markup; everything in it comes from this machine, and is escaped."""
    environment = lab.catalog().environment()
    sources = sorted({entry.source for entry in lab.catalog().entries() if entry.available})
    device = str(environment["device"])
    on_cpu = device == "cpu"
    where = ("CPU" if on_cpu else device, f"{environment['threads']} threads" if on_cpu else str(environment["dtype"]))
    badges = [
        ("ZeroGPU", "lent for each race") if is_lent() else where,
        ("weights", " + ".join(sources) or "none yet"),
        ("network", "off" if offline() else "only for hub models"),
    ]
    chips = "".join(f'<span class="dl-badge">{_safe(name)} <b>{_safe(value)}</b></span>' for name, value in badges)
    logo = '<span class="dl-logo" aria-hidden="true"><i></i><i></i><i></i></span>'
    return (
        f'<div class="dl-header"><h1>{logo}Decoding Lab</h1><p>{SENTENCE}</p><div class="dl-badges">{chips}</div></div>'
    )


def _safe(text: str) -> str:
    return html.escape(text).replace("$", "&#36;").replace("{", "&#123;").replace("`", "&#96;").replace("\\", "&#92;")
