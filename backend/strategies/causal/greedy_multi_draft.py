"""Greedy multi-draft: the draft's likeliest tokens and one sampled token, with a rule that no other can beat.

Hu et al. 2025 (2502.18779). At the first slot of a step all but one draft start with the drafter's most likely tokens,
the last one with a token drawn from what is left; behind that every draft goes on alone, as in speculative sampling.
For drafts of this kind the best possible rule is known and is one line. At temperature 0 only one token has a chance,
so that one draft remains.
Show: acceptance of the first slot, equal to the best possible, beside that of a single draft.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from torch import Tensor

from backend.chance import Ask
from backend.couplings import Drafts, choose_greedy, draft_greedy, figures, greedy
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.trees import judged_tree
from backend.types import Guarantee, Knob, Step


@strategy(paper="2502.18779", guarantee=Guarantee.LOSSLESS, family="draft model")
def greedy_multi_draft(
    target: CausalSession,
    draft: CausalSession,
    ask: Ask,
    *,
    drafts: Annotated[int, Knob(1, 16, "n: drafts that start with different tokens")] = 4,
    gamma: Annotated[int, Knob(1, 8, "tokens in each draft")] = 4,
) -> Iterator[Step]:
    """Yield one step per target call: the judged tree, then one fixed or bonus token."""
    while ask.open:
        slot = len(target.tokens)
        tree = Drafts()
        ends = [-1]  # the node that every draft has reached
        q: list[Tensor] = []
        for i in range(min(gamma, ask.left - 1)):
            q = list(draft.score(tree.tokens, tree.parents).p_NV)  # of all drafts in one call
            n = drafts if i == 0 else 1
            ends = [tree.hang(end, x) for end in ends for x in draft_greedy(q[end + 1], n, ask.chance)]
        scores = target.score(tree.tokens, tree.parents)
        p = scores.p_NV
        path, token, refused = tree.descend(p, q, choose_greedy, ask.chance)
        kept = ask.take([*(tree.tokens[i] for i in path), token])
        target.commit(kept)
        draft.commit(kept)
        marks = judged_tree(slot, tree.tokens, tree.parents, path, kept, scores, q, refused)
        yield Step(marks, note=f"{len(tree.tokens)} guesses", measure=partial(figures, p, q, drafts, greedy))
