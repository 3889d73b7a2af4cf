"""Suffix decoding: a trie of everything written so far proposes the likeliest continuation, longer where text repeats.

Oliaro et al. 2024 (2411.04975), with the tree of this request. For every ending of the text that occurred before,
the most frequent child is followed while the product of frequencies stays above a floor and the draft is no longer
than the match allows; the draft with the largest sum of such products is scored. The target's own samples are
followed, which is exact for any draft.
Show: drafts that grow from one token to dozens as the text repeats itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.sampling import follow_chain, judged
from backend.types import Guarantee, Knob, Step


@strategy(paper="2411.04975", guarantee=Guarantee.LOSSLESS, family="lookup")
def suffix(
    target: CausalSession,
    ask: Ask,
    *,
    depth: Annotated[int, Knob(2, 64, "longest run of tokens that the trie remembers")] = 24,
    factor: Annotated[
        float, Knob(0.25, 4.0, "draft length per token of the matched ending; depth bounds both together")
    ] = 1.0,
    floor: Annotated[float, Knob(0.0, 1.0, "a draft ends where its estimated chance falls below this")] = 0.1,
) -> Iterator[Step]:
    """Yield one step per target call: the guesses that agreed, then the target's own token."""
    trie = Trie(depth)
    trie.extend(target.tokens)
    while ask.open:
        slot = len(target.tokens)
        match, x = trie.propose(factor, floor)
        x = x[: ask.left - 1]
        scores = target.score(x)
        n, token = follow_chain(scores.p_NV, x, slot, ask.chance)
        kept = ask.take([*x[:n], token])
        target.commit(kept)
        trie.extend(kept)
        yield Step(judged(slot, x, n, kept, scores), note=f"ending of {match} seen before" if x else "ending is new")


@dataclass
class Node:
    """A run of tokens: how often it occurred, and what followed."""

    count: int = 0
    after: dict[int, Node] = field(default_factory=dict)


class Trie:
    """All runs of up to `depth` tokens of a growing text, with counts."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._root = Node()
        self._endings: list[Node] = [self._root]  # nodes of the empty ending, the last token, the last two, ...

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens to the text."""
        for token in tokens:
            longer = [self._root]
            for node in self._endings:
                child = node.after.setdefault(token, Node())
                child.count += 1
                longer.append(child)
            self._endings = longer[: self._depth]

    def propose(self, factor: float, floor: float) -> tuple[int, list[int]]:
        """Length of the matched ending and the draft behind it, for the ending with the largest sum of chances."""
        best, match, draft = 0.0, 0, list[int]()
        for m, node in enumerate(self._endings):
            total, chance, path = 0.0, 1.0, list[int]()
            while m and node.after and len(path) < max(1, factor * m):
                token, child = max(node.after.items(), key=lambda item: item[1].count)
                chance *= child.count / sum(other.count for other in node.after.values())
                if chance < floor:
                    break
                total += chance
                path.append(token)
                node = child
            if total >= best and path:
                best, match, draft = total, m, path
        return match, draft
