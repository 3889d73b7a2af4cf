"""SpecTr: several independent drafts in one tree, and the target takes one of them as often as K-SEQ can.

Sun et al. 2023 (2310.15141). `sequence` draws whole drafts: those that the accepted tokens leave
behind drop out, and the rule knows how many are left. `token` draws as many fresh candidates for every slot, and goes
on from the first of them. One draft is speculative sampling; at temperature 0 all drafts are the same one.
Show: acceptance as drafts are added, beside the best that any rule could reach with them.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal

from torch import Tensor

from backend.chance import Ask
from backend.couplings import Drafts, choose_k_seq, figures, independent
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.trees import judged_tree
from backend.types import Guarantee, Knob, Step


@strategy(paper="2310.15141", guarantee=Guarantee.LOSSLESS, family="draft model")
def spectr(
    target: CausalSession,
    draft: CausalSession,
    ask: Ask,
    *,
    drafts: Annotated[int, Knob(1, 8, "K: independent drafts")] = 4,
    gamma: Annotated[int, Knob(1, 8, "tokens in each draft")] = 4,
    level: Annotated[
        Literal["token", "sequence"], Knob(None, None, "fresh candidates at every slot, or whole drafts")
    ] = "sequence",
) -> Iterator[Step]:
    """Yield one step per target call: the judged tree, then one fixed or bonus token."""
    while ask.open:
        slot = len(target.tokens)
        tree = Drafts()
        ends = [-1] * drafts  # the node that every draft has reached
        q: list[Tensor] = []
        for _ in range(min(gamma, ask.left - 1)):
            q = list(draft.score(tree.tokens, tree.parents).p_NV)  # of all drafts in one call
            ends = [tree.hang(end, ask.chance.pick(q[end + 1])) for end in ends]
            if level == "token":
                ends = ends[:1] * drafts
        scores = target.score(tree.tokens, tree.parents)
        p = scores.p_NV
        path, token, refused = tree.descend(p, q, choose_k_seq, ask.chance)
        kept = ask.take([*(tree.tokens[i] for i in path), token])
        target.commit(kept)
        draft.commit(kept)
        marks = judged_tree(slot, tree.tokens, tree.parents, path, kept, scores, q, refused)
        yield Step(marks, note=f"{len(tree.tokens)} guesses", measure=partial(figures, p, q, drafts, independent))
