"""Particle: paths are weighed by a wish about the whole horizon, and light ones give way to copies of heavy ones.

Sequential Monte Carlo with a twist (Zhao et al. 2024, 2404.17546): the wish is that the mean of the horizon lies near a
level, a normal density around it. Before each patch is drawn a path weighs what the wish would weigh if the rest of the
horizon repeated the law of that patch; where few paths carry the weight, all are drawn anew, systematically. Behind the
last patch the wish itself weighs, so the paths have the model's law given the wish, exactly in the limit of many.
Patches are guesses until then.
Show: the fan bending towards the wish; paths with one ancestor left; log evidence, how little the model expects it.
"""

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor

from backend.chance import Ask, Chance
from backend.gaussian import placed, uniform
from backend.protocols import PatchLaw, ReorderingPathSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Fate, Guarantee, Knob, Mark, Step
from backend.unrolling import progress


@strategy(paper="2404.17546", guarantee=Guarantee.LOSSY, family="feedback")
def particle(
    target: ReorderingPathSession,
    ask: Ask,
    *,
    level: Annotated[float, Knob(-3.0, 3.0, "mean of the horizon that is wished for, in the context's scale")] = 0.5,
    tightness: Annotated[float, Knob(0.02, 2.0, "deviation from it that is let through")] = 0.1,
    threshold: Annotated[float, Knob(0.0, 1.0, "draw anew where fewer paths, a share, carry the weight")] = 0.5,
    paths: Annotated[int, Knob(1, 1024, "sample paths")] = 64,
) -> Iterator[Step]:
    """Yield one step per target call. figures: `effective` paths; `ancestors` that are left; `log evidence` so far."""
    horizon, patch, start = ask.left, target.patch, 0
    target.fork(paths)
    noise_SNP = ask.chance.noise((paths, -(-horizon // patch), patch)).double()
    written_SH = torch.empty(paths, 0, dtype=torch.float64)
    weight_S, wish_S = torch.zeros(2, paths, dtype=torch.float64)
    line_S, evidence = torch.arange(paths), 0.0
    while start < horizon:
        law = target.score()[:, 0]
        hope_S = _hope(written_SH, law, horizon, level, tightness)
        weight_S, wish_S = weight_S + hope_S - wish_S, hope_S
        rows_S, effective = torch.arange(paths), _effective(weight_S)
        if effective < threshold * paths:
            rows_S = _drawn(weight_S, ask.chance)
            evidence += float(weight_S.logsumexp(0)) - math.log(paths)
            weight_S, wish_S, law = torch.zeros_like(weight_S), wish_S[rows_S], law[rows_S]
            target.keep(rows_S.tolist())
        x_SP = placed(law, noise_SNP[:, start // patch])
        target.commit(x_SP[:, None], [1] * paths)
        written_SH = torch.cat((written_SH[rows_S], x_SP), 1)[:, :horizon]
        moved_S, line_S, first = rows_S != torch.arange(paths), line_S[rows_S], start
        start += patch
        if start >= horizon:  # the wish itself; equal weights, so that paths are a sample
            weight_S = weight_S + _log_normal(written_SH.mean(1), level, tightness**2) - wish_S
            effective, rows_S = _effective(weight_S), _drawn(weight_S, ask.chance)
            target.keep(rows_S.tolist())
            written_SH, line_S = written_SH[rows_S], line_S[rows_S]
        total = evidence + float(weight_S.logsumexp(0)) - math.log(paths)
        figures = {"effective": shorten(effective), "ancestors": float(len(set(line_S.tolist())))}
        progress(ask, min(patch, horizon - first))
        yield Step(
            _marks(written_SH, moved_S, first, horizon),
            f"{effective:.0f} of {paths} paths carry the weight",
            figures={**figures, "log evidence": shorten(total)},
        )


def _hope(written_SH: Tensor, law: PatchLaw, horizon: int, level: float, tightness: float) -> Tensor:
    """Log weight of paths if the rest of the horizon repeated the law of the next patch. [S]"""
    left = horizon - written_SH.shape[1]
    size = min(left, law.mean_NP.shape[-1])
    mean_S = (written_SH.sum(1) + law.mean_NP[:, :size].mean(1) * left) / horizon
    spread_S = law.tril_NPP[:, :size].sum(1).norm(dim=-1) / size * left / horizon
    return _log_normal(mean_S, level, tightness**2 + spread_S.square())


def _log_normal(x_S: Tensor, mean: float, variance: Tensor | float) -> Tensor:
    variance_S = torch.as_tensor(variance, dtype=x_S.dtype)
    return -0.5 * ((x_S - mean).square() / variance_S + (2 * math.pi * variance_S).log())


def _effective(weight_S: Tensor) -> float:
    """How many paths of equal weight would be worth as much: (sum w)^2 / sum w^2."""
    return float((2 * weight_S.logsumexp(0) - (2 * weight_S).logsumexp(0)).exp())


def _drawn(weight_S: Tensor, chance: Chance) -> Tensor:
    """Paths drawn by weight with one random number; those that are drawn at all keep a place of their own. [S]"""
    count = len(weight_S)
    points_S = (torch.arange(count) + uniform((1,), chance)) / count
    drawn_S = torch.searchsorted(weight_S.softmax(0).cumsum(0), points_S).clamp_max(count - 1)
    copies_S = drawn_S.bincount(minlength=count)
    out_S = torch.where(copies_S > 0, torch.arange(count), -1)
    out_S[out_S < 0] = torch.arange(count).repeat_interleave((copies_S - 1).clamp_min(0))
    return out_S


def _marks(written_SH: Tensor, moved_S: Tensor, first: int, horizon: int) -> tuple[Mark, ...]:
    """The values from `first` on, of moved paths all; guesses until the horizon is full."""
    fate = Fate.BONUS if written_SH.shape[1] == horizon else Fate.GUESS
    return tuple(
        Mark(s * horizon + begin, None, fate, values=tuple(shorten(x) for x in row[begin:]))
        for s, row in enumerate(written_SH.tolist())
        for begin in [0 if fate.commits or moved_S[s] else first]
    )
