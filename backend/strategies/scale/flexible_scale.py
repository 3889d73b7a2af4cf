"""Flexible scale: next scale with fewer maps than the model offers, chosen before the first.

Jiao et al. 2025 (2502.20313), FlexVAR. Its maps are not residuals: each is the whole picture at its size, so maps can
be left out and the last one still is the picture. Fewer maps are fewer calls and another law, that of the model with
those sizes; with all of them it is next scale.
Show: one model with three numbers of steps side by side; every map on the way is a picture of its own.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from backend.chance import Ask
from backend.protocols import FlexibleSession
from backend.registry import strategy
from backend.types import Guarantee, Knob, Step
from backend.unmasking import draw, filled, mean_entropy, next_slots, scale_figures, spread


@strategy(paper="2502.20313", guarantee=Guarantee.LOSSLESS, family="next scale", only={"scales": 0})
def flexible_scale(
    target: FlexibleSession,
    ask: Ask,
    *,
    scales: Annotated[int, Knob(0, 16, "maps to write, spread evenly over the model's sizes; 0: all")] = 0,
) -> Iterator[Step]:
    """Yield one step a map. figures: see `scale_figures`. Raises UserError for more maps than the model has sizes."""
    target.plan(spread(target.sizes, scales))
    while slots := next_slots(target, ask.left):
        p_NV = target.score()
        figures = scale_figures(target)
        tokens = ask.take(draw(p_NV, slots, ask.chance))
        target.commit(tokens)
        height, width = target.sizes[target.at - 1]
        note = f"map {target.at} of {len(target.sizes)}: {height} x {width}"
        yield Step(filled(slots, tokens, p_NV), note, figures=figures, measure=partial(mean_entropy, p_NV))
