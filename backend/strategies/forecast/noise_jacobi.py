"""Noise Jacobi: all patches are computed at once from guesses of those before them, again and again, noise held fixed.

With its noise given a path is the solution of equations that each look only back, so a sweep over all places makes one
more of them final, and many where the model forgets (2508.16817: predictable means parallel). A place is written once
all guesses before it have come out unchanged: the path is the one that `recursive` draws with the same seed. A change
of one patch is carried on to the later ones, as increments of a random walk or as an AR(1) fitted to the context would
have it; without that, trends gain nothing.
Show: sweep by place, coloured by change; sweeps against the root of an autoregression or the Lyapunov exponent.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch

from backend.chance import Ask
from backend.gaussian import placed
from backend.protocols import PathSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Fate, Guarantee, Knob, Step
from backend.unrolling import Paths, carried, echo, filled

Carry = Literal["none", "increments", "context"]


@strategy(paper="2508.16817", guarantee=Guarantee.LOSSLESS, family="parallel", only={"tolerance": 0.0})
def noise_jacobi(
    target: PathSession,
    ask: Ask,
    *,
    carry: Annotated[Carry, Knob(None, None, "how a change moves what comes behind it in the same sweep")] = "context",
    window: Annotated[int, Knob(1, 512, "patches swept at once")] = 64,
    tolerance: Annotated[float, Knob(0.0, 0.1, "a change up to this counts as none, in the context's scale")] = 0.0,
    paths: Annotated[int, Knob(1, 1024, "sample paths")] = 64,
) -> Iterator[Step]:
    """Yield one step per sweep, which is one target call. figures: `final` patches of it, `change` of the others."""
    under_way = Paths(target, ask, paths)
    series_T = filled(target.series_CT)
    share = {"none": 0.0, "increments": 1.0, "context": echo(series_T)}[carry]
    guess_SNP = torch.full_like(under_way.written_SNP, float(series_T[-1]))
    while rows := under_way.open:
        left = [under_way.patches - under_way.lengths[row] for row in rows]
        width = min(window, max(left))
        at_RK = torch.tensor([under_way.lengths[row] for row in rows])[:, None] + torch.arange(width)
        at_RK, row_R1 = at_RK.clamp_max(under_way.patches - 1), torch.tensor(rows)[:, None]
        before_RKP = guess_SNP[row_R1, at_RK]
        law = target.score(before_RKP[:, : width - 1], rows)
        fresh_RKP = placed(law, under_way.noise(rows, width)).cpu().double()
        change_RK = (fresh_RKP - before_RKP).abs().amax(-1)
        same_R = (change_RK[:, : width - 1] <= tolerance).long().cumprod(1).sum(1)
        counts = [min(int(n) + 1, room) for n, room in zip(same_R, left, strict=True)]
        swept_RKP = carried(fresh_RKP, before_RKP, share)
        for r, (row, room) in enumerate(zip(rows, left, strict=True)):
            first = under_way.lengths[row]
            guess_SNP[row, first : first + min(width, room)] = swept_RKP[r, : min(width, room)]
        target.commit(fresh_RKP, counts, rows)
        marks = under_way.add(rows, fresh_RKP, counts, [Fate.BONUS] * len(rows))
        figures = {"final": sum(counts) / len(rows), "change": shorten(change_RK.mean())}
        yield Step(tuple(marks), f"patches final: {sum(counts)}, paths open: {len(under_way.open)}", figures=figures)
