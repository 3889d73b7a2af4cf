"""Halton order: the slots are filled in a fixed order that is spread evenly over the picture, several a call.

Besnier et al. 2025 (2503.17076). Slots of one call are drawn each for itself, which loses least where they have little
to do with each other; those that a Halton sequence hits one after the other lie far apart. No confidence is asked, so
nothing favours the tokens that the model likes best. With one slot a call the law is the model's, as in random order.
Show: the picture coming into focus everywhere at once, against the islands that confidence grows.
"""

from collections.abc import Iterator
from typing import Annotated

from backend.chance import Ask
from backend.protocols import GridSession
from backend.registry import strategy
from backend.types import Guarantee, Knob, Step
from backend.unmasking import Curve, fill, halton, open_slots, remaining


@strategy(paper="2503.17076", guarantee=Guarantee.LOSSLESS, family="unmasking", only={"steps": 0})
def halton_order(
    target: GridSession,
    ask: Ask,
    *,
    steps: Annotated[int, Knob(0, 256, "calls for the whole canvas; 0: one slot a call, which is exact")] = 12,
    schedule: Annotated[Curve, Knob(None, None, "how the share of masked slots falls over the calls")] = "cosine",
) -> Iterator[Step]:
    """Yield one step per call: the slots that were filled. figures: `filled`, the share of slots that are known."""
    canvas = list(target.canvas_L)
    unknown = set(open_slots(canvas, ask.left))
    order = [slot for slot in halton(target.grid) if slot in unknown]
    for left in remaining(len(order), steps, schedule):
        now = order[: len(order) - left]
        order = order[len(now) :]
        marks = fill(canvas, now, target.denoise(canvas), ask)
        filled = 1 - canvas.count(-1) / len(canvas)
        yield Step(marks, f"{len(now)} slots, {left} to go", tuple(canvas), figures={"filled": filled})
