"""Collaborative decoding: the large model draws the first scales, a small one the last, where most tokens are.

Chen et al. 2024 (2411.17787), CoDe. Structure is settled on small maps, where a large model is cheap; the refiner reads
all of them in its first call, then goes on alone. The law is that of the target on the first scales times that of the
refiner on the rest given those; there is no bound on its distance from the target's. Noise belongs to slots, so where
both models are the same the picture is the one of next scale.
Show: scales coloured by the model that drew them; one seed with the hand-over after 8, 6 and 4 scales.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from backend.chance import Ask
from backend.protocols import ScaleSession
from backend.registry import strategy
from backend.types import Guarantee, Knob, Step
from backend.unmasking import check_same_sizes, draw, filled, mean_entropy, next_slots, scale_figures


@strategy(paper="2411.17787", guarantee=Guarantee.LOSSY, family="next scale")
def collaborative(
    target: ScaleSession,
    refiner: ScaleSession,
    ask: Ask,
    *,
    drafts: Annotated[int, Knob(0, 16, "scales that the target draws before the refiner takes over")] = 6,
) -> Iterator[Step]:
    """Yield one step a scale. figures: see `scale_figures`; `refined` is 1 where the refiner drew the scale.

    Raises UserError where the two models write different scales.
    """
    check_same_sizes(target, refiner)
    while slots := next_slots(target, ask.left):
        refined = target.at >= drafts
        p_NV = (refiner if refined else target).score()
        figures = {**scale_figures(target), "refined": float(refined)}
        tokens = ask.take(draw(p_NV, slots, ask.chance))
        target.commit(tokens)
        refiner.commit(tokens)
        author = "refiner" if refined else "target"
        note = f"scale {target.at} of {len(target.sizes)}: {len(tokens)} slots by the {author}"
        yield Step(filled(slots, tokens, p_NV), note, figures=figures, measure=partial(mean_entropy, p_NV))
