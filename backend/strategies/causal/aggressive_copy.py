"""Aggressive copying: the rest of the input is the draft, and copying goes on behind each edit once the place is found.

Input-guided aggressive decoding, Sun et al. 2021 (2106.04970), there for grammar correction. While the text equals the
input, the input's next tokens are the draft. After a difference the last m tokens written are searched in the input,
m rising from the shortest match; where they occur exactly once, copying goes on behind them, and until then the target
writes alone. A prompt does not say where its input begins, so the first copy starts by such a match too. The target's
own samples are followed, which is exact for any draft.
Show: copied spans joined by single steps at the edits; calls are about spans plus edits.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.sampling import follow_chain, judged
from backend.types import Guarantee, Knob, Step

NOWHERE = -1


@strategy(paper="2106.04970", guarantee=Guarantee.LOSSLESS, family="lookup")
def aggressive_copy(
    target: CausalSession,
    ask: Ask,
    *,
    shortest: Annotated[int, Knob(1, 8, "fewest tokens that must match to go on copying")] = 1,
    longest: Annotated[int, Knob(1, 8, "most tokens that are matched to tell places apart")] = 3,
    length: Annotated[int, Knob(1, 64, "most tokens copied into a draft")] = 24,
) -> Iterator[Step]:
    """Yield one step per target call: the copied tokens that agreed, then the target's own."""
    source = list(target.tokens)
    written: list[int] = []
    place = NOWHERE  # of the input's next token, where the text is aligned with it
    while ask.open:
        slot = len(target.tokens)
        x = source[place : place + min(length, ask.left - 1)] if place != NOWHERE else []
        scores = target.score(x)
        n, token = follow_chain(scores.p_NV, x, slot, ask.chance)
        kept = ask.take([*x[:n], token])
        target.commit(kept)
        note = f"copied from slot {place}" if x else "no place in the input"
        yield Step(judged(slot, x, n, kept, scores), note=note)
        written += kept
        if place != NOWHERE and source[place : place + len(kept)] == kept:
            place += len(kept)
        else:
            place = align(source, written, shortest, longest)


def align(source: Sequence[int], written: Sequence[int], shortest: int, longest: int) -> int:
    """The place behind the only occurrence of the text's last m tokens, for the least m that has just one; or NOWHERE.

    >>> align([5, 6, 7, 6, 8], [9, 7, 6], shortest=1, longest=3)
    4
    """
    for m in range(shortest, min(longest, len(written)) + 1):
        ending = list(written[-m:])
        places = [
            start + m
            for start in range(len(source) - m + 1)
            if source[start] == ending[0] and list(source[start : start + m]) == ending
        ]
        if len(places) <= 1:
            return places[0] if places else NOWHERE
    return NOWHERE
