"""Prompt lookup: the last few tokens are searched in the text so far, and what followed them then is the draft.

Saxena 2023, prompt lookup decoding; also n-gram speculation. No model drafts, so a wrong guess costs only rows. The
target's own samples are followed while they equal the draft, which is exact for any draft.
Show: copied spans light up in summaries and edits, nothing to copy in free stories.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.sampling import follow_chain, judged
from backend.types import Guarantee, Knob, Step


@strategy(paper="prompt lookup", guarantee=Guarantee.LOSSLESS, family="lookup")
def prompt_lookup(
    target: CausalSession,
    ask: Ask,
    *,
    ngram: Annotated[int, Knob(1, 8, "longest run of tokens that is searched")] = 3,
    length: Annotated[int, Knob(1, 32, "most tokens copied into a draft")] = 10,
) -> Iterator[Step]:
    """Yield one step per target call: the copied tokens that agreed, then the target's own."""
    while ask.open:
        slot = len(target.tokens)
        start, x = find_copy(target.tokens, ngram, min(length, ask.left - 1))
        scores = target.score(x)
        n, token = follow_chain(scores.p_NV, x, slot, ask.chance)
        kept = ask.take([*x[:n], token])
        target.commit(kept)
        yield Step(judged(slot, x, n, kept, scores), note=f"copied from slot {start}" if x else "no copy")


def find_copy(tokens: Sequence[int], ngram: int, length: int) -> tuple[int, list[int]]:
    """Where the longest repeated ending (at most `ngram` tokens) was last seen, and up to `length` tokens behind it.

    >>> find_copy([1, 2, 3, 9, 1, 2], ngram=3, length=2)
    (2, [3, 9])
    """
    for m in range(min(ngram, len(tokens) - 1), 0, -1):
        ending = list(tokens[-m:])
        for start in range(len(tokens) - m - 1, -1, -1):
            if tokens[start] == ending[0] and list(tokens[start : start + m]) == ending:
                return start + m, list(tokens[start + m : start + m + length])
    return -1, []
