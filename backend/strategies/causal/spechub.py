"""SpecHub: two drafts in a pair, one of which always starts with the draft model's most likely token.

Sun et al. 2024 (2411.05289). The pair is the hub token and another one; a small linear programme over such pairs has a
solution in closed form: the other token takes what it can, the hub takes the rest. The same pairs come up as in greedy
multi-draft decoding with two drafts, and one of them is taken exactly as often: a special case of it, reached by
another road. Behind the first slot both drafts go on alone. At temperature 0 only one draft remains.
Show: the same acceptance as greedy multi-draft with two drafts.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from torch import Tensor

from backend.chance import Ask
from backend.couplings import Drafts, choose_hub, draft_hub, figures, greedy
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.trees import judged_tree
from backend.types import Guarantee, Knob, Step


@strategy(paper="2411.05289", guarantee=Guarantee.LOSSLESS, family="draft model")
def spechub(
    target: CausalSession,
    draft: CausalSession,
    ask: Ask,
    *,
    gamma: Annotated[int, Knob(1, 8, "tokens in each of the two drafts")] = 4,
) -> Iterator[Step]:
    """Yield one step per target call: the judged tree, then one fixed or bonus token."""
    while ask.open:
        slot = len(target.tokens)
        tree = Drafts()
        ends = [-1]  # the node that every draft has reached
        q: list[Tensor] = []
        for i in range(min(gamma, ask.left - 1)):
            q = list(draft.score(tree.tokens, tree.parents).p_NV)  # of both drafts in one call
            if i == 0:
                ends = [tree.hang(-1, x) for x in draft_hub(q[0], ask.chance)]
            else:
                ends = [tree.hang(end, ask.chance.pick(q[end + 1])) for end in ends]
        scores = target.score(tree.tokens, tree.parents)
        p = scores.p_NV
        path, token, refused = tree.descend(p, q, choose_hub, ask.chance)
        kept = ask.take([*(tree.tokens[i] for i in path), token])
        target.commit(kept)
        draft.commit(kept)
        marks = judged_tree(slot, tree.tokens, tree.parents, path, kept, scores, q, refused)
        yield Step(marks, note=f"{len(tree.tokens)} guesses", measure=partial(figures, p, q, 2, greedy))
