"""Lookahead heads: heads of the target itself draft the patches behind the next one, and it judges them one call later.

The call that judges a draft also reads the heads behind every prefix, so the next draft is there already: one call a
round and no drafter. A head knows nothing of the patches between, so its laws are wider than the target's and kept less
often the further they look: that is what direct forecasts lose. The joint law stays the target's own.
Show: acceptance by how far a head looks ahead, falling; calls against recursive.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

import torch

from backend.chance import Ask
from backend.gaussian import judge, placed, replaced
from backend.protocols import LookaheadSession
from backend.registry import strategy
from backend.types import Guarantee, Knob, Step
from backend.unrolling import Paths, acceptance, finish


@strategy(paper="1811.03115", guarantee=Guarantee.LOSSLESS, family="self-drafting")
def lookahead_heads(
    target: LookaheadSession,
    ask: Ask,
    *,
    gamma: Annotated[int, Knob(1, 8, "patches that the heads draft before each call")] = 3,
    paths: Annotated[int, Knob(1, 1024, "sample paths")] = 64,
) -> Iterator[Step]:
    """Yield one step per target call: the judged drafts of all open paths, and one patch behind each."""
    under_way = Paths(target, ask, paths)
    reach = min(gamma, target.reach)
    x_SKP = torch.empty(paths, 0, target.patch, dtype=torch.float64)  # nothing to judge in the first call
    ahead = None
    while rows := under_way.open:
        x_RKP = x_SKP[rows]
        length = min(x_RKP.shape[1], max(under_way.patches - under_way.lengths[row] for row in rows) - 1)
        x_RKP = x_RKP[:, :length]
        p, heads = target.look(x_RKP, rows)
        q = ahead[rows, :length] if ahead is not None else p[:, :0]
        counts, last_RP, ratio_RK = judge(p, q, x_RKP, under_way.noise(rows, length + 1), ask.chance)
        marks, _, _ = finish(target, under_way, rows, x_RKP, counts, last_RP)
        found = heads[torch.arange(len(rows)), torch.tensor(counts), :reach]  # behind the patch that was just drawn
        fresh_RKP = placed(found, under_way.noise(rows, reach))
        if ahead is None:
            ahead, x_SKP = found, fresh_RKP
        else:
            ahead, x_SKP[rows] = replaced(ahead, torch.tensor(rows), found), fresh_RKP
        note = f"{sum(counts)} of {len(rows) * length} patches of the heads kept, paths open: {len(rows)}"
        yield Step(marks, note, measure=partial(acceptance, ratio_RK, p[:, :length], q))
