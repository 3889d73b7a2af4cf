"""The custom views, all drawn in the browser (assets/ui) from snapshots of `demos.parts.snapshot`.

Their templates are static and the scripts write text nodes only, so no text of a model or a visitor becomes markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from demos.parts.assets import plotly_js, url

STATIC: dict[str, Any] = {"html_template": "<div></div>", "apply_default_css": False}


def lane_board(value: dict[str, Any] | None, race: str, unit: str = "token") -> gr.HTML:
    """The lanes of a race side by side, with token card, legend and replay.

    race: name that views of a tab share. unit: what its lanes write, one of it.
    """
    return gr.HTML(value, js_on_load=_mount("mountBoard"), elem_id=f"{race}-board", race=race, unit=unit, **STATIC)


def look_inside(race: str) -> gr.HTML:
    """One lane and one step of that race from near: draft tree, acceptance by depth, calls in time, figures."""
    return gr.HTML(js_on_load=_mount("mountInside"), elem_id=f"{race}-inside", race=race, **STATIC)


def live_plots(race: str) -> gr.HTML:
    """Progress, acceptance and cost of the race that the board of the same name shows; nothing is sent twice."""
    plotly = url(plotly_js())
    return gr.HTML(js_on_load=_mount("mountPlots"), elem_id=f"{race}-plots", race=race, plotly=plotly, **STATIC)


def wipe(race: str) -> gr.HTML:
    """Two pictures of that race in one frame, with a divider between them."""
    return gr.HTML(js_on_load=_mount("mountWipe"), elem_id=f"{race}-wipe", race=race, **STATIC)


def reading_chips(value: dict[str, Any], name: str) -> gr.HTML:
    """What a prompt was understood to say; see `subjects.reading`."""
    return gr.HTML(value, js_on_load=_mount("mountReading"), elem_id=f"{name}-reading", **STATIC)


def brush_box(value: str, race: str) -> gr.HTML:
    """A picture and a mask that is painted on it with a brush; its value is what `brush.brushed` reads."""
    return gr.HTML(value, js_on_load=_mount("mountBrush"), elem_id=f"{race}-brush", race=race, **STATIC)


def series_card(value: dict[str, Any], name: str) -> gr.HTML:
    """The series that is about to be forecast; see `forecast_form.reading`."""
    return gr.HTML(value, js_on_load=_mount("mountSeries"), elem_id=f"{name}-series", **STATIC)


def scores_table(race: str) -> gr.HTML:
    """Speed and accuracy of the lanes of that race."""
    return gr.HTML(js_on_load=_mount("mountScores"), elem_id=f"{race}-scores", race=race, **STATIC)


def backtest_board(value: dict[str, Any] | None, name: str) -> gr.HTML:
    """Scores of lanes over origins, from snapshots of `demos.parts.backtest`."""
    return gr.HTML(
        value, js_on_load=_mount("mountBacktest"), elem_id=f"{name}-backtest", plotly=url(plotly_js()), **STATIC
    )


def predictability_board(value: dict[str, Any] | None, name: str) -> gr.HTML:
    """Acceptance, sweeps and error against Lyapunov exponents, from `backend.predictability`."""
    return gr.HTML(
        value, js_on_load=_mount("mountPredictability"), elem_id=f"{name}-chaos", plotly=url(plotly_js()), **STATIC
    )


def events_board(value: dict[str, Any] | None, name: str) -> gr.HTML:
    """A point process continued in two ways, from snapshots of `demos.parts.events`."""
    return gr.HTML(value, js_on_load=_mount("mountEvents"), elem_id=f"{name}-events", plotly=url(plotly_js()), **STATIC)


def gallery_table(value: dict[str, Any] | None, name: str, others: Sequence[dict[str, Any]] = ()) -> gr.HTML:
    """Rows of strategies that can be sorted, from snapshots of `demos.parts.parade`.

    others: what it can be switched to, see `demos.parts.measured`.
    """
    return gr.HTML(value, js_on_load=_mount("mountGallery"), elem_id=f"{name}-table", others=list(others), **STATIC)


def _mount(function: str) -> str:
    """Script that starts a view as soon as the scripts of the page are there, which a slow network may delay."""
    return (
        f"const go = () => window.DecodingLab?.{function} ? window.DecodingLab.{function}(element, props, watch)"
        " : setTimeout(go, 30); go();"
    )
