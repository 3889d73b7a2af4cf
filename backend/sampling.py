"""Acceptance rules, residuals and filters: the maths of verifying a chain of guesses, each rule exactly once.

p is the target's law, q the drafter's, x the draft; rows are given x[:i], so p has one row more than x. At
temperature 0 both are one-hot and every rule here becomes exact greedy matching.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from backend.chance import Chance
from backend.peaks import peak
from backend.protocols import Scores
from backend.types import Fate, Mark, Sampling


def distribution(raw_NV: Tensor, sampling: Sampling, seen: Sequence[Iterable[int]] = ()) -> Tensor:
    """Turn logits into p: repetition penalty, temperature, top-k, top-p, min-p, in this order.

    Args:
        raw_NV: logits, float. seen: for each row the tokens that the repetition penalty applies to (prompt and text
            so far); only read if the penalty is not 1.

    Returns:
        p_NV, same dtype; rows sum to 1; one-hot at the largest logit for temperature 0.
    """
    if sampling.repetition_penalty != 1.0:
        raw_NV = raw_NV.clone()
        for raw_V, tokens in zip(raw_NV, seen, strict=True):
            at = torch.tensor(sorted(set(tokens)), dtype=torch.long, device=raw_NV.device)
            raw_V[at] = torch.where(
                raw_V[at] > 0, raw_V[at] / sampling.repetition_penalty, raw_V[at] * sampling.repetition_penalty
            )
    if sampling.temperature == 0.0:
        return torch.zeros_like(raw_NV).scatter_(-1, peak(raw_NV)[:, None], 1.0)
    # the largest logit first: dividing by a small temperature must not run out of range
    p_NV = torch.softmax((raw_NV - raw_NV.amax(dim=-1, keepdim=True)) / sampling.temperature, dim=-1)
    if 0 < sampling.top_k < p_NV.shape[-1]:
        least_N1 = p_NV.topk(sampling.top_k, dim=-1).values[..., -1:]
        p_NV = _renormalise(p_NV.masked_fill(p_NV < least_N1, 0.0))
    if sampling.top_p < 1.0:
        sorted_NV, order_NV = p_NV.sort(dim=-1, descending=True, stable=True)
        before_NV = sorted_NV.cumsum(dim=-1) - sorted_NV
        sorted_NV = sorted_NV.masked_fill(before_NV >= sampling.top_p, 0.0)  # the token that crosses the line stays
        p_NV = _renormalise(torch.zeros_like(p_NV).scatter_(-1, order_NV, sorted_NV))
    if sampling.min_p > 0.0:
        p_NV = _renormalise(p_NV.masked_fill(p_NV < sampling.min_p * p_NV.amax(dim=-1, keepdim=True), 0.0))
    return p_NV


def accept_chain(p_NV: Tensor, q: Sequence[Tensor], x: Sequence[int], chance: Chance) -> int:
    """How many of the drafted tokens stay: x_i with chance min(1, p_i / q_i), up to the first no.

    Leviathan et al. 2023 (2211.17192), algorithm 1. Follow with `residual` at the first no, or a pick from p[len(x)].
    """
    for i, token in enumerate(x):
        if not chance.flip(min(1.0, float(p_NV[i, token]) / float(q[i][token]))):
            return i
    return len(x)


def residual(p_V: Tensor, q_V: Tensor) -> Tensor:
    """norm(max(p - q, 0)): the law of the token drawn after a rejection.

    Where p = q up to rounding nothing is left, and a rejection has probability 0; p is returned for that case.
    """
    if p_V.max() >= 1.0:  # one-hot, as at temperature 0: what a rejection leaves of it is itself
        return p_V
    rest_V = (p_V - q_V).clamp_min(0.0)
    total = rest_V.sum()
    return rest_V / total if total > 0 else p_V


def accept_block(p_NV: Tensor, q: Sequence[Tensor], x: Sequence[int], chance: Chance) -> tuple[int, Tensor]:
    """Block verification: how many drafted tokens stay, and the law of the token behind them.

    Sun et al. 2024 (2403.10444), algorithm 2. With P_i = min(1, P_{i-1} p_i(x_i) / q_i(x_i)) every prefix i gets an
    own trial with chance h_i, and the LONGEST prefix whose trial succeeds stays, not the one before the first
    failure. Trials are independent, so they are drawn from the longest down.
    """
    carry = [1.0]
    for i, token in enumerate(x):
        carry.append(min(1.0, carry[-1] * float(p_NV[i, token]) / float(q[i][token])))
    for i in range(len(x), 0, -1):
        if i == len(x):
            rest_V, h = p_NV[i], carry[i]
        else:
            rest_V = (carry[i] * p_NV[i] - q[i]).clamp_min(0.0)
            z = float(rest_V.sum())
            h = z / (z + 1.0 - carry[i]) if z > 0 else 0.0
        if chance.flip(h):
            return i, rest_V / rest_V.sum()
    return 0, residual(p_NV[0], q[0]) if x else p_NV[0]


def follow_chain(p_NV: Tensor, x: Sequence[int], slot: int, chance: Chance) -> tuple[int, int]:
    """Sample the target and follow the draft while it says the same: exact for ANY draft, however it was made.

    Args:
        slot: the slot of x[0]. Every draw uses the noise of its slot, so the text is the one that plain decoding
            prints with the same seed.

    Returns:
        n, token: how many guesses agreed, and the token drawn behind them.
    """
    for i, guess in enumerate(x):
        token = chance.pick(p_NV[i], slot + i)
        if token != guess:
            return i, token
    return len(x), chance.pick(p_NV[len(x)], slot + len(x))


def judged(
    slot: int, x: Sequence[int], n: int, kept: Sequence[int], scores: Scores, q: Sequence[Tensor] = ()
) -> tuple[Mark, ...]:
    """Marks of a judged chain: what became of every guess, then the token drawn behind the kept ones.

    Args:
        slot: the slot of x[0]. n: guesses that were accepted. kept: what `Ask.take` let through of x[:n] and the
            drawn token. q: the drafter's laws, if it has any.
    """
    marks = []
    for i, token in enumerate(x):
        fate = Fate.KEPT if i < min(n, len(kept)) else Fate.REJECTED if i == n < len(kept) else Fate.UNREAD
        options = scores.options(i) if fate is Fate.KEPT else ()
        q_x = shorten(q[i][token]) if q else None
        marks.append(Mark(slot + i, token, fate, shorten(scores.p_NV[i, token]), q_x, None, options))
    if len(kept) > n:
        marks.append(drawn(slot + n, kept[n], Fate.FIXED if n < len(x) else Fate.BONUS, scores, n))
    return tuple(marks)


def drawn(slot: int, token: int, fate: Fate, scores: Scores, row: int) -> Mark:
    """Mark of a token that was drawn from row `row` of the target's scores."""
    return Mark(slot, token, fate, shorten(scores.p_NV[row, token]), None, None, scores.options(row))


def guesses(slot: int, tokens: Sequence[int]) -> tuple[Mark, ...]:
    """Marks of tokens that stand on the canvas unverified, for live views."""
    return tuple(Mark(slot + i, token, Fate.GUESS) for i, token in enumerate(tokens))


def shorten(x: Tensor | float) -> float:
    """A probability rounded to six significant digits, for marks."""
    return float(f"{float(x):.6g}")


def _renormalise(p_NV: Tensor) -> Tensor:
    return p_NV / p_NV.sum(dim=-1, keepdim=True)
