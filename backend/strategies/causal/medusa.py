"""Medusa: extra heads guess the next tokens from one hidden state, each for a place of its own, and a tree tries them.

Medusa-1, Cai et al. 2024 (2401.10774). The heads know nothing of each other's guesses: the a-th best guess for one
place is tried before the b-th best for the next, in a fixed tree of the combinations that are right most often. The
target's own samples are followed down the tree, which is exact for any tree; typical acceptance takes what the target
finds likely enough instead, which is quicker and no longer the target's law.
Show: a tree of ranks, its accepted path; how soon guesses fail that ignore what was guessed before them.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from backend.chance import Ask
from backend.protocols import CausalSession, HeadsSession
from backend.registry import strategy
from backend.trees import fill_ranks, follow_tree, follow_typical, judged_tree, likeliest_ranks
from backend.types import Guarantee, Knob, Step


@strategy(paper="2401.10774", guarantee=Guarantee.LOSSLESS, family="draft heads", only={"rule": "lossless"})
def medusa(
    target: CausalSession,
    heads: HeadsSession,
    ask: Ask,
    *,
    nodes: Annotated[int, Knob(1, 64, "guesses in the tree; the paper's tree has 63")] = 16,
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
        heads.commit(kept, scores.trail(path, len(kept)))
        yield Step(judged_tree(slot, x, parents, path, kept, scores, chances=q))
        if ask.open:
            ranks = likeliest_ranks(heads.odds, nodes, min(heads.reach, ask.left - 1))
            x, parents, q = fill_ranks(heads, ranks)
