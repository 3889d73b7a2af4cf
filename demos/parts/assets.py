"""Where the browser finds our scripts and plotly.js: static files of this server, by relative URL."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import gradio as gr

ROOT = Path(__file__).resolve().parents[2]
UI = ROOT / "assets" / "ui"
TRACES = ROOT / "assets" / "traces"
SCRIPTS = (  # in this order
    "lab.js",
    "svg.js",
    "tokens.js",
    "text_body.js",
    "film.js",
    "picture_body.js",
    "fan.js",
    "fan_strips.js",
    "fan_body.js",
    "lane_board.js",
    "wipe.js",
    "brush.js",
    "scores.js",
    "series.js",
    "panels.js",
    "live_plots.js",
    "inside_trees.js",
    "inside_charts.js",
    "inside_runs.js",
    "inside_special.js",
    "inside.js",
    "gallery.js",
    "backtest.js",
    "predictability.js",
    "events.js",
)
STYLES = ("lab.css", "pictures.css", "fans.css", "inside.css", "gallery.css", "backtest.css", "events.css")


def plotly_js() -> Path:
    """plotly.js of the installed plotly package, so that it fits the plotly that the library uses."""
    spec = find_spec("plotly")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


def url(path: Path) -> str:
    """A relative URL that changes when the file does."""
    stamp = hashlib.sha256(path.read_bytes()).hexdigest()[:10]
    return f"gradio_api/file={path.as_posix()}?v={stamp}"


def serve() -> None:
    """Let the server hand out these files and no others."""
    gr.set_static_paths([UI, plotly_js()])


def head() -> str:
    """Tags for the page: the style sheet and the scripts, in order."""
    scripts = "".join(f'<script src="{url(UI / name)}"></script>' for name in SCRIPTS)
    styles = "".join(f'<link rel="stylesheet" href="{url(UI / name)}">' for name in STYLES)
    return f'{styles}<meta name="color-scheme" content="light dark">{scripts}'


def theme() -> gr.themes.Base:
    """Neutral greys, one accent, system fonts: nothing is fetched."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SF Mono", "Cascadia Code", "Menlo", "monospace"]
    base = gr.themes.Base(
        primary_hue="sky", neutral_hue="zinc", radius_size="lg", spacing_size="md", font=fonts, font_mono=mono
    )
    return base.set(
        body_background_fill="#fafafa",
        body_background_fill_dark="#101012",
        block_background_fill="#ffffff",
        block_background_fill_dark="#18181b",
        block_border_width="1px",
        input_border_width="1px",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        checkbox_label_border_width="1px",
        checkbox_label_border_color="#e4e4e7",
        checkbox_label_border_color_dark="#303036",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_text_size="*text_sm",
        block_title_text_size="*text_sm",
        block_title_text_weight="500",
        border_color_primary="#e4e4e7",
        border_color_primary_dark="#303036",
        body_text_color_subdued="#5f6068",
        body_text_color_subdued_dark="#a1a1aa",
        input_background_fill="#ffffff",
        input_background_fill_dark="#131316",
        input_border_color="#d4d4d8",
        input_border_color_dark="#3a3a42",
        button_primary_background_fill="#18181b",
        button_primary_background_fill_hover="#3f3f46",
        button_primary_background_fill_dark="#f4f4f5",
        button_primary_background_fill_hover_dark="#d4d4d8",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#18181b",
        button_primary_border_color="transparent",
        button_primary_border_color_dark="transparent",
        slider_color="#0072b2",
        slider_color_dark="#56b4e9",
        checkbox_background_color_selected="#0072b2",
        checkbox_background_color_selected_dark="#2b87bd",
        checkbox_border_color_selected="#0072b2",
        checkbox_border_color_selected_dark="#56b4e9",
        input_border_color_focus="#0072b2",
        input_border_color_focus_dark="#56b4e9",
    )
