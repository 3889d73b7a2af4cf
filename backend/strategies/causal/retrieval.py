"""Retrieval: texts written before are searched for the ending of this one, and what followed there is the draft.

REST, He et al. 2023 (2311.08252). The role `store` is a datastore: its law is how often each token followed the
longest ending of the text that it holds. Continuations form a trie whose weights are the shares of the matches that
run through a node; the heaviest nodes are the draft tree. The target's own samples are followed down the tree, which
is exact for any tree.
Show: phrases that the model has used before come whole; how far its habits carry without any model that drafts.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Annotated

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.trees import follow_tree, judged_tree
from backend.types import Guarantee, Knob, Step

BRANCH = 8  # continuations of one node that are looked at


@strategy(paper="2311.08252", guarantee=Guarantee.LOSSLESS, family="lookup")
def retrieval(
    target: CausalSession,
    store: CausalSession,
    ask: Ask,
    *,
    nodes: Annotated[int, Knob(1, 64, "guesses in the tree; the paper's tree has 64")] = 16,
    length: Annotated[int, Knob(1, 16, "most tokens taken from a place in the datastore")] = 10,
    floor: Annotated[float, Knob(0.0, 1.0, "share of the matches that a guess must at least have")] = 0.1,
) -> Iterator[Step]:
    """Yield one step per target call: the tree, the path that agreed, then the target's own token."""
    while ask.open:
        slot = len(target.tokens)
        x, parents, weight = heaviest(store, nodes, min(length, ask.left - 1), floor)
        scores = target.score(x, parents)
        path, token = follow_tree(scores.p_NV, x, parents, slot, ask.chance)
        kept = ask.take([*(x[i] for i in path), token])
        target.commit(kept)
        store.commit(kept)
        note = f"the store expects {weight:.1f} of {len(x)}" if x else "nothing retrieved"
        yield Step(judged_tree(slot, x, parents, path, kept, scores), note=note)


def heaviest(store: CausalSession, nodes: int, deepest: int, floor: float) -> tuple[list[int], list[int], float]:
    """Tokens and parents of the heaviest nodes behind the text, heaviest first, and the sum of their weights.

    A node weighs what its parent weighs times the store's chance of its token there, so never more than its parent.
    """
    tokens: list[int] = []
    parents: list[int] = []
    total, order = 0.0, count()
    border: list[tuple[float, int, int, int, int]] = []  # minus weight, order of finding, depth, parent, token
    node, weight, depth = -1, 1.0, 0
    while len(tokens) < nodes:
        if depth < deepest:
            for token, chance in store.score(tokens, parents).options(node + 1, BRANCH):
                if chance > 0 and weight * chance >= floor:
                    heappush(border, (-weight * chance, next(order), depth + 1, node, token))
        if not border:
            break
        minus, _, depth, parent, token = heappop(border)
        node, weight = len(tokens), -minus
        tokens.append(token)
        parents.append(parent)
        total += weight
    return tokens, parents, total
