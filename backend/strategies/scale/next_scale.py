"""Next scale: one call a scale draws a whole token map, from one token to the full grid.

Tian et al. 2024 (2404.02905), VAR, figure 4. The tokens of a map are independent given all coarser maps; that is the
model itself and no approximation, so the picture has exactly its law. Each slot's draw uses the noise of that slot.
Show: a strip of the picture after every scale; tokens a scale, of which the last two have most.
"""

from collections.abc import Iterator
from functools import partial

from backend.chance import Ask
from backend.protocols import ScaleSession
from backend.registry import strategy
from backend.types import Guarantee, Step
from backend.unmasking import draw, filled, mean_entropy, next_slots, scale_figures


@strategy(paper="2404.02905", guarantee=Guarantee.LOSSLESS, family="next scale")
def next_scale(target: ScaleSession, ask: Ask) -> Iterator[Step]:
    """Yield one step a scale. It stops in front of one that the budget cannot hold; figures: see `scale_figures`."""
    while slots := next_slots(target, ask.left):
        p_NV = target.score()
        figures = scale_figures(target)
        tokens = ask.take(draw(p_NV, slots, ask.chance))
        target.commit(tokens)
        note = f"scale {target.at} of {len(target.sizes)}: {len(tokens)} slots"
        yield Step(filled(slots, tokens, p_NV), note, figures=figures, measure=partial(mean_entropy, p_NV))
