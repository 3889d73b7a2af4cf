"""Recursive speculative decoding: siblings of a draft tree are drawn without replacement, so that none is wasted.

Jeon et al. 2024 (2402.14160), with constant branching (RSD-C). Under every node the drafter picks different tokens,
each from q without its elder siblings; the target judges a child against what the refused elders left of p, and below
the one that stays it goes on. The tree has `branch` nodes for the next slot and half as many siblings at each slot
behind it, one at least. With branch 1 it is speculative sampling, and so it is at temperature 0, where q holds one
token only.
Show: acceptance of the siblings beside a single draft's and the best that any rule could reach with them; tokens per
call beside speculative sampling's.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from backend.chance import Ask
from backend.couplings import figures, siblings
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.trees import accept_tree, draft_siblings, judged_tree
from backend.types import Guarantee, Knob, Step


@strategy(paper="2402.14160", guarantee=Guarantee.LOSSLESS, family="draft model")
def recursive_branching(
    target: CausalSession,
    draft: CausalSession,
    ask: Ask,
    *,
    branch: Annotated[int, Knob(1, 6, "guesses for the next slot; half as many siblings at each further slot")] = 3,
    depth: Annotated[int, Knob(1, 8, "slots that the tree looks ahead")] = 4,
) -> Iterator[Step]:
    """Yield one step per target call: the judged tree, then one fixed or bonus token."""
    while ask.open:
        slot = len(target.tokens)
        x, parents, q = draft_siblings(draft, branch, min(depth, ask.left - 1), ask.chance)
        scores = target.score(x, parents)  # one call, a row for every node and one for the text
        path, behind_V, refused = accept_tree(scores.p_NV, q, x, parents, ask.chance)
        kept = ask.take([*(x[i] for i in path), ask.chance.pick(behind_V)])
        target.commit(kept)
        draft.commit(kept)
        marks = judged_tree(slot, x, parents, path, kept, scores, q, refused)
        yield Step(marks, note=f"{len(x)} guesses", measure=partial(figures, scores.p_NV, q, branch, siblings))
