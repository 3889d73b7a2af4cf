"""Relaxed speculation: codes that look alike stand in for each other, so that more of a drafted picture stays.

LANTERN, Jang et al. 2024 (2410.03355): a drafted code x may use the chances of those codes that look most like it, the
longest run of them that holds no more than delta together. LANTERN++, Park et al. 2025 (2502.06352): no more than
(lambda - 1) p(x). "zeroed" and "released" are for candidates, the draft's most probable codes: x stays with chance
p(x) + s; after a no it and the codes it has used are out. That is sampling from p with a mass s moved onto x, so the
law of a place is off by s, at most delta over all siblings. The released code throws out all k look-alikes after a no,
which has no such bound ("released"). "moved", the default, is for drafts that are drawn, whose test is min(1, p/q): a
test for candidates would refuse them too often. Mass moves between look-alikes from where the draft underrates to
where it overrates, nearest first, at most delta in all, and each bit that is moved is kept more often. So at the same
draft it never refuses more than plain speculation: a picture's refusals fall by just the mass moved over its places.
Show: the mass moved beside its bound; codes kept as delta grows against what pictures lose; delta 0 is lossless.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from backend.chance import Ask
from backend.protocols import CausalSession, PictureSession
from backend.registry import strategy
from backend.relaxing import Drift, lent_below, moved_below
from backend.trees import accept_tree, draft_siblings, follow_tree, judged_tree
from backend.types import Guarantee, Knob, Step

Rule = Literal["zeroed", "released", "moved"]


@strategy(
    paper="2410.03355",
    guarantee=Guarantee.LOSSLESS,
    family="draft model",
    only={"delta": 0.0, "lam": 0.0, "rule": "moved"},
)
def relaxed(
    target: PictureSession,
    draft: CausalSession,
    ask: Ask,
    *,
    depth: Annotated[int, Knob(1, 64, "places drafted ahead")] = 16,
    branch: Annotated[int, Knob(1, 8, "candidates for the next place; half as many for each place behind it")] = 1,
    k: Annotated[int, Knob(1, 1000, "codes that may stand in for a code, the most alike")] = 64,
    delta: Annotated[float, Knob(0.0, 1.0, "most chance that may be moved at a place; 0 is lossless")] = 0.1,
    lam: Annotated[float, Knob(0.0, 10.0, "instead, lambda - 1 times the code's own chance; 0 goes by delta")] = 0.0,
    rule: Annotated[Rule, Knob(None, None, "mass moved for drafts that are drawn, or for candidates")] = "moved",
) -> Iterator[Step]:
    """Yield one step per target call: the drafted codes, those that stay, then one more. figures: see `Drift.over`."""
    drift = Drift()
    while ask.open:
        slot, most = len(target.tokens), min(depth, ask.left - 1)
        x, parents, q = draft_siblings(draft, branch, most, ask.chance if rule == "moved" else None)
        scores = target.score(x, parents)
        p_NV, refused = scores.p_NV.to("cpu"), None
        bound: float | None = delta
        if rule == "moved":
            used_NV = moved_below(p_NV, q, parents, target, k, delta)
            path, behind_V, refused = accept_tree(used_NV, q, x, parents, ask.chance)
            token = ask.chance.pick(behind_V)
        else:
            used_NV, bound = lent_below(p_NV, x, parents, target, k, delta, lam, rule == "released")
            path, token = follow_tree(used_NV, x, parents, slot, ask.chance)
        kept = ask.take([*(x[i] for i in path), token])
        target.commit(kept)
        draft.commit(kept)
        figures = drift.over(used_NV, p_NV, [-1, *path][: len(kept)], bound)
        yield Step(judged_tree(slot, x, parents, path, kept, scores, q, refused), figures=figures)
