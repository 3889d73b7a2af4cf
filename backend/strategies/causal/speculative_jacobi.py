"""Speculative Jacobi: what one call draws for the places ahead is the draft that the next call judges.

Teng et al. 2024 (2410.01699), algorithm 1. Every place ahead of the text is drawn from the law that it has given the
guesses in front of it. One call later these are judged as any draft is, q being the law that each was drawn from;
behind a refused one all are drawn anew, by chance of their own, so that they are honest drafts again. Places that enter
the window get a first guess by a rule, judged by the law it came from, which keeps more, or as certain (q one-hot), as
in the paper. Here the law behind the last guess serves too, which the paper drops. No draft model, no training.
Show: the window over the calls, accepted, refreshed and new; acceptance by distance; flat parts of pictures go fast.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor

from backend.chance import Ask, Chance
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.sampling import accept_chain, guesses, judged, residual
from backend.types import Guarantee, Knob, Step

Start = Literal["repeat", "random", "sample"]


@strategy(paper="2410.01699", guarantee=Guarantee.LOSSLESS, family="parallel")
def speculative_jacobi(
    target: CausalSession,
    ask: Ask,
    *,
    window: Annotated[int, Knob(1, 64, "places guessed ahead of the text")] = 16,
    start: Annotated[
        Start, Knob(None, None, "first guesses: the token in front, any token, or a draw from the law in front")
    ] = "sample",
    belief: Annotated[
        Literal["certain", "law"], Knob(None, None, "first guesses are judged as certain, or by the law they came from")
    ] = "law",
) -> Iterator[Step]:
    """Yield one step per target call: the guesses that stay, the token behind them, and the window of the next call.

    figures: `window`, guesses that were judged or unread; `accepted`; in the new window, in the order of its places,
    how many were `refreshed`, that is drawn from their own law, and how many are `new`; `first`, how many of the
    accepted ones were still first guesses.
    """
    x = [target.tokens[-1]] * min(window, ask.left - 1) if start == "repeat" else []  # no law to draw from yet
    q: list[Tensor | None] = [None] * len(x)
    refreshed = 0  # places at the front of the window that were drawn from their own law
    while ask.open:
        slot = len(target.tokens)
        scores = target.score(x)
        p_NV = scores.p_NV
        q_N = [certain(p_V, token) if q_V is None else q_V for p_V, token, q_V in zip(p_NV, x, q, strict=False)]
        n = accept_chain(p_NV, q_N, x, ask.chance)
        kept = ask.take([*x[:n], ask.chance.pick(p_NV[n] if n == len(x) else residual(p_NV[n], q_N[n]))])
        target.commit(kept)
        marks = judged(slot, x, n, kept, scores, q_N)
        stay = min(n, len(kept))
        figures = {"window": len(x), "accepted": stay, "first": max(0, stay - refreshed)}
        room = min(window, ask.left - 1) if ask.open else 0
        q = list(p_NV[n + 1 :][:room])
        x = [ask.chance.pick(p_V) for p_V in p_NV[n + 1 :][:room]]  # whatever the judgement was: honest drafts
        refreshed = len(x)
        more, laws = first_guesses(start, room - len(x), (x or kept)[-1], p_NV[-1], belief, ask.chance)
        x, q = x + more, q + laws
        figures |= {"refreshed": refreshed, "new": len(more)}
        yield Step((*marks, *guesses(slot + len(kept), x)), figures={k: float(v) for k, v in figures.items()})


def first_guesses(
    start: Start, count: int, token: int, p_V: Tensor, belief: str, chance: Chance
) -> tuple[list[int], list[Tensor | None]]:
    """Guesses for places that enter the window, and the laws they are judged by, None for "certain".

    token: the one in front of them. p_V: the law of the last place that was scored.
    """
    if start == "repeat":
        return [token] * count, [None] * count
    q_V = p_V if start == "sample" else torch.full_like(p_V, 1 / len(p_V))
    return [chance.pick(q_V) for _ in range(count)], [q_V if belief == "law" else None] * count


def certain(p_V: Tensor, token: int) -> Tensor:
    """The one-hot law at the token, as long as p."""
    return torch.zeros_like(p_V).index_fill_(0, torch.tensor(token, device=p_V.device), 1.0)
