"""Refine: a cheap forecast is moved to where a diffusion model finds windows more likely, in a few gradient steps.

Kollovieh et al. 2023 (2307.11494), TSDiff. Context and forecast make a window; noise of one level is added, and how
badly the model tells it says how unlikely the window is. That, and an energy that holds on to where the window was, are
walked down (`sgd`), or down with noise (`langevin`). Paths of the cheap forecast are sorted step by step first, so that
path i of S stands for level i / (S + 1). The `quantile` energy is not masked, as in the authors' code: it holds on to
the first forecast too. `squared` holds on to the context alone.
Show: with the base seasonal naive, its fan bending to what the model knows; two calls a step, against dozens.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch

from backend.chance import Ask
from backend.classical import Kind, fit
from backend.denoising import Windows, missed, towards
from backend.gaussian import placed
from backend.protocols import SeriesDiffusionSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Guarantee, Knob, Step
from backend.unrolling import filled

Rule = Literal["sgd", "langevin"]
Energy = Literal["quantile", "squared"]
WARMTH = 0.1  # of Langevin's noise


@strategy(paper="2307.11494", guarantee=Guarantee.LOSSY, family="denoising")
def refine(
    target: SeriesDiffusionSession,
    ask: Ask,
    *,
    base: Annotated[Kind, Knob(None, None, "what makes the first forecast, which the result stays near")] = "ar",
    iterations: Annotated[int, Knob(1, 50, "gradient steps, two calls each")] = 10,
    rule: Annotated[Rule, Knob(None, None, "whether noise is added on the way")] = "sgd",
    energy: Annotated[Energy, Knob(None, None, "what holds on to where the window was")] = "quantile",
    rate: Annotated[float, Knob(0.0, 0.2, "length of a gradient step; 0 leaves the first forecast")] = 0.1,
    level: Annotated[float, Knob(0.05, 0.9, "t of the noise that the model is asked about")] = 0.2,
    block: Annotated[int, Knob(1, 128, "steps that one window forecasts: longer ones leave it less of the past")] = 128,
    paths: Annotated[int, Knob(1, 1024, "sample paths")] = 32,
) -> Iterator[Step]:
    """Yield one step per gradient step. figures: `unlikely`, the mean squared error of the noise; `missed` as above."""
    series_T = filled(target.series_CT)
    forecaster = fit(series_T, target.season, base)
    under_way = Windows(target, ask, paths, block)
    alpha, sigma = target.schedule.alpha(level), target.schedule.sigma(level)
    while under_way.open:
        seen_SL, fresh = under_way.seen(), under_way.fresh
        past_ST = torch.cat((series_T.expand(paths, -1), under_way.past_ST[:, len(series_T) :]), 1)
        law = forecaster.patch(past_ST[:, -forecaster.lags :], torch.full((paths,), under_way.written), fresh)
        first_Sh = placed(law, under_way.noise(law.mean_NP)).sort(0).values
        x_SL = torch.cat((past_ST[:, past_ST.shape[1] - seen_SL.shape[1] + fresh :], first_Sh), 1)
        push = towards(x_SL if energy == "quantile" else seen_SL, energy == "quantile")
        for i in range(1, iterations + 1):
            noise_SL = under_way.noise(x_SL)
            noised_SL = alpha * x_SL + sigma * noise_SL
            told_SL, pulled_SL = target.guided(noised_SL, level, towards(noise_SL, False))
            x_SL = x_SL - rate * (alpha * pulled_SL + push(x_SL))
            if rule == "langevin":
                x_SL = x_SL + (2 * rate) ** 0.5 * WARMTH * under_way.noise(x_SL)
            unlikely = shorten((told_SL - noise_SL).square().mean())
            figures = {"unlikely": unlikely, "missed": missed(x_SL, seen_SL)}
            note = f"steps {under_way.written + 1} to {under_way.written + fresh}, gradient step {i} of {iterations}"
            frame = under_way.frame(x_SL)
            yield Step(under_way.guess(x_SL) if i < iterations else under_way.write(x_SL), note, frame, figures=figures)
