"""Lookahead decoding: Jacobi iterations run beside the text only to collect n-grams, which are then verified as drafts.

Fu et al. 2024 (2402.02057). A window of W columns and N - 1 levels holds the last N - 1 Jacobi iterations; level k of
column j guesses slot j + k behind the text and sees its own column above it and level 0 to its left. Every call
extends each column by one token, which makes W new n-grams for a pool keyed by their first token, and verifies up to
G pooled n-grams that start with the last token. The target's own samples are followed, which is exact for any draft.
Show: pool growth, and rows per call beside calls saved.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Annotated

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.sampling import guesses
from backend.trees import follow_tree, judged_tree, merge
from backend.types import Guarantee, Knob, Step


@strategy(paper="2402.02057", guarantee=Guarantee.LOSSLESS, family="parallel")
def lookahead(
    target: CausalSession,
    ask: Ask,
    *,
    window: Annotated[int, Knob(1, 16, "W: columns that are iterated in parallel")] = 5,
    ngram: Annotated[int, Knob(2, 8, "N: length of the n-grams collected")] = 4,
    verified: Annotated[int, Knob(1, 16, "G: most n-grams verified in a call, and kept for each first token")] = 5,
    from_prompt: Annotated[bool, Knob(None, None, "fill the pool with the prompt's n-grams first")] = True,
) -> Iterator[Step]:
    """Yield one step per target call: the verified n-grams, the path that agreed, then the target's own token."""
    pool = Pool(verified)
    text = list(target.tokens)
    if from_prompt:
        pool.add(text[i : i + ngram] for i in range(len(text) - ngram + 1))
    levels = [list(islice(cycle(text), window))]
    while ask.open:
        slot = len(target.tokens)
        x, parents = merge(gram[: ask.left - 1] for gram in pool.find(target.tokens[-1]))
        grid, above = hang(levels, len(x))
        scores = target.score([*x, *grid], [*parents, *above])
        path, token = follow_tree(scores.p_NV[: len(x) + 1], x, parents, slot, ask.chance)
        bottom = len(x) + len(grid) - window  # the row behind a node is one further down
        y = [ask.chance.pick(scores.p_NV[bottom + j + 1], slot + j + len(levels)) for j in range(window)]
        if len(levels) == ngram - 1:
            pool.add([*(level[j] for level in levels), y[j]] for j in range(window))
            levels = levels[1:]
        levels = [*levels, y]
        kept = ask.take([*(x[i] for i in path), token])
        target.commit(kept)
        marks = judged_tree(slot, x, parents, path, kept, scores)
        ahead = guesses(slot + len(kept), levels[0]) if ask.open else ()
        yield Step((*marks, *ahead), note=f"{len(pool)} n-grams, {len(x) + len(grid) + 1} rows")


def hang(levels: Sequence[Sequence[int]], offset: int) -> tuple[list[int], list[int]]:
    """Tokens and parents of the window: level 0 is a chain behind the text, every column hangs from it."""
    width = len(levels[0])
    tokens = [token for level in levels for token in level]
    chain = [-1 if j == 0 else offset + j - 1 for j in range(width)]
    return tokens, [*chain, *(offset + i for i in range(len(tokens) - width))]


class Pool:
    """N-grams by first token, the `size` most recent of each."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._grams: dict[int, OrderedDict[tuple[int, ...], None]] = {}

    def __len__(self) -> int:
        return sum(len(grams) for grams in self._grams.values())

    def add(self, grams: Iterator[Sequence[int]]) -> None:
        """Remember n-grams; one that is known becomes the most recent."""
        for first, *rest in grams:
            known = self._grams.setdefault(first, OrderedDict())
            known[tuple(rest)] = None
            known.move_to_end(tuple(rest))
            if len(known) > self._size:
                known.popitem(last=False)

    def find(self, first: int) -> list[tuple[int, ...]]:
        """What followed this token, most recent first."""
        return list(reversed(self._grams.get(first, {})))
