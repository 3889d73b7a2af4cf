"""Discrete diffusion: ancestral sampling of the process that masks tokens, each masked slot shown by chance of its own.

Austin et al. 2021 (2107.03006), absorbing states; on picture tokens VQ-DDM, Hu et al. 2021 (2112.01799), whose noise is
uniform instead. With a(t) the share of slots that are known at time t, a masked slot is shown between t and s with
probability (a(s) - a(t)) / (1 - a(t)), and masked again never; or with probability r = remask x min(1, (1 - a(s)) /
a(t)), Wang et al. 2025 (2503.00307), and then shown with (a(s) - (1 - r) a(t)) / (1 - a(t)), which leaves a(s) as it
is. How many slots a call fills is random. A step that shows none needs no call, and steps go to random order with one
slot a call as there are more of them; its law is then the model's, with any finite number only nearly.
The draw number i of slot s uses noise s + i x slots.
Show: slots that come and go, against confidence, where they stay; changes per step; calls saved by empty steps.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from backend.chance import Ask
from backend.protocols import MaskedSession
from backend.registry import strategy
from backend.types import Fate, Guarantee, Knob, Mark, Step
from backend.unmasking import Curve, draw, filled, masked_share, open_slots


@strategy(paper="2107.03006", guarantee=Guarantee.LOSSY, family="unmasking")
def discrete_diffusion(
    target: MaskedSession,
    ask: Ask,
    *,
    steps: Annotated[int, Knob(1, 256, "steps of the process; one that shows nothing makes no call")] = 32,
    schedule: Annotated[Curve, Knob(None, None, "how the share of masked slots falls over the steps")] = "cosine",
    remask: Annotated[float, Knob(0.0, 1.0, "how many known slots are masked again, of the most possible")] = 0.0,
) -> Iterator[Step]:
    """Yield a step wherever something changed. figures: `time`, from 1 to 0; `filled`, the share of known slots."""
    canvas = list(target.canvas_L)
    slots = open_slots(canvas, ask.left)
    draws: Counter[int] = Counter()
    for i in range(1, steps + 1):
        known, after = (1 - masked_share(schedule, n / steps) for n in (i - 1, i))
        back = remask * min(1.0, (1 - after) / known) if known else 0.0
        show = (after - (1 - back) * known) / (1 - known)
        gone = [slot for slot in slots if back and canvas[slot] >= 0 and ask.chance.flip(back)]
        now = [slot for slot in slots if canvas[slot] < 0 and ask.chance.flip(show)]
        marks = tuple(Mark(slot, None, Fate.ERASED) for slot in gone)
        if now:
            p_NV = target.denoise(canvas)[now]
            tokens = draw(p_NV, [slot + draws[slot] * len(canvas) for slot in now], ask.chance)
            draws.update(now)
            marks += filled(now, tokens, p_NV)
            for slot, token in zip(now, tokens, strict=True):
                canvas[slot] = token
        for slot in gone:
            canvas[slot] = -1
        if i == steps:
            ask.take([canvas[slot] for slot in slots])
        if marks:
            left = sum(canvas[slot] < 0 for slot in slots)
            note = f"{len(now)} slots shown, {len(gone)} masked again, {left} to go"
            figures = {"time": 1 - i / steps, "filled": 1 - canvas.count(-1) / len(canvas)}
            yield Step(marks, note, tuple(canvas), figures=figures)
