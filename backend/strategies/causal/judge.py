"""Judge decoding: a head on the target's hidden states keeps guesses that are right though the target would differ.

Bachmann et al. 2025 (2501.19309). A linear head reads the state computed WITH a guess as input and says how likely the
guess is right; it stays if that is more than delta, or if the standard rule keeps it. Training-free rival (2601.04766):
it also stays where KL(q || p), at temperature 1 and before filters, is below a threshold: q and p are the laws that the
guess was drawn from and judged by. The standard rule alone is speculative sampling, and so is delta 1.
Show: guesses that only the judge kept; acceptance and mistakes as delta falls.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from backend.chance import Ask, Chance
from backend.protocols import CausalSession, JudgeSession
from backend.registry import strategy
from backend.sampling import judged, residual
from backend.types import Guarantee, Knob, Step


@strategy(paper="2501.19309", guarantee=Guarantee.LOSSLESS, family="draft model", only={"rule": "standard"})
def judge(
    target: CausalSession,
    draft: CausalSession,
    judge: JudgeSession,
    ask: Ask,
    *,
    rule: Annotated[Literal["judge", "divergence", "standard"], Knob(None, None, "what else keeps a guess")] = "judge",
    gamma: Annotated[int, Knob(1, 30, "tokens drafted before each target call")] = 8,
    delta: Annotated[float, Knob(0.3, 1.0, "a guess stays if the judge trusts it more; 1 is never reached")] = 0.5,
    threshold: Annotated[float, Knob(0.0, 8.0, "a guess stays if its two laws differ by less, in nats")] = 0.5,
) -> Iterator[Step]:
    """Yield one step per target call: the judged draft, then one fixed or bonus token."""
    while ask.open:
        slot = len(target.tokens)
        x: list[int] = []
        q: list[Tensor] = []
        q_plain: list[Tensor] = []
        for _ in range(min(gamma, ask.left - 1)):
            ahead = draft.score(x)
            q.append(ahead.p_NV[-1])
            q_plain.append(ahead.plain(len(x)))
            x.append(ask.chance.pick(q[-1]))
        scores = target.score(x)
        p = scores.p_NV
        measures: list[float] = []
        if rule == "judge" and x:
            measures = judge.score(scores.hidden_NC).tolist()[1:]  # row i + 1 has read guess i
        elif rule == "divergence":
            measures = [divergence(q_V, scores.plain(i)) for i, q_V in enumerate(q_plain)]
        trusted = [m > delta if rule == "judge" else m < threshold for m in measures] or [False] * len(x)
        n, alone = accept_trusted(p, q, x, trusted, ask.chance)
        last = ask.chance.pick(p[n] if n == len(x) else residual(p[n], q[n]))
        kept = ask.take([*x[:n], last])
        target.commit(kept)
        draft.commit(kept)
        figures = {"kept": float(n), "kept_alone": float(len(alone))}
        figures |= {f"{rule} {i + 1}": round(m, 4) for i, m in enumerate(measures[: n + 1])}
        figures |= {f"alone {i + 1}": 1.0 for i in alone}
        note = f"{len(alone)} of {n} kept by the {rule} alone" if alone else ""
        yield Step(judged(slot, x, n, kept, scores, q), note=note, figures=figures)


def accept_trusted(
    p_NV: Tensor, q: Sequence[Tensor], x: Sequence[int], trusted: Sequence[bool], chance: Chance
) -> tuple[int, list[int]]:
    """How many of the drafted tokens stay, and the places of those that stay only because they are trusted.

    The standard rule is played first, as `accept_chain` plays it, so that without trust nothing differs from it.
    """
    alone: list[int] = []
    for i, token in enumerate(x):
        if not chance.flip(min(1.0, float(p_NV[i, token]) / float(q[i][token]))):
            if not trusted[i]:
                return i, alone
            alone.append(i)
    return len(x), alone


def divergence(q_V: Tensor, p_V: Tensor) -> float:
    """KL(q || p) in nats; infinite where q has a token that p excludes.

    >>> round(divergence(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.5, 0.25])), 6)
    0.346574
    """
    return float(torch.where(q_V > 0, q_V * (q_V / p_V).log(), 0.0).sum())
