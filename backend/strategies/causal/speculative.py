"""Speculative sampling: a small model drafts, the target judges the whole draft in one call.

Leviathan et al. 2023 (2211.17192), algorithm 1; Chen et al. 2023 (2302.01318).
Show: acceptance by draft position; calls saved as gamma grows.
"""

from collections.abc import Iterator
from typing import Annotated

from torch import Tensor

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.sampling import accept_chain, judged, residual
from backend.types import Guarantee, Knob, Step


@strategy(paper="2211.17192", guarantee=Guarantee.LOSSLESS, family="draft model")
def speculative(
    target: CausalSession,
    draft: CausalSession,
    ask: Ask,
    *,
    gamma: Annotated[int, Knob(1, 12, "tokens drafted before each target call")] = 4,
) -> Iterator[Step]:
    """Yield one step per target call: the judged draft, then one fixed or bonus token."""
    while ask.open:
        slot = len(target.tokens)
        x: list[int] = []
        q: list[Tensor] = []
        for _ in range(min(gamma, ask.left - 1)):  # draft x_1..x_gamma from q
            q.append(draft.score(x).p_NV[-1])
            x.append(ask.chance.pick(q[-1]))
        scores = target.score(x)  # one call, gamma + 1 rows
        p = scores.p_NV
        n = accept_chain(p, q, x, ask.chance)  # keep x_i with chance min(1, p/q), stop at the first no
        last = ask.chance.pick(p[n] if n == len(x) else residual(p[n], q[n]))
        kept = ask.take([*x[:n], last])  # cut at the budget or the end token
        target.commit(kept)
        draft.commit(kept)
        yield Step(judged(slot, x, n, kept, scores, q))  # after commit: a visitor may close the generator here
