"""Aggressive block decoding: a non-autoregressive drafter writes a whole block in one call, and the target judges it.

Generalised aggressive decoding (GAD, GAD++), Xia et al. 2022 (2203.16487). The drafter reads the text and masks behind
it and names the likeliest token of every place at once. With beta = 1 the target's own samples are followed while they
equal the block, which is exact. With a larger beta (GAD++) a guess passes if it is among the beta tokens that the
target finds likeliest and its logit lies at most `tolerance` below the best one's: longer blocks, another law.
Show: blocks accepted as they grow; what tolerance buys, beside the text that it changes.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

from torch import Tensor

from backend.chance import Ask
from backend.protocols import BlockSession, CausalSession
from backend.registry import strategy
from backend.sampling import follow_chain, judged
from backend.types import Guarantee, Knob, Step


@strategy(paper="2203.16487", guarantee=Guarantee.LOSSLESS, family="draft model", only={"beta": 1})
def aggressive_blocks(
    target: CausalSession,
    block_draft: BlockSession,
    ask: Ask,
    *,
    block: Annotated[int, Knob(1, 8, "k: tokens that the drafter writes in one call")] = 5,
    beta: Annotated[int, Knob(1, 5, "a guess passes among this many best tokens; 1 judges exactly")] = 1,
    tolerance: Annotated[float, Knob(0.0, 3.0, "most that its logit may lie below the best; unused with beta 1")] = 1.0,
) -> Iterator[Step]:
    """Yield one step per target call: the judged block, then one fixed or bonus token."""
    while ask.open:
        slot = len(target.tokens)
        length = min(block, ask.left - 1)
        q = list(block_draft.guess(length).p_NV) if length else []
        x = [int(q_V.argmax()) for q_V in q]
        scores = target.score(x)
        if beta == 1:
            n, token = follow_chain(scores.p_NV, x, slot, ask.chance)
        else:
            assert scores.raw_NV is not None, "a causal model with logits"
            n = passing(scores.raw_NV, x, beta, tolerance)
            token = ask.chance.pick(scores.p_NV[n], slot + n)
        kept = ask.take([*x[:n], token])
        target.commit(kept)
        block_draft.commit(kept)
        yield Step(judged(slot, x, n, kept, scores, q), f"{n} of {len(x)} passed" if x else "")


def passing(raw_NV: Tensor, x: Sequence[int], beta: int, tolerance: float) -> int:
    """How many guesses from the first on are among the `beta` best and at most `tolerance` below the best logit.

    >>> import torch
    >>> passing(torch.tensor([[2.0, 1.5, 0.0], [2.0, 1.5, 0.0], [0.0, 0.0, 0.0]]), [1, 2], beta=2, tolerance=0.5)
    1
    """
    for i, token in enumerate(x):
        own, best = raw_NV[i, token], raw_NV[i].amax()
        if int((raw_NV[i] > own).sum()) >= beta or float(best - own) > tolerance:
            return i
    return len(x)
