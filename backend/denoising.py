"""What samplers of diffusion models of series share: windows under way, the ladder of noise, energies of what is known.

A window is x_t = alpha(t) x_0 + sigma(t) noise, t from 1 down to 0 (`backend.protocols.Schedule`). The model says the
noise; with it x_0 can be told at any t, and a rung of the ladder is taken down (Song et al. 2021, 2010.02502, (12)).

Shape letters: S paths, L steps of a window, H horizon, h steps of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from backend.chance import Ask
from backend.errors import UserError
from backend.protocols import SeriesDiffusionSession
from backend.sampling import shorten
from backend.types import Fate, Mark
from backend.unrolling import band_marks, progress

SHOWN = 8  # paths whose guesses are told on the way, from the lowest level to the highest

Push = Callable[[Tensor], Tensor]  # gradient of an energy, in the windows that it is of


class Windows:
    """S paths of one forecast, written a block at a time from windows that end with the block.

    Horizons beyond a block roll: what a path has written is its past in the next window.
    """

    def __init__(self, target: SeriesDiffusionSession, ask: Ask, paths: int, block: int) -> None:
        """Raises UserError where a window does not hold as much past as the block is long."""
        self.horizon, self.longest = ask.left, target.shape[-1]
        self.block = min(block, self.horizon)
        if 2 * self.block > self.longest:
            raise UserError(
                f"A window of this model has {self.longest} steps, at least half of them past, but blocks of "
                f"{self.block} steps were asked for; take {self.longest // 2} or less."
            )
        self.past_ST = target.series_CT[0].detach().cpu().double().expand(paths, -1)
        self.written = 0
        self._ask, self._temperature = ask, target.temperature
        self._shown = sorted({round(i * (paths - 1) / (SHOWN - 1)) for i in range(SHOWN)})

    @property
    def open(self) -> bool:
        """Whether steps of the horizon are missing."""
        return self.written < self.horizon

    @property
    def fresh(self) -> int:
        """h: steps of the block under way, the last ones of its window."""
        return min(self.block, self.horizon - self.written)

    def seen(self) -> Tensor:
        """The next windows as far as they are known, NaN elsewhere. [S, L]"""
        past_ST = self.past_ST[:, -(self.longest - self.fresh) :]
        return torch.cat((past_ST, torch.full((len(past_ST), self.fresh), torch.nan, dtype=torch.float64)), 1)

    def noise(self, like_SL: Tensor) -> Tensor:
        """Noise of this shape."""
        return self._ask.chance.noise(like_SL.shape).double() * self._temperature

    def guess(self, clean_SL: Tensor) -> tuple[Mark, ...]:
        """Marks of a few paths of the block as they look now."""
        at = [row * self.horizon + self.written for row in self._shown]
        rows = [clean_SL[row, -self.fresh :].tolist() for row in self._shown]
        return tuple(
            Mark(slot, None, Fate.GUESS, values=tuple(map(shorten, row))) for slot, row in zip(at, rows, strict=True)
        )

    def frame(self, clean_SL: Tensor) -> tuple[tuple[float, ...], ...]:
        """The whole windows of these paths as they look now: their past snaps to what is known."""
        return tuple(tuple(map(shorten, clean_SL[row].tolist())) for row in self._shown)

    def write(self, x_SL: Tensor) -> tuple[Mark, ...]:
        """Write the block for good; its marks."""
        block_Sh = x_SL[:, -self.fresh :]
        marks = band_marks(block_Sh, self.written, self.horizon)
        self.past_ST = torch.cat((self.past_ST, block_Sh), 1)
        progress(self._ask, block_Sh.shape[1])
        self.written += block_Sh.shape[1]
        return marks


# --------------------------------------------------------------------------------------------------------------- ladder
def rungs(levels: int, skip: int) -> list[tuple[float, float]]:
    """Pairs of a t and the next lower one, `skip` of the model's levels apart, from 1 to 0."""
    down = [*range(levels, 0, -skip), 0]
    return [(t / levels, lower / levels) for t, lower in pairwise(down)]


def clean(target: SeriesDiffusionSession, x_SL: Tensor, noise_SL: Tensor, t: float) -> Tensor:
    """x_0 as the noise tells it."""
    return (x_SL - target.schedule.sigma(t) * noise_SL) / target.schedule.alpha(t)


def spread(target: SeriesDiffusionSession, t: float, lower: float) -> float:
    """Standard deviation of x_lower given x_t and x_0: what an ancestral step draws anew."""
    schedule = target.schedule
    kept = (schedule.alpha(t) / schedule.alpha(lower)) ** 2
    return schedule.sigma(lower) / schedule.sigma(t) * math.sqrt(max(0.0, 1 - kept))


def down(
    target: SeriesDiffusionSession, clean_SL: Tensor, noise_SL: Tensor, t: float, lower: float, drawn_SL: Tensor | None
) -> Tensor:
    """x_lower: an ancestral step (DDPM) with the noise drawn for it, or without any that of DDIM."""
    schedule = target.schedule
    sigma = schedule.sigma(lower)
    if drawn_SL is None:
        return schedule.alpha(lower) * clean_SL + sigma * noise_SL
    fresh = spread(target, t, lower)
    return schedule.alpha(lower) * clean_SL + math.sqrt(max(0.0, sigma**2 - fresh**2)) * noise_SL + fresh * drawn_SL


def up(target: SeriesDiffusionSession, x_SL: Tensor, lower: float, t: float, drawn_SL: Tensor) -> Tensor:
    """x_t of x_lower, with the noise that is drawn for it."""
    ratio = target.schedule.alpha(t) / target.schedule.alpha(lower)
    return ratio * x_SL + math.sqrt(max(0.0, 1 - ratio**2)) * drawn_SL


# ------------------------------------------------------------------------------------------------------------- energies
def towards(goal_SL: Tensor, quantiles: bool) -> Push:
    """The gradient of an energy that is least at a goal, 0 where that is NaN.

    Squared errors, added up; or with quantiles the pinball loss of path i at level i / (S + 1), i from 1, so that the
    rows are pushed to lie below and above the goal as often as their levels say.
    """
    known_SL = torch.isfinite(goal_SL)
    goal_SL = goal_SL.nan_to_num()
    level_S1 = torch.arange(1, len(goal_SL) + 1, dtype=goal_SL.dtype)[:, None] / (len(goal_SL) + 1)

    def push(x_SL: Tensor) -> Tensor:
        away_SL = x_SL - goal_SL
        slope_SL = (away_SL > 0).to(x_SL) * (1 - level_S1) - (away_SL < 0).to(x_SL) * level_S1
        return torch.where(known_SL, slope_SL if quantiles else 2 * away_SL, 0.0)

    return push


def pushed(target: SeriesDiffusionSession, x_SL: Tensor, t: float, push: Push) -> tuple[Tensor, Tensor]:
    """The noise in windows, and the gradient in them of an energy of the x_0 that they tell: two calls."""
    alpha, sigma = target.schedule.alpha(t), target.schedule.sigma(t)
    noise_SL, pulled_SL = target.guided(x_SL, t, lambda noise: -sigma / alpha * push(clean(target, x_SL, noise, t)))
    return noise_SL, push(clean(target, x_SL, noise_SL, t)) / alpha + pulled_SL


def missed(clean_SL: Tensor, seen_SL: Tensor) -> float:
    """Mean distance of windows from what is known of them."""
    known_SL = torch.isfinite(seen_SL)
    return shorten((clean_SL - seen_SL)[known_SL].abs().mean())
