"""Any horizon: one model writes segment after segment, each the sum of what four views of the past add, coarse to fine.

Liu et al. 2024 (2402.16516), GPHT: stages read the window pooled by 8, 4, 2 and 1, each what the ones before it have
left. A written segment is fed back as if it had been observed, so that any horizon takes ceil(H / P) calls of the same
weights. The window's location and scale are taken anew after every segment: nothing that a call computed still holds in
the next one, and no guess can be judged beside another. It is its own reference, a curve without a law.
Show: what each stage adds, stacked; the calls of 48, 96 and 192 steps.
"""

from collections.abc import Iterator

import torch

from backend.chance import Ask
from backend.protocols import SegmentSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Guarantee, Step
from backend.unrolling import band_marks, level_figures, progress


@strategy(paper="2402.16516", guarantee=Guarantee.LOSSY, family="feedback")
def any_horizon(target: SegmentSession, ask: Ask) -> Iterator[Step]:
    """Yield one step per target call: a segment of the curve, so `level 0` is 0.5.

    figures: `part k i`, what stage k adds to step i of the segment, in the order of the stages; they add up to it.
    """
    horizon, start = ask.left, 0
    written_H = torch.empty(0, dtype=torch.float64)
    while start < horizon:
        parts_KP = target.follow(written_H).cpu().double()
        written_H = torch.cat((written_H, parts_KP.sum(0)))
        length = min(target.segment, horizon - start)
        marks = band_marks(parts_KP.sum(0)[None], start, horizon)
        progress(ask, length)
        added = {
            f"part {k} {start + i}": shorten(x)
            for k, part_P in enumerate(parts_KP[:, :length].tolist(), 1)
            for i, x in enumerate(part_P, 1)
        }
        start += length
        yield Step(marks, f"{start} of {horizon} steps", figures={**added, **level_figures((0.5,))})
