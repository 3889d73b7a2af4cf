"""Decoding Lab, the app: `python app.py`, then open http://127.0.0.1:7860."""

from __future__ import annotations

import os
from typing import Any

# Threads that wait for the next product spin for a tenth of a millisecond, then sleep. Longer takes the cores from the
# server and from a browser that draws; not at all, and every product of a small model waits for them to wake.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # read when torch is loaded
if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401 - must come before torch there

import gradio as gr

from demos import ASIDE, TABS, api
from demos.parts import assets, header
from demos.parts.lab import Lab


def build(lab: Lab | None = None) -> gr.Blocks:
    """The page with all its events. lab: models and races; of this machine's own catalog if left out."""
    lab = lab or Lab()
    assets.serve()
    with gr.Blocks(title="Decoding Lab", fill_width=True, analytics_enabled=False, delete_cache=(3600, 7200)) as demo:
        header.build(lab)
        with gr.Tabs(elem_id="tabs") as tabs:
            for tab in TABS:
                with gr.Tab(tab.TITLE, id=tab.ID):
                    tab.build(lab)
            for tab in ASIDE:
                with gr.Tab(tab.TITLE, id=tab.ID, alignment="right"):
                    tab.build(lab)
        api.mount(lab)

        def open_tab(request: gr.Request) -> Any:
            asked = request.query_params.get("tab")
            return gr.Tabs(selected=asked) if asked in {tab.ID for tab in (*TABS, *ASIDE)} else gr.skip()

        demo.load(open_tab, None, tabs, queue=False, show_progress="hidden", api_visibility="private")
    return demo.queue(max_size=32)


def options() -> dict[str, Any]:
    """Arguments of `launch`, for the app and its tests alike."""
    return {
        "theme": assets.theme(),
        "head": assets.head(),
        "footer_links": ["api"],
        "show_error": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "run_history": False,
        "max_file_size": "10mb",
    }


if __name__ == "__main__":
    build().launch(**options())
