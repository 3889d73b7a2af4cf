"""Masked scale: after the first draw of a scale its least probable tokens are masked and drawn again, in a few calls.

Kumbong et al. 2025 (2506.04421), HMAR. The first call of a scale draws all its slots each for itself; the `keep` share
with the most probable draws stays. The others are masked and drawn given those, the most probable of a call staying
each time. That mends what the independent draws had to do with each other, and favours probable tokens, so the law is
another; with one call a scale it is next scale. Draw i of slot s uses noise s + i x slots of all scales.
Show: each scale after its first draw and after its masked calls; the slots that were drawn again.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from backend.chance import Ask
from backend.protocols import RedrawingSession
from backend.registry import strategy
from backend.types import Fate, Guarantee, Knob, Mark, Step
from backend.unmasking import chances, choose, draw, filled, mean_entropy, next_slots, remaining, scale_figures


@strategy(paper="2506.04421", guarantee=Guarantee.LOSSLESS, family="next scale", only={"passes": 1})
def masked_scale(
    target: RedrawingSession,
    ask: Ask,
    *,
    passes: Annotated[int, Knob(1, 8, "calls a scale, the first draw included; 1: next scale, which is exact")] = 3,
    keep: Annotated[float, Knob(0.0, 1.0, "share of a scale's first draws that stays")] = 0.5,
) -> Iterator[Step]:
    """Yield one step per call: the first draw of a scale, then the slots that are masked and drawn again.

    figures: see `scale_figures`; `pass` from 1; `redrawn`, the slots that this call drew again.
    """
    stride = sum(height * width for height, width in target.sizes)
    while slots := next_slots(target, ask.left):
        number, again = target.at + 1, int((1 - keep) * len(slots))
        plan = [again, *remaining(again, passes - 1, "linear")] if passes > 1 and again else [0]
        tokens = [-1] * len(slots)
        for i, left in enumerate(plan):
            todo = [n for n, token in enumerate(tokens) if token < 0]
            p_NV = (target.redraw(tokens) if i else target.score())[todo]
            figures = {**scale_figures(target), "pass": i + 1.0, "redrawn": float(len(todo) if i else 0)}
            drawn = draw(p_NV, [slots[n] + i * stride for n in todo], ask.chance)
            for j in choose(chances(p_NV, drawn), len(todo) - left, 0.0, ask.chance):
                tokens[todo[j]] = drawn[j]
            if not left:
                target.commit(ask.take(tokens))
            erased = tuple(Mark(slots[n], None, Fate.ERASED) for n in todo) if i else ()
            marks = filled([slots[n] for n in todo], drawn, p_NV, Fate.FIXED if i else Fate.BONUS)
            note = f"scale {number}, pass {i + 1} of {len(plan)}: {len(todo)} slots, {left} to be drawn again"
            yield Step(erased + marks, note, figures=figures, measure=partial(mean_entropy, p_NV))
