"""Speculative patches: a small forecaster drafts patches of every path, the target judges them all in one call.

Speculative sampling (2211.17192) on real values: a patch x drawn from q stays with chance min(1, p(x) / q(x)),
densities with all their constants; behind the first no comes a patch from what is left of p, by reflection where both
laws have one covariance, else by thinning. Paths are judged each for itself and differ in length from then on. The
joint law of a path is the target's own.
Show: bars by call, kept, rejected, corrected; acceptance by patch beside 2 Phi(-D / 2), D the distance of the means.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

import torch

from backend.chance import Ask
from backend.gaussian import judge, placed, stacked
from backend.protocols import PatchLaw, PathSession
from backend.registry import strategy
from backend.types import Guarantee, Knob, Step
from backend.unrolling import Paths, acceptance, finish, listener


@strategy(paper="2511.18191", guarantee=Guarantee.LOSSLESS, family="draft model")
def speculative_patches(
    target: PathSession,
    draft: PathSession,
    ask: Ask,
    *,
    gamma: Annotated[int, Knob(1, 8, "patches drafted before each target call")] = 3,
    paths: Annotated[int, Knob(1, 1024, "sample paths")] = 64,
) -> Iterator[Step]:
    """Yield one step per target call: the judged drafts of all open paths, and one patch behind each."""
    under_way = Paths(target, ask, paths)
    draft.fork(paths)
    tell = listener(target, draft)
    while rows := under_way.open:
        length = min(gamma, max(under_way.patches - under_way.lengths[row] for row in rows) - 1)
        noise_RKP = under_way.noise(rows, length + 1)
        x_RKP = torch.empty(len(rows), 0, target.patch, dtype=torch.float64)
        q: list[PatchLaw] = []
        for k in range(length):  # draft x_1 .. x_K from q
            q.append(draft.score(x_RKP, rows)[:, -1])
            x_RKP = torch.cat((x_RKP, placed(q[-1], noise_RKP[:, k])[:, None]), 1)
        p = target.score(x_RKP, rows)  # one call, K + 1 laws for each path
        laws = stacked(q) if q else p[:, :0]
        counts, last_RP, ratio_RK = judge(p, laws, x_RKP, noise_RKP, ask.chance)
        marks, kept_RKP, room = finish(target, under_way, rows, x_RKP, counts, last_RP)
        draft.commit(kept_RKP, room, rows)
        tell(rows)  # what the target thought, to a drafter that carries it on
        note = f"{sum(counts)} of {len(rows) * length} drafted patches kept, paths open: {len(rows)}"
        yield Step(marks, note, measure=partial(acceptance, ratio_RK, p[:, :length], laws))
