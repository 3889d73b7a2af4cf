"""Laws of a place in which codes that look alike share their chances: the maths of relaxed speculation.

Letters: V codes, K look-alikes, N rows of a drafted tree; p is the target's law, q the drafter's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.protocols import PictureSession
from backend.sampling import shorten

OVERRATED = 8  # codes that `moved_towards` helps, those that the draft overrates most
WORTH = 1e-3  # chance that a code must lack to be helped: moving less takes as long


class Drift:
    """How far the laws of a picture's places are from the target's, from its first place on."""

    def __init__(self) -> None:
        self._same = self._same_at_least = 1.0

    def over(self, used_NV: Tensor, p_NV: Tensor, nodes: Sequence[int], bound: float | None) -> dict[str, float]:
        """Figures of a step that decided the places behind these nodes, -1 for the text.

        `moved`, the largest distance of the law used from the target's, and `mean_moved`; `bound`, what `moved` can be
        at most. `picture`: the chance that the target with the same luck would have painted something else by now,
        1 - prod(1 - distance) over all places so far; its mean over pictures bounds the distance of their law.
        `picture_bound`: what that can be at most. There are no bounds where bound is None.
        """
        rows = [node + 1 for node in nodes]
        off_N = (used_NV[rows] - p_NV[rows]).abs().sum(1) / 2
        self._same *= float((1 - off_N).prod())
        found = {"moved": float(off_N.max()), "mean_moved": float(off_N.mean()), "picture": 1 - self._same}
        if bound is not None:
            self._same_at_least *= (1 - bound) ** len(rows)
            found |= {"bound": bound, "picture_bound": 1 - self._same_at_least}
        return {name: shorten(number) for name, number in found.items()}


def moved_below(
    p_NV: Tensor,
    q: Sequence[Tensor],
    parents: Sequence[int],
    target: PictureSession,
    k: int,
    delta: float,
) -> Tensor:
    """The laws [N, V] of a drafted tree, `moved_towards` the draft's wherever a node has children.

    Args:
        p_NV: row 0 after the text, row i + 1 after node i. q: in the same order, as far as nodes have children.
    """
    used_NV = p_NV.clone()
    for row in sorted({parent + 1 for parent in parents}):
        used_NV[row] = moved_towards(p_NV[row], q[row].to(p_NV), target, k, delta)
    return used_NV


def lent_below(
    p_NV: Tensor,
    x: Sequence[int],
    parents: Sequence[int],
    target: PictureSession,
    k: int,
    delta: float,
    lam: float,
    released: bool = False,
) -> tuple[Tensor, float | None]:
    """The same for trees of candidates by `lent`, and the most that a place can be off; None where that is unknown."""
    used_NV, bound = p_NV.clone(), 0.0
    for row in sorted({parent + 1 for parent in parents}):
        below = [x[i] for i, parent in enumerate(parents) if parent + 1 == row]
        used_NV[row] = lent(p_NV[row], below, target, k, delta, lam, released)
        bound = max(bound, sum(max(0.0, lam - 1) * float(p_NV[row, token]) for token in below) if lam else delta)
    return used_NV, None if released else min(1.0, bound)


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
        if missing < WORTH:
            break
        codes_K = target.neighbours(token)[0][:k]
        spare_K = (out_V - q_V)[codes_K].clamp_min(0.0)
        before_K = spare_K.cumsum(0) - spare_K
        taken_K = torch.minimum(spare_K, (missing - before_K).clamp_min(0.0))
        out_V[codes_K] -= taken_K
        out_V[token] += taken_K.sum()
        left -= float(taken_K.sum())
    return out_V
