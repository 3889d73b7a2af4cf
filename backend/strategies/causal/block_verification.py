"""Block verification: the draft is judged as a whole, and the longest prefix that passes its own trial stays.

Sun et al. 2024 (2403.10444), algorithm 2. Same draft and same cost as speculative sampling, never fewer kept tokens
on average; at temperature 0 the two are the same.
Show: mean acceptance length beside speculative sampling's at temperature 1.
"""

from collections.abc import Iterator
from typing import Annotated

from torch import Tensor

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.sampling import accept_block, judged
from backend.types import Guarantee, Knob, Step


@strategy(paper="2403.10444", guarantee=Guarantee.LOSSLESS, family="draft model")
def block_verification(
    target: CausalSession,
    draft: CausalSession,
    ask: Ask,
    *,
    gamma: Annotated[int, Knob(1, 12, "tokens drafted before each target call")] = 6,
) -> Iterator[Step]:
    """Yield one step per target call: the judged block, then one fixed or bonus token."""
    while ask.open:
        slot = len(target.tokens)
        x: list[int] = []
        q: list[Tensor] = []
        for _ in range(min(gamma, ask.left - 1)):
            q.append(draft.score(x).p_NV[-1])
            x.append(ask.chance.pick(q[-1]))
        scores = target.score(x)
        n, behind_V = accept_block(scores.p_NV, q, x, ask.chance)
        kept = ask.take([*x[:n], ask.chance.pick(behind_V)])
        target.commit(kept)
        draft.commit(kept)
        yield Step(judged(slot, x, n, kept, scores, q))
