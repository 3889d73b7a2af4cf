"""Shared noise: drafter and target draw with the same noise at every slot, so they agree whenever their laws do.

The text is argmax(log p + G) with Gumbel noise G fixed by seed and slot, whoever drafted: every seed gives the text
that plain decoding gives. A guess is kept with probability sum_i 1 / sum_j max(p_j / p_i, q_j / q_i), at least
(1 - TV) / (1 + TV). Daliri, Musco and Suresh 2024 (2408.07978), drafter-invariant speculative decoding.
Show: the same sampled text as the baseline at temperature 1, at another speed.
"""

from collections.abc import Iterator
from typing import Annotated

from torch import Tensor

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.sampling import follow_chain, judged
from backend.types import Guarantee, Knob, Step


@strategy(paper="2408.07978", guarantee=Guarantee.LOSSLESS, family="draft model")
def shared_noise(
    target: CausalSession,
    draft: CausalSession,
    ask: Ask,
    *,
    gamma: Annotated[int, Knob(1, 12, "tokens drafted before each target call")] = 4,
) -> Iterator[Step]:
    """Yield one step per target call: the guesses that agreed, then the target's own token."""
    while ask.open:
        slot = len(target.tokens)
        x: list[int] = []
        q: list[Tensor] = []
        for i in range(min(gamma, ask.left - 1)):
            q.append(draft.score(x).p_NV[-1])
            x.append(ask.chance.pick(q[-1], slot + i))
        scores = target.score(x)
        n, token = follow_chain(scores.p_NV, x, slot, ask.chance)
        kept = ask.take([*x[:n], token])
        target.commit(kept)
        draft.commit(kept)
        yield Step(judged(slot, x, n, kept, scores, q))
