"""Relaxed EAGLE: the dynamic tree of feature drafting, judged so that codes that look alike stand in for each other.

LANTERN, Jang et al. 2024 (2410.03355), on EAGLE-2's tree as in the paper, and LANTERN++, Park et al. 2025 (2502.06352).
The nodes are candidates, the drafter's most probable codes: one stays with its own chance and that of the codes that
look most like it, the longest run of these that holds no more than delta, or (lambda - 1) p(x), together. What was used
is out after a no, so a place's law is off by the mass used, at most delta; see `relaxed`.
Show: the tree of EAGLE with longer paths; the mass moved beside its bound; delta 0 is EAGLE, which is lossless.
"""

from collections.abc import Iterator
from typing import Annotated

from backend.chance import Ask
from backend.protocols import HeadsSession, PictureSession
from backend.registry import strategy
from backend.relaxing import Drift, lent_below
from backend.trees import follow_tree, grow_tree, judged_tree
from backend.types import Guarantee, Knob, Step


@strategy(paper="2410.03355", guarantee=Guarantee.LOSSLESS, family="draft heads", only={"delta": 0.0, "lam": 0.0})
def relaxed_eagle(
    target: PictureSession,
    feature_draft: HeadsSession,
    ask: Ask,
    *,
    nodes: Annotated[int, Knob(1, 64, "guesses in the tree; the paper takes 60")] = 16,
    beam: Annotated[int, Knob(1, 16, "nodes of a depth that get children, and children of each; paper: 8")] = 2,
    depth: Annotated[int, Knob(1, 12, "most places drafted ahead; paper: 5")] = 8,
    least: Annotated[float, Knob(0.0, 1.0, "go no deeper below this chance of all leaves together; paper: 0")] = 0.2,
    k: Annotated[int, Knob(1, 1000, "codes that may stand in for a code, the most alike")] = 64,
    delta: Annotated[float, Knob(0.0, 1.0, "most chance that may be moved at a place; 0 is lossless")] = 0.1,
    lam: Annotated[float, Knob(0.0, 10.0, "instead, lambda - 1 times the code's own chance; 0 goes by delta")] = 0.0,
) -> Iterator[Step]:
    """Yield one step per target call: the tree, the path that stays, then one more code. figures: see `Drift.over`."""
    drift = Drift()
    x: list[int] = []  # the first call only reads the prompt: the drafter starts from hidden states
    parents: list[int] = []
    q: list[float] = []
    while ask.open:
        slot = len(target.tokens)
        scores = target.score(x, parents)
        p_NV = scores.p_NV.to("cpu")
        used_NV, bound = lent_below(p_NV, x, parents, target, k, delta, lam)
        path, token = follow_tree(used_NV, x, parents, slot, ask.chance)
        kept = ask.take([*(x[i] for i in path), token])
        target.commit(kept)
        feature_draft.commit(kept, scores.trail(path, len(kept)))
        figures = drift.over(used_NV, p_NV, [-1, *path][: len(kept)], bound)
        yield Step(judged_tree(slot, x, parents, path, kept, scores, chances=q), figures=figures)
        if ask.open:
            deepest = min(depth, feature_draft.reach, ask.left - 1)
            x, parents, q = grow_tree(feature_draft, nodes, beam, deepest, least)
