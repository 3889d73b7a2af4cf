"""Hydra: heads like Medusa's, but each reads the guesses before its own, so that a path of the tree is one thought.

Ankner et al. 2024 (2402.05109). Head k sees the target's hidden state and the tokens drafted on the way to its place,
so the tree is filled depth by depth. Judged as Medusa's tree: exactly, or by typical acceptance.
Show: beside Medusa on the same text, longer accepted paths from a tree of the same size.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from backend.chance import Ask
from backend.protocols import CausalSession, HeadsSession
from backend.registry import strategy
from backend.trees import fill_ranks, follow_tree, follow_typical, judged_tree, likeliest_ranks
from backend.types import Guarantee, Knob, Step


@strategy(paper="2402.05109", guarantee=Guarantee.LOSSLESS, family="draft heads", only={"rule": "lossless"})
def hydra(
    target: CausalSession,
    chained_heads: HeadsSession,
    ask: Ask,
    *,
    nodes: Annotated[int, Knob(1, 64, "guesses in the tree")] = 16,
    rule: Annotated[Literal["lossless", "typical"], Knob(None, None, "how the tree is judged")] = "lossless",
    epsilon: Annotated[float, Knob(0.0, 1.0, "typical: a token above this chance always passes")] = 0.09,
    alpha: Annotated[float, Knob(0.0, 1.0, "typical: or one above this part of exp(-entropy)")] = 0.3,
) -> Iterator[Step]:
    """Yield one step per target call: the tree, the path that was accepted, then the target's own token."""
    x: list[int] = []  # the first call only reads the prompt: heads start from a hidden state
    parents: list[int] = []
    q: list[float] = []
    while ask.open:
        slot = len(target.tokens)
        scores = target.score(x, parents)
        if rule == "typical":
            path, token = follow_typical(scores.p_NV, x, parents, slot, ask.chance, epsilon, alpha)
        else:
            path, token = follow_tree(scores.p_NV, x, parents, slot, ask.chance)
        kept = ask.take([*(x[i] for i in path), token])
        target.commit(kept)
        chained_heads.commit(kept, scores.trail(path, len(kept)))
        yield Step(judged_tree(slot, x, parents, path, kept, scores, chances=q))
        if ask.open:
            ranks = likeliest_ranks(chained_heads.odds, nodes, min(chained_heads.reach, ask.left - 1))
            x, parents, q = fill_ranks(chained_heads, ranks)
