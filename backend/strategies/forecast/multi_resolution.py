"""Multi-resolution: heads of several lengths on one trunk take turns until the horizon is covered.

Shi et al. 2024 (2409.16040), Time-MoE, section 3.3. The rule `fit_below` takes the largest head that fits what is left;
`overshoot` covers the rest in one call and cuts it; `smallest` is the step by step reference. The median of each block
is fed back. Every schedule is another forecast.
Show: the schedule as coloured blocks; error by step for each rule.
"""

from collections.abc import Iterator
from typing import Annotated

import torch

from backend.chance import Ask
from backend.protocols import BandSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Guarantee, Knob, Step
from backend.unrolling import Rule, band_marks, level_figures, middle, progress, schedule


@strategy(paper="2409.16040", guarantee=Guarantee.LOSSY, family="direct")
def multi_resolution(
    target: BandSession,
    ask: Ask,
    *,
    rule: Annotated[Rule, Knob(None, None, "which head comes next")] = "fit_below",
) -> Iterator[Step]:
    """Yield one step per target call: a block of bands. figures: `head`, its size; `width`; `level` of every row."""
    horizon, start = ask.left, 0
    future_1H = None
    for size in schedule(horizon, target.sizes, rule):
        band_LH = target.predict(size, future_1H)[0].sort(0).values
        median_1H = band_LH[middle(target.levels)][None]
        future_1H = median_1H if future_1H is None else torch.cat((future_1H, median_1H), 1)
        marks = band_marks(band_LH, start, horizon)
        length = min(size, horizon - start)
        progress(ask, length)
        width = shorten((band_LH[-1] - band_LH[0]).mean())
        figures = {"head": float(size), "width": width, **level_figures(target.levels)}
        start += length
        yield Step(marks, f"head of {size} steps, {start} of {horizon} done", figures=figures)
