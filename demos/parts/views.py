"""The two custom views, both drawn in the browser (assets/ui) from snapshots of `demos.parts.snapshot`.

Their templates are static and the scripts write text nodes only, so no text of a model or a visitor becomes markup.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from demos.parts.assets import plotly_js, url

STATIC: dict[str, Any] = {"html_template": "<div></div>", "apply_default_css": False}


def lane_board(value: dict[str, Any] | None, race: str) -> gr.HTML:
    """The lanes of a race side by side, with token card, legend and replay. race: name that views of a tab share."""
    start = "window.DecodingLab.mountBoard(element, props, watch)"
    return gr.HTML(value, js_on_load=start, elem_id=f"{race}-board", race=race, **STATIC)


def live_plots(race: str) -> gr.HTML:
    """Progress, acceptance and cost of the race that the board of the same name shows; nothing is sent twice."""
    start = "window.DecodingLab.mountPlots(element, props)"
    return gr.HTML(js_on_load=start, elem_id=f"{race}-plots", race=race, plotly=url(plotly_js()), **STATIC)
