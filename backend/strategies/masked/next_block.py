"""Next block: the canvas is filled block by block, in order, and all slots of a block in one or a few calls.

Ren et al. 2025 (2502.07737), next block prediction, with a masked model in place of their block-causal one: what lies
behind the block is masked, so rows of the grid are written as text is. With more passes the surest slots of a block,
those of least entropy, go first. With blocks of one slot this is the raster order of a plain model, one slot a call,
and the law is exact wherever random order is; so it is with as many passes as a block has slots.
Show: rows appearing from the top; streaks where the slots of a row were drawn each for itself.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Annotated

from backend.chance import Ask
from backend.protocols import MaskedSession
from backend.registry import strategy
from backend.types import Guarantee, Knob, Step
from backend.unmasking import choose, entropies, fill, open_slots, remaining


@strategy(paper="2502.07737", guarantee=Guarantee.LOSSLESS, family="unmasking", only={"block": 1})
def next_block(
    target: MaskedSession,
    ask: Ask,
    *,
    block: Annotated[int, Knob(1, 256, "slots of a block, a row of a 16 x 16 picture by default; 1: exact")] = 16,
    passes: Annotated[int, Knob(1, 16, "calls for a block")] = 1,
) -> Iterator[Step]:
    """Yield one step per call: slots that were filled. figures: `block`, from 1; `filled`, the share of known slots."""
    canvas = list(target.canvas_L)
    for number, group in groupby(open_slots(canvas, ask.left), key=lambda slot: slot // block):
        todo = list(group)
        for left in remaining(len(todo), passes, "linear"):
            p_LV = target.denoise(canvas)
            surest = choose([-h for h in entropies(p_LV[todo])], len(todo) - left, 0.0, ask.chance)
            now = sorted(todo[i] for i in surest)
            marks = fill(canvas, now, p_LV, ask)
            todo = [slot for slot in todo if canvas[slot] < 0]
            figures = {"block": number + 1.0, "filled": 1 - canvas.count(-1) / len(canvas)}
            note = f"block {number + 1}: {len(now)} slots, {left} of it to go"
            yield Step(marks, note, tuple(canvas), figures=figures)
