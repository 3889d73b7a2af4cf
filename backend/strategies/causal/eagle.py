"""EAGLE: one layer continues the target's own features, and the tree grows where it is surest.

Li et al. 2024 (2401.15077); the dynamic tree is EAGLE-2's (2406.16858), the training on its own predictions EAGLE-3's
(2503.01840). The drafter reads each token together with the hidden state it was read from, and predicts the next
hidden state; the target's head turns that into a law. At each depth the nodes of largest cumulative chance get
children, and the best of all nodes are judged in one call: the target's own samples are followed down the tree. Here
drafting ends early, too, where another call of the drafter is unlikely to be of use.
Show: a deep narrow tree where the text is predictable, a broad flat one where it is not; node size is confidence.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from backend.chance import Ask
from backend.protocols import CausalSession, HeadsSession
from backend.registry import strategy
from backend.trees import follow_tree, follow_typical, grow_tree, judged_tree
from backend.types import Guarantee, Knob, Step


@strategy(paper="2401.15077", guarantee=Guarantee.LOSSLESS, family="draft heads", only={"rule": "lossless"})
def eagle(
    target: CausalSession,
    feature_draft: HeadsSession,
    ask: Ask,
    *,
    nodes: Annotated[int, Knob(1, 64, "guesses in the tree; the paper takes 60")] = 8,
    beam: Annotated[int, Knob(1, 16, "nodes of a depth that get children, and children of each; paper: 10")] = 2,
    depth: Annotated[int, Knob(1, 12, "most places drafted ahead; paper: 7")] = 6,
    least: Annotated[float, Knob(0.0, 1.0, "go no deeper below this chance of all leaves together; paper: 0")] = 0.2,
    rule: Annotated[Literal["lossless", "typical"], Knob(None, None, "how the tree is judged")] = "lossless",
    epsilon: Annotated[float, Knob(0.0, 1.0, "typical: a token above this chance always passes")] = 0.09,
    alpha: Annotated[float, Knob(0.0, 1.0, "typical: or one above this part of exp(-entropy)")] = 0.3,
) -> Iterator[Step]:
    """Yield one step per target call: the tree, the path that was accepted, then the target's own token."""
    x: list[int] = []  # the first call only reads the prompt: the drafter starts from hidden states
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
        feature_draft.commit(kept, scores.trail(path, len(kept)))
        yield Step(judged_tree(slot, x, parents, path, kept, scores, chances=q))
        if ask.open:
            deepest = min(depth, feature_draft.reach, ask.left - 1)
            x, parents, q = grow_tree(feature_draft, nodes, beam, deepest, least)
