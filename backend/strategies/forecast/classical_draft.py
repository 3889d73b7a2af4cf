"""Classical draft: a statistical model fitted to the context drafts patches, the target judges them.

Speculative sampling needs of a drafter only a density, and seasonal naive, AR(p) by least squares and Theta have one:
a joint normal law of each patch, fitted in milliseconds and without a call. Inflating its spread costs acceptance and
never exactness. The forecasting twin of drafting by looking up the prompt.
Show: acceptance by model and series, high where seasons repeat, low on irregular ones; no draft calls at all.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

import torch

from backend.chance import Ask
from backend.classical import Kind, fit
from backend.gaussian import judge, placed, stacked
from backend.protocols import PatchLaw, PathSession
from backend.registry import strategy
from backend.types import Guarantee, Knob, Step
from backend.unrolling import Paths, acceptance, filled, finish


@strategy(paper="2211.17192", guarantee=Guarantee.LOSSLESS, family="self-drafting")
def classical_draft(
    target: PathSession,
    ask: Ask,
    *,
    model: Annotated[Kind, Knob(None, None, "what is fitted to the context")] = "ar",
    inflation: Annotated[float, Knob(0.5, 3.0, "factor on the spread of the draft")] = 1.0,
    gamma: Annotated[int, Knob(1, 8, "patches drafted before each target call")] = 2,
    paths: Annotated[int, Knob(1, 1024, "sample paths")] = 64,
) -> Iterator[Step]:
    """Yield one step per target call: the judged drafts of all open paths, and one patch behind each."""
    series_T = filled(target.series_CT)
    drafter = fit(series_T, target.season, model, inflation)
    under_way, patch = Paths(target, ask, paths), target.patch
    while rows := under_way.open:
        length = min(gamma, max(under_way.patches - under_way.lengths[row] for row in rows) - 1)
        noise_RKP = under_way.noise(rows, length + 1)
        tail_Rp = under_way.tails(series_T, rows, drafter.lags)
        done_R = torch.tensor([under_way.lengths[row] * patch for row in rows])
        x_RKP = torch.empty(len(rows), 0, patch, dtype=torch.float64)
        q: list[PatchLaw] = []
        for k in range(length):
            q.append(drafter.patch(tail_Rp, done_R + k * patch, patch))
            x_RP = placed(q[-1], noise_RKP[:, k])
            x_RKP = torch.cat((x_RKP, x_RP[:, None]), 1)
            tail_Rp = torch.cat((tail_Rp, x_RP), 1)[:, -drafter.lags :]
        p = target.score(x_RKP, rows)
        laws = stacked(q) if q else p[:, :0]
        counts, last_RP, ratio_RK = judge(p, laws, x_RKP, noise_RKP, ask.chance)
        marks, _, _ = finish(target, under_way, rows, x_RKP, counts, last_RP)
        note = f"{sum(counts)} of {len(rows) * length} patches of {model} kept, paths open: {len(rows)}"
        yield Step(marks, note, measure=partial(acceptance, ratio_RK, p[:, :length], laws))
