"""Entropy order: the surest slots first, as many in a call as a bound on their dependence on each other allows.

Ben-Hamu et al. 2025 (2505.24857), entropy-bounded unmasking. Drawing slots each for itself ignores their total
correlation, which is at most the sum of their entropies less the largest. A call fills the slots of least entropy as
long as that stays within the bound, so that easy pictures take few calls; over a run the law is within bound x calls
nats (Kullback-Leibler) of the one with one slot a call. The order follows from the laws alone, never from the tokens
that are about to be drawn, so with bound 0 the law is exact wherever random order is. At temperature 0 every slot is
certain, so one call fills them all.
Show: calls chosen by the picture, not by a slider; entropy of what is still open.
"""

from collections.abc import Iterator
from typing import Annotated

from backend.chance import Ask
from backend.protocols import MaskedSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Guarantee, Knob, Step
from backend.unmasking import bounded, entropies, fill, open_slots


@strategy(paper="2505.24857", guarantee=Guarantee.LOSSLESS, family="unmasking", only={"bound": 0.0})
def entropy_order(
    target: MaskedSession,
    ask: Ask,
    *,
    bound: Annotated[float, Knob(0.0, 64.0, "nats of dependence that one call may ignore; 0: exact")] = 8.0,
) -> Iterator[Step]:
    """Yield one step per call: the slots that were filled.

    figures: `filled`, the share of slots that are known; `risked`, nats of dependence ignored at most; `entropy`, mean
    of the slots that were open, and `threshold`, the largest of those that were filled.
    """
    canvas = list(target.canvas_L)
    slots = open_slots(canvas, ask.left)
    while slots:
        p_LV = target.denoise(canvas)
        h = entropies(p_LV[slots])
        chosen = bounded(h, bound)
        marks = fill(canvas, [slots[i] for i in chosen], p_LV, ask)
        threshold = max(h[i] for i in chosen)
        figures = {
            "filled": 1 - canvas.count(-1) / len(canvas),
            "risked": shorten(sum(h[i] for i in chosen) - threshold),
            "entropy": shorten(sum(h) / len(h)),
            "threshold": shorten(threshold),
        }
        slots = [slot for slot in slots if canvas[slot] < 0]
        note = f"{len(chosen)} slots of at most {threshold:.2f} nats, {len(slots)} to go"
        yield Step(marks, note, tuple(canvas), figures=figures)
