"""Closed loop: a linear state space model feeds itself, so that its forecast is the powers of one matrix, not a loop.

Zhang et al. 2023 (2303.09489), SpaceTime: the state behind the series runs on as x' = (A + B K) x, and step h is read
off the h-th power. `doubling` appends to all states so far what they become that many steps later: ceil(log2 H)
products, each with the square of the matrix before. `loop` takes the steps one by one; both give the same curve.
Show: both in their timelines; eigenvalues of A + B K about the unit circle, beyond which forecasts grow without end.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch

from backend.chance import Ask
from backend.protocols import LoopSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Guarantee, Knob, Step
from backend.unrolling import band_marks, level_figures, progress

SHOWN = 48  # eigenvalues

Powers = Literal["doubling", "loop"]


@strategy(paper="2303.09489", guarantee=Guarantee.LOSSLESS, family="linear")
def closed_loop(
    target: LoopSession,
    ask: Ask,
    *,
    powers: Annotated[Powers, Knob(None, None, "all states so far at once, or one step after the other")] = "doubling",
) -> Iterator[Step]:
    """Yield one step per target call: the steps that are known by then. A curve, so `level 0` is 0.5.

    figures of the first step: `root i` and `turn i`, size and angle in half turns of the largest eigenvalues.
    """
    horizon, start = ask.left, 0
    told = {f"root {i}": shorten(z.abs()) for i, z in enumerate(target.poles_Z[:SHOWN], 1)}
    told |= {f"turn {i}": shorten(z.angle() / torch.pi) for i, z in enumerate(target.poles_Z[:SHOWN], 1)}
    told |= level_figures((0.5,))
    fresh_ND = states_HD = target.listen()[None]
    note = f"the past as a state; largest eigenvalue {float(target.poles_Z[0].abs()):.4f}"
    while True:
        marks = band_marks(target.read(fresh_ND)[None], start, horizon)
        progress(ask, len(fresh_ND))
        start = len(states_HD)
        yield Step(marks, note, figures=told)
        if start == horizon:
            return
        told = {}
        if powers == "doubling":
            fresh_ND = target.advance(states_HD[: horizon - start], start)
            note = f"power {start}: steps {start + 1} to {start + len(fresh_ND)}"
        else:
            fresh_ND = target.advance(states_HD[-1:], 1)
            note = f"step {start + 1} of {horizon}"
        states_HD = torch.cat((states_HD, fresh_ND))
