"""Traversal verification: a draft tree is judged from its leaves up, whole paths at a time, the longest first.

Weng et al. 2025 (2505.12398). The tree is that of recursive branching. A path whose target probability makes up for
an unlikely token on its way may stay where a verdict from the top would have ended; a refused leaf leaves its parent
a smaller claim on p, and the parent is tried next. On a chain no rule keeps more tokens: with branch 1 it is block
verification. With siblings it keeps more on average, but laws exist for which the verdict from the top does better.
At temperature 0, where q holds one token only, it is speculative sampling.
Show: which nodes were tried, beside recursive branching on the same tree.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from backend.chance import Ask
from backend.couplings import figures, siblings
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.trees import draft_siblings, judged_tree, traverse_tree
from backend.types import Guarantee, Knob, Step


@strategy(paper="2505.12398", guarantee=Guarantee.LOSSLESS, family="draft model")
def traversal(
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
        scores = target.score(x, parents)
        path, behind_V, refused = traverse_tree(scores.p_NV, q, x, parents, ask.chance)
        kept = ask.take([*(x[i] for i in path), ask.chance.pick(behind_V)])
        target.commit(kept)
        draft.commit(kept)
        tried = len(refused) + len(path[-1:])
        marks = judged_tree(slot, x, parents, path, kept, scores, q, refused)
        note = f"{tried} of {len(x)} guesses tried"
        yield Step(marks, note=note, measure=partial(figures, scores.p_NV, q, branch, siblings))
