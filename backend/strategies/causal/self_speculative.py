"""Self-speculative decoding: the target drafts for itself with some of its layers left out.

Zhang et al. 2023, Draft & Verify (2309.08168), without its search: the twin's layers are part of its model id, for
example @skip10 or @exit12. A draft ends where the twin's best token is less likely than a threshold that follows the
acceptance rate. Guesses are drawn from the twin's law q and judged with min(1, p/q), so the law is exact at any
temperature; drafting by argmax and judging by q would not be.
Show: layers skipped against acceptance; why a twin that costs most of a call seldom pays.
"""

from collections.abc import Iterator
from typing import Annotated

from torch import Tensor

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.sampling import accept_chain, judged, residual
from backend.types import Guarantee, Knob, Step

GOAL = 0.9  # acceptance that the threshold steers towards
NUDGE = 0.01


@strategy(paper="2309.08168", guarantee=Guarantee.LOSSLESS, family="own layers")
def self_speculative(
    target: CausalSession,
    twin: CausalSession,
    ask: Ask,
    *,
    gamma: Annotated[int, Knob(1, 12, "most tokens drafted before a target call")] = 8,
    threshold: Annotated[float, Knob(0.0, 1.0, "a draft ends where its best token is less likely than this")] = 0.8,
) -> Iterator[Step]:
    """Yield one step per target call: the judged draft, then one fixed or bonus token."""
    rate = GOAL
    while ask.open:
        slot, longest = len(target.tokens), min(gamma, ask.left - 1)
        x: list[int] = []
        q: list[Tensor] = []
        while len(x) < longest:
            ahead = twin.score(x)
            if x and ahead.options(len(x), 1)[0][1] < threshold:
                break
            q.append(ahead.p_NV[-1])
            x.append(ask.chance.pick(q[-1]))
        scores = target.score(x)
        p = scores.p_NV
        n = accept_chain(p, q, x, ask.chance)
        last = ask.chance.pick(p[n] if n == len(x) else residual(p[n], q[n]))
        kept = ask.take([*x[:n], last])
        target.commit(kept)
        twin.commit(kept)
        yield Step(judged(slot, x, n, kept, scores, q), note=f"threshold {threshold:.3f}")
        if x:
            rate = 0.5 * rate + 0.5 * n / len(x)
        if len(x) < longest:
            wanted = threshold + NUDGE if rate < GOAL else threshold - NUDGE
            threshold = min(max(0.9 * threshold + 0.1 * wanted, 0.0), 1.0)
