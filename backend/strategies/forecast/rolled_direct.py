"""Rolled direct: blocks of quantiles one behind the other, with something fed back between them.

Feedback `median` takes the median of a block for observed, so the bands shrink at every border. `fan_out` feeds back
every quantile curve as a future of its own and pools the bands that follow, each weighing what its level stands for
(Chronos-2); it takes ranks to last for ever. `sampled` draws every step of a block by itself, which loses how steps
move together. All are another law than the model's own paths.
Show: three fans over four blocks and their width by step; the saw-tooth of the median.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor

from backend.chance import Ask
from backend.gaussian import uniform
from backend.protocols import BandSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Guarantee, Knob, Step
from backend.unrolling import band_marks, level_figures, middle, pooled, progress, quantile_at

Feedback = Literal["median", "fan_out", "sampled"]


@strategy(paper="2403.07815", guarantee=Guarantee.LOSSY, family="direct")
def rolled_direct(
    target: BandSession,
    ask: Ask,
    *,
    feedback: Annotated[Feedback, Knob(None, None, "what stands for the past behind a block")] = "fan_out",
    head: Annotated[int, Knob(0, 8, "which head gives the blocks, from the largest (0) down")] = 0,
    paths: Annotated[int, Knob(1, 1024, "sample paths, where steps are sampled")] = 64,
) -> Iterator[Step]:
    """Yield one step per target call: a block of bands, or of paths. figures: `width`, the mean span of the band."""
    horizon, size = ask.left, target.sizes[max(0, len(target.sizes) - 1 - head)]
    levels = target.levels
    futures_RH: Tensor | None = None
    for start in range(0, horizon, size):
        bands_RLH = target.predict(size, futures_RH).cpu().double().sort(1).values
        if feedback == "sampled":
            u_SH = uniform((paths, size), ask.chance)
            rows_RLH = bands_RLH.expand(paths, -1, -1)
            block_RH = torch.stack([quantile_at(q, levels, u_SH[i : i + 1])[0] for i, q in enumerate(rows_RLH)])
            fed_RH = block_RH
        else:
            block_RH = pooled(bands_RLH, levels) if len(bands_RLH) > 1 else bands_RLH[0]
            fed_RH = block_RH if feedback == "fan_out" else block_RH[middle(levels)][None]
        futures_RH = fed_RH if futures_RH is None else torch.cat((futures_RH, fed_RH), 1)
        marks = band_marks(block_RH, start, horizon)
        progress(ask, min(size, horizon - start))
        width = float((bands_RLH[:, -1] - bands_RLH[:, 0]).mean())
        figures = {"width": shorten(width), **(level_figures(levels) if feedback != "sampled" else {})}
        yield Step(marks, f"steps {start + 1} to {min(start + size, horizon)}, {feedback} fed back", figures=figures)
