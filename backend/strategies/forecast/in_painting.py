"""In-painting: at every noise level the past is overwritten by the context with that much noise, the future is kept.

An unconditional diffusion model of windows forecasts as it would fill a hole (GPD, Yang et al. 2024, 2406.02212; the
repeats are those of Lugmayr et al. 2022, 2201.09865, RePaint). A step down is noised up again and repeated, so that
what was generated can settle with what was put in; without, there is a jump where the two meet. No gradients: a repeat
is one call. Horizons beyond a block slide the window over the paths' own forecasts.
Show: the jump at the border with one repeat and without it with five; calls beside those of guidance.
"""

from collections.abc import Iterator
from typing import Annotated

import torch

from backend.chance import Ask
from backend.denoising import Windows, clean, down, missed, rungs, up
from backend.protocols import SeriesDiffusionSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Guarantee, Knob, Step


@strategy(paper="2406.02212", guarantee=Guarantee.LOSSY, family="denoising")
def in_painting(
    target: SeriesDiffusionSession,
    ask: Ask,
    *,
    repeats: Annotated[int, Knob(1, 10, "calls at each noise level: more mend the jump behind the context")] = 2,
    skip: Annotated[int, Knob(1, 25, "noise levels that a step goes down: half of it makes twice the calls")] = 10,
    block: Annotated[int, Knob(1, 128, "steps that one window forecasts: longer ones leave it less of the past")] = 128,
    paths: Annotated[int, Knob(1, 1024, "sample paths")] = 32,
) -> Iterator[Step]:
    """Yield one step per call. figures: `noise`, its deviation; `missed`, how far off the past was told."""
    under_way = Windows(target, ask, paths, block)
    while under_way.open:
        seen_SL = under_way.seen()
        known_SL = torch.isfinite(seen_SL)
        x_SL = under_way.noise(seen_SL)
        for t, lower in rungs(target.noise_levels, skip):
            alpha, sigma = target.schedule.alpha(t), target.schedule.sigma(t)
            for again in reversed(range(repeats if lower else 1)):
                x_SL = torch.where(known_SL, alpha * seen_SL + sigma * under_way.noise(seen_SL), x_SL)
                noise_SL = target.predict(x_SL, t)
                clean_SL = clean(target, x_SL, noise_SL, t)
                x_SL = down(target, clean_SL, noise_SL, t, lower, under_way.noise(x_SL))
                if again:
                    x_SL = up(target, x_SL, lower, t, under_way.noise(x_SL))
                figures = {"noise": shorten(sigma), "missed": missed(clean_SL, seen_SL)}
                note = f"steps {under_way.written + 1} to {under_way.written + under_way.fresh}, t = {t:g}"
                frame = under_way.frame(clean_SL)
                marks = under_way.guess(clean_SL) if lower else under_way.write(x_SL)
                yield Step(marks, note, frame, figures=figures)
