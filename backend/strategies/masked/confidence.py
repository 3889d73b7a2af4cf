"""Confidence: every masked slot is drawn in every call, the most probable draws stay, the rest are masked again.

Chang et al. 2022 (2202.04200), MaskGIT, section 3.2. A draw's confidence is log p(token) + temperature x Gumbel noise;
the temperature falls to 0 over the calls, the share of masked slots follows the schedule. Keeping the draws that turned
out probable favours probable tokens, so the law is not the model's however many calls are made; that is wanted for
looks. Draws of call i at slot s use noise s + i x slots: those of the first call are the ones of other orders.
Show: slots coloured by the call that kept them, the guesses around them changing; 8 to 12 calls against one a slot.
"""

import math
from collections.abc import Iterator
from typing import Annotated

from backend.chance import Ask
from backend.protocols import MaskedSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Fate, Guarantee, Knob, Mark, Step
from backend.unmasking import Curve, chances, choose, draw, open_slots, remaining


@strategy(paper="2202.04200", guarantee=Guarantee.LOSSY, family="unmasking")
def confidence(
    target: MaskedSession,
    ask: Ask,
    *,
    steps: Annotated[int, Knob(1, 256, "calls for the whole canvas")] = 12,
    schedule: Annotated[Curve, Knob(None, None, "how the share of masked slots falls over the calls")] = "cosine",
    temperature: Annotated[float, Knob(0.0, 10.0, "Gumbel noise on the confidence at first; falls to 0")] = 1.0,
) -> Iterator[Step]:
    """Yield one step per call: the draws that stay, and those that are masked again as guesses.

    figures: `filled`, the share of slots that are known; `threshold`, p of the least probable draw that stays, and
    `confidence`, the mean p of all draws; `heat`, the temperature of the noise.
    """
    canvas = list(target.canvas_L)
    slots = open_slots(canvas, ask.left)
    plan = remaining(len(slots), steps, schedule)
    for i, left in enumerate(plan):
        p_NV = target.denoise(canvas)[slots]
        tokens = draw(p_NV, [slot + i * len(canvas) for slot in slots], ask.chance)
        p = chances(p_NV, tokens)
        heat = temperature * (1 - (i + 1) / len(plan))
        stay = sorted(choose([math.log(x) for x in p], len(slots) - left, heat, ask.chance))
        fates = [Fate.GUESS] * len(slots)
        for n, token in zip(stay, ask.take([tokens[n] for n in stay]), strict=True):
            canvas[slots[n]] = token
            fates[n] = Fate.BONUS
        marks = tuple(Mark(s, t, f, shorten(x)) for s, t, f, x in zip(slots, tokens, fates, p, strict=True))
        figures = {
            "filled": 1 - canvas.count(-1) / len(canvas),
            "threshold": shorten(min(p[n] for n in stay)),
            "confidence": shorten(sum(p) / len(p)),
            "heat": shorten(heat),
        }
        slots = [slot for slot in slots if canvas[slot] < 0]
        note = f"{len(stay)} draws of p {figures['threshold']:.2g} or more stay, {left} are masked again"
        yield Step(marks, note, tuple(canvas), figures=figures)
