"""Buttons that start something long: how Run and Stop are meanwhile, and what is said where it cannot start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gradio as gr

from backend.errors import UserError


def streamed(views: Iterable[Any], over: Callable[[], bool]) -> Iterator[tuple[Any, Any, Any]]:
    """Every view with Run and Stop: Run is off and Stop is on from the first to the last. over: whether it is that."""
    first = True
    for view in views:
        if over():
            yield view, gr.Button(interactive=True), gr.Button(interactive=False)
        elif first:
            yield view, gr.Button(interactive=False), gr.Button(interactive=True)
        else:
            yield view, gr.skip(), gr.skip()
        first = False


def refused(error: UserError, title: str = "This cannot run yet") -> gr.Error:
    """What the visitor is told, to be raised."""
    return gr.Error(str(error), duration=12, print_exception=False, title=title)
