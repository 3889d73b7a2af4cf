"""Relaxed speculation: codes that look alike stand in for each other, so that more of a drafted picture stays.

LANTERN, Jang et al. 2024 (2410.03355): a drafted code x may use the chances of those codes that look most like it, the
longest run of them that holds no more than delta together. LANTERN++, Park et al. 2025 (2502.06352): no more than
(lambda - 1) p(x). In both a draft is a candidate, not a draw: it stays with chance p(x) + s, and after a no it and the
codes it has used are out. That is sampling from p with a mass s moved onto x, so the law of a place is off by s, at
most delta over all siblings ("zeroed"). The released code throws out all k look-alikes after a no, which has no such
bound ("released"). "moved" is ours: mass moves between look-alikes from where the draft underrates to where it
overrates, at most delta in all, and the draft is judged as a draw, so every bit that is moved is kept more often.
Show: the mass moved beside its bound; codes kept as delta grows against what pictures lose; delta 0 is lossless.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from backend.chance import Ask
from backend.protocols import CausalSession, PictureSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.trees import accept_tree, draft_siblings, follow_tree, judged_tree
from backend.types import Guarantee, Knob, Step

OVERRATED = 8  # codes that "moved" helps, those that the draft overrates most
Rule = Literal["zeroed", "released", "moved"]


@strategy(
    paper="2410.03355",
    guarantee=Guarantee.LOSSLESS,
    family="draft model",
    only={"delta": 0.0, "lam": 0.0, "rule": "zeroed"},
)
def relaxed(
    target: PictureSession,
    draft: CausalSession,
    ask: Ask,
    *,
    depth: Annotated[int, Knob(1, 12, "places drafted ahead")] = 4,
    branch: Annotated[int, Knob(1, 8, "candidates for the next place; half as many for each place behind it")] = 1,
    k: Annotated[int, Knob(1, 1000, "codes that may stand in for a code, the most alike")] = 16,
    delta: Annotated[float, Knob(0.0, 1.0, "most chance that may be moved at a place; 0 is lossless")] = 0.1,
    lam: Annotated[float, Knob(0.0, 10.0, "instead, lambda - 1 times the code's own chance; 0 goes by delta")] = 0.0,
    rule: Annotated[Rule, Knob(None, None, "what happens to look-alikes after a no, or how mass moves")] = "zeroed",
) -> Iterator[Step]:
    """Yield one step per target call: the drafted codes, those that stay, then one more.

    figures, over the places that were decided: `moved`, the largest distance of the law used from the target's, and
    `mean_moved`; `bound`, what `moved` can be at most, where there is a bound.
    """
    while ask.open:
        slot = len(target.tokens)
        x, parents, q = draft_siblings(draft, branch, min(depth, ask.left - 1), ask.chance)
        scores = target.score(x, parents)
        p = list(scores.p_NV.to("cpu"))
        limits = []
        for node in range(-1, len(x)):
            below = [x[i] for i, parent in enumerate(parents) if parent == node]
            if below and rule == "moved":
                p[node + 1] = moved_towards(p[node + 1], q[node + 1].to("cpu"), target, k, delta)
            elif below:
                limits.append((lam - 1) * max(float(p[node + 1][token]) for token in below))
                p[node + 1] = lent(p[node + 1], below, target, k, delta, lam, rule == "released")
        used_NV = torch.stack(p)
        refused = None
        if rule == "moved":
            path, behind_V, refused = accept_tree(used_NV, q, x, parents, ask.chance)
            token = ask.chance.pick(behind_V)
        else:
            path, token = follow_tree(used_NV, x, parents, slot, ask.chance)
        kept = ask.take([*(x[i] for i in path), token])
        target.commit(kept)
        draft.commit(kept)
        rows = [0, *(i + 1 for i in path)]
        off_N = (used_NV[rows] - scores.p_NV.to("cpu")[rows]).abs().sum(1) / 2
        figures = {"moved": shorten(off_N.max()), "mean_moved": shorten(off_N.mean())}
        if rule == "moved" or (rule == "zeroed" and not lam):
            figures["bound"] = delta
        elif rule == "zeroed" and branch == 1:
            figures["bound"] = shorten(max([0.0, *limits]))
        yield Step(judged_tree(slot, x, parents, path, kept, scores, q, refused), figures=figures)


def lent(
    p_V: Tensor, x: Sequence[int], target: PictureSession, k: int, delta: float, lam: float, released: bool
) -> Tensor:
    """p with the mass of look-alikes moved onto the candidates, one after the other: the law of a place, [V].

    The total moved is at most delta, or for each x at most (lambda - 1) p(x). released: all k look-alikes of a
    candidate that is refused are out, and what they had goes to all codes that are left.
    """
    rest_V, onto_V, left = p_V.clone(), torch.zeros_like(p_V), delta
    for token in x:
        codes_K = target.neighbours(token)[0][:k]
        chance, reach = float(rest_V[token]), float(rest_V.sum())
        limit = (lam - 1) * chance if lam else delta * reach if released else left
        used_A = codes_K[rest_V[codes_K].cumsum(0) <= limit]
        lent_mass = float(rest_V[used_A].sum())
        left -= lent_mass
        onto_V[token] += chance + lent_mass
        rest_V[token] = 0.0
        rest_V[used_A] = 0.0
        after, behind_V = float(rest_V.sum()), rest_V.clone()
        behind_V[codes_K] = 0.0
        if released and float(behind_V.sum()) > 0:
            rest_V = behind_V * (after / behind_V.sum())
    return onto_V + rest_V


def moved_towards(p_V: Tensor, q_V: Tensor, target: PictureSession, k: int, delta: float) -> Tensor:
    """p with at most delta moved between look-alikes, from codes with p > q to those with q > p, nearest first. [V]"""
    if p_V.max() >= 1.0:  # one-hot, as at temperature 0: greedy decoding stays greedy
        return p_V
    out_V, left = p_V.clone(), delta
    for token in (q_V - p_V).topk(min(OVERRATED, len(p_V))).indices.tolist():
        missing = min(float(q_V[token] - out_V[token]), left)
        if missing <= 0:
            break
        codes_K = target.neighbours(token)[0][:k]
        spare_K = (out_V - q_V)[codes_K].clamp_min(0.0)
        before_K = spare_K.cumsum(0) - spare_K
        taken_K = torch.minimum(spare_K, (missing - before_K).clamp_min(0.0))
        out_V[codes_K] -= taken_K
        out_V[token] += taken_K.sum()
        left -= float(taken_K.sum())
    return out_V
