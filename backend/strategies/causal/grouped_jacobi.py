"""Grouped Jacobi: speculative Jacobi in which a guess stays if the group of codes like it is likely enough.

GSD, So et al. 2025 (2508.07747): the group of a guess x are the codes at most `width` ranks from it in the order of p
that are about as likely and look like it, and x stays with chance min(1, p(group) / q(group)) in place of
min(1, p(x) / q(x)). There is no bound on what that does to the law. `keep` is the idea of SJD++, Teng et al. 2025
(2512.07503), with a rule of our own: behind a refused guess those that the target still finds likely stay, with the law
that they were once drawn from; chosen for being likely, they are no honest draws of it, which also costs the law.
Show: the window as in `speculative_jacobi`, guesses that stay only thanks to their group, those kept behind a no.
"""

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor

from backend.chance import Ask
from backend.protocols import PictureSession
from backend.registry import strategy
from backend.sampling import guesses, judged, residual, shorten
from backend.types import Guarantee, Knob, Step


@strategy(paper="2508.07747", guarantee=Guarantee.LOSSLESS, family="parallel", only={"width": 0, "keep": 1.0})
def grouped_jacobi(
    target: PictureSession,
    ask: Ask,
    *,
    window: Annotated[int, Knob(1, 64, "places guessed ahead of the text")] = 16,
    width: Annotated[int, Knob(0, 64, "ranks to either side that a group spans; 0 is lossless")] = 7,
    near: Annotated[float, Knob(0.0, 1.0, "codes of a group are less than this apart in p")] = 0.15,
    like: Annotated[float, Knob(0.0, 1.0, "and less than this apart in looks; 1 is the largest distance")] = 0.5,
    keep: Annotated[float, Knob(0.0, 1.0, "guesses behind a refused one stay above this p; 1 keeps none")] = 1.0,
) -> Iterator[Step]:
    """Yield one step per target call: the guesses that stay, the token behind them, and the window of the next call.

    figures: as in `speculative_jacobi` `window`, `accepted`, `refreshed` and `new`; `relaxed`, how many of the accepted
    ones the token's own chance would have refused, in the mean; `reused`, guesses kept behind a refused one.
    """
    x = [target.tokens[-1]] * min(window, ask.left - 1)
    q: list[Tensor | None] = [None] * len(x)  # None: a first guess, judged as certain
    while ask.open:
        slot = len(target.tokens)
        scores = target.score(x)
        p = list(scores.p_NV.to("cpu"))
        q_N = [certain(p_V, token) if q_V is None else q_V for p_V, token, q_V in zip(p, x, q, strict=False)]
        n, relaxed = 0, 0.0
        while n < len(x):
            own = min(1.0, float(p[n][x[n]]) / float(q_N[n][x[n]]))
            group = group_of(p[n], x[n], target, width, near, like)
            grouped = min(1.0, float(p[n][group].sum()) / float(q_N[n][group].sum()))
            if not ask.chance.flip(grouped):
                break
            n, relaxed = n + 1, relaxed + max(0.0, 1.0 - own / grouped)
        kept = ask.take([*x[:n], ask.chance.pick(p[n] if n == len(x) else residual(p[n], q_N[n]))])
        target.commit(kept)
        marks = judged(slot, x, n, kept, scores, q_N)
        figures = {"window": len(x), "accepted": min(n, len(kept)), "relaxed": shorten(relaxed), "reused": 0}
        room = min(window, ask.left - 1) if ask.open else 0
        y: list[int] = []
        laws: list[Tensor | None] = []
        for i in range(n + 1, len(p))[:room]:
            stays = i < len(x) and float(p[i][x[i]]) > keep
            y.append(x[i] if stays else ask.chance.pick(p[i]))
            laws.append(q_N[i] if stays else p[i])
            figures["reused"] += stays
        figures |= {"refreshed": len(y) - figures["reused"], "new": room - len(y)}
        x, q = y + [(y or kept)[-1]] * (room - len(y)), laws + [None] * (room - len(y))
        yield Step((*marks, *guesses(slot + len(kept), x)), figures={name: float(v) for name, v in figures.items()})


def certain(p_V: Tensor, token: int) -> Tensor:
    """The one-hot law at the token, as long as p."""
    return torch.zeros_like(p_V).index_fill_(0, torch.tensor(token), 1.0)


def group_of(p_V: Tensor, token: int, target: PictureSession, width: int, near: float, like: float) -> Tensor:
    """The codes whose chances count for a token, itself among them."""
    if not width:
        return torch.tensor([token])
    order_V = p_V.sort(descending=True, stable=True).indices
    rank = int((order_V == token).nonzero())
    around_W = order_V[max(rank - width, 0) : rank + width + 1]
    codes_N, far_N = target.neighbours(token)
    alike_V = torch.zeros(len(p_V), dtype=torch.bool)
    alike_V[codes_N] = far_N < like
    alike_V[token] = True
    own = alike_V[around_W] & ((p_V[around_W] - p_V[token]).abs() < near) | (around_W == token)
    return around_W[own]
