"""Self guided: an unconditional diffusion model is pulled to the context by its own guess of the clean window.

Kollovieh et al. 2023 (2307.11494), TSDiff. At each noise level the clean window is told from the noised
one; its distance from what was observed is an energy, and its gradient steers the step. With quantiles path i of S is
pushed to level i / (S + 1) of the observed part, so index and level belong together. `ddpm` steps first and corrects
what it stepped to, which takes three calls: forward, forward and back; `ddim` shares the first, which makes two.
Conditioning is approximate. With scale 0 the context is not looked at.
Show: the film of a window over the noise levels, its past snapping to the data; error against calls by sampler.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from backend.chance import Ask
from backend.denoising import Windows, clean, down, missed, pushed, rungs, spread, towards
from backend.protocols import SeriesDiffusionSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Guarantee, Knob, Step

Sampler = Literal["ddim", "ddpm"]
Energy = Literal["quantile", "squared"]


@strategy(paper="2307.11494", guarantee=Guarantee.LOSSY, family="denoising")
def self_guided(
    target: SeriesDiffusionSession,
    ask: Ask,
    *,
    sampler: Annotated[Sampler, Knob(None, None, "ddim draws noise at the start only, ddpm at every step")] = "ddim",
    skip: Annotated[int, Knob(1, 25, "noise levels that a step goes down: half of it makes twice the calls")] = 10,
    energy: Annotated[Energy, Knob(None, None, "what is small where a window fits the context")] = "quantile",
    scale: Annotated[float, Knob(0.0, 20.0, "how hard the context pulls: 0 not at all, too hard tears windows")] = 2.0,
    block: Annotated[int, Knob(1, 128, "steps that one window forecasts: longer ones leave it less of the past")] = 128,
    paths: Annotated[int, Knob(1, 1024, "sample paths")] = 32,
) -> Iterator[Step]:
    """Yield one step per noise level. figures: `noise`, its deviation; `missed`, how far the context is missed by."""
    under_way = Windows(target, ask, paths, block)
    while under_way.open:
        seen_SL = under_way.seen()
        push = towards(seen_SL, energy == "quantile")
        x_SL = under_way.noise(seen_SL)
        for t, lower in rungs(target.noise_levels, skip):
            if sampler == "ddim" and scale:
                noise_SL, slope_SL = pushed(target, x_SL, t, push)
                noise_SL = noise_SL + scale * target.schedule.sigma(t) * slope_SL
            else:
                noise_SL = target.predict(x_SL, t)
            clean_SL = clean(target, x_SL, noise_SL, t)
            if sampler == "ddim":
                x_SL = down(target, clean_SL, noise_SL, t, lower, None)
            else:
                x_SL = down(target, clean_SL, noise_SL, t, lower, under_way.noise(x_SL))
                if scale and lower:
                    x_SL = x_SL - scale * spread(target, t, lower) ** 2 * pushed(target, x_SL, t, push)[1]
            figures = {"noise": shorten(target.schedule.sigma(t)), "missed": missed(clean_SL, seen_SL)}
            note = f"steps {under_way.written + 1} to {under_way.written + under_way.fresh}, t = {t:g}"
            frame = under_way.frame(clean_SL)
            marks = under_way.guess(clean_SL) if lower else under_way.write(x_SL)
            yield Step(marks, note, frame, figures=figures)
