"""Autoregressive decoding: one target call a token, every token drawn from the target's own law.

The baseline of every race. Each slot's draw uses the noise of that slot, so that strategies which follow the
target's own samples print the same text with the same seed.
Show: one call a token; the yardstick of every speedup.
"""

from collections.abc import Iterator

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.sampling import judged
from backend.types import Guarantee, Step


@strategy(paper="ancestral sampling", guarantee=Guarantee.LOSSLESS, family="baseline")
def autoregressive(target: CausalSession, ask: Ask) -> Iterator[Step]:
    """Yield one step a token."""
    while ask.open:
        slot = len(target.tokens)
        scores = target.score()
        kept = ask.take([ask.chance.pick(scores.p_NV[0], slot)])
        target.commit(kept)
        yield Step(judged(slot, [], 0, kept, scores))
