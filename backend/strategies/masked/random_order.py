"""Random order: the slots are filled in a random order, one a call or several at once.

The yardstick of masked models: order-agnostic ancestral sampling, Uria, Murray and Larochelle 2014 (1310.1757), and
the limit of absorbing diffusion for ever smaller steps. With one slot a call the picture has exactly the law of the
model wherever its conditionals are those of one joint law. Those of a trained net are so only nearly, and other
temperatures than 1, filters and guidance undo it; then this is what the model means by its law, the even mixture over
all orders, whose likelihood its training loss bounds. Slots of one call are drawn each for itself, which loses whatever
they have to do with each other.
Show: one slot a call as the reference of every faster order; what is lost as calls go from all slots down to 1.
"""

from collections.abc import Iterator
from typing import Annotated

from backend.chance import Ask
from backend.protocols import MaskedSession
from backend.registry import strategy
from backend.types import Guarantee, Knob, Step
from backend.unmasking import Curve, fill, open_slots, remaining, shuffle


@strategy(paper="1310.1757", guarantee=Guarantee.LOSSLESS, family="unmasking", only={"steps": 0})
def random_order(
    target: MaskedSession,
    ask: Ask,
    *,
    steps: Annotated[int, Knob(0, 256, "calls for the whole canvas; 0: one slot a call, which is exact")] = 0,
    schedule: Annotated[Curve, Knob(None, None, "how the share of masked slots falls over the calls")] = "cosine",
) -> Iterator[Step]:
    """Yield one step per call: the slots that were filled. figures: `filled`, the share of slots that are known."""
    canvas = list(target.canvas_L)
    order = shuffle(open_slots(canvas, ask.left), ask.chance)
    for left in remaining(len(order), steps, schedule):
        now = order[: len(order) - left]
        order = order[len(now) :]
        marks = fill(canvas, now, target.denoise(canvas), ask)
        filled = 1 - canvas.count(-1) / len(canvas)
        yield Step(marks, f"{len(now)} slots, {left} to go", tuple(canvas), figures={"filled": filled})
