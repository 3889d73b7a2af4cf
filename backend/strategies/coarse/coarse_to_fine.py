"""Coarse to fine: groups of alike colours are painted pixel by pixel, then one call tells all colours within them.

Guo et al. 2025 (2503.16194). There are few groups, so their laws are surer than those of codes. What is left, which
code of its group a slot holds, is told of all slots at once by a model that sees all groups, each slot for itself; that
is the model's own law, and exact for one round at temperature 1. Further rounds keep the codes of the surest slots and
tell the rest again given them, which the paper does not do. Groups are guessed ahead as in speculative Jacobi
(2410.01699), whose rule keeps their law.
Show: the picture in the middle colours of its groups, then refined; entropy a token of groups and of codes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

from torch import Tensor

from backend.chance import Ask
from backend.protocols import CoarseSession
from backend.registry import strategy
from backend.sampling import accept_chain, distribution, guesses, judged, residual
from backend.types import Fate, Guarantee, Knob, Mark, Sampling, Step
from backend.unmasking import choose, draw, entropies, filled, mean_entropy, remaining

EXACT = {"rounds": 1, "fine_temperature": 1.0}


@strategy(paper="2503.16194", guarantee=Guarantee.LOSSLESS, family="coarse to fine", only=EXACT)
def coarse_to_fine(
    target: CoarseSession,
    ask: Ask,
    *,
    window: Annotated[int, Knob(0, 64, "groups guessed ahead, judged by the next call; 0: one a call")] = 16,
    rounds: Annotated[int, Knob(1, 16, "calls that tell colours, each given those of the calls before")] = 1,
    fine_temperature: Annotated[float, Knob(0.0, 1.0, "of the colours, on top of the model's; 0: the likeliest")] = 1.0,
) -> Iterator[Step]:
    """Yield one step per call: judged groups, each shown as its middle code, then the codes that stand in for these.

    figures: `stage`, 1 for groups and 2 for codes; `entropy`, the mean of the laws that tokens were drawn from; of
    stage 1 `window`, guesses that were judged or unread, and `accepted`; of stage 2 `changed`, slots that hold another
    code than their middle one now.
    """
    first = len(target.given)
    end = first + ask.left
    x: list[int] = []
    q: list[Tensor] = []
    while (slot := len(target.groups)) < end:
        scores = target.score(x)
        p_NM = scores.p_NV
        n = accept_chain(p_NM, q, x, ask.chance)
        kept = [*x[:n], ask.chance.pick(p_NM[n] if n == len(x) else residual(p_NM[n], q[n]))]
        target.commit(kept)
        marks = tuple(shown(mark, target.medoids) for mark in judged(slot, x, n, kept, scores, q))
        figures = {"stage": 1.0, "window": float(len(x)), "accepted": float(n)}
        room = max(0, min(window, end - slot - len(kept) - 1))
        q = [*p_NM[n + 1 :][:room]]
        q += [p_NM[-1]] * (room - len(q))  # places that enter the window are guessed from the last law
        x = [ask.chance.pick(q_M) for q_M in q]
        ahead = guesses(slot + len(kept), [target.medoids[group] for group in x])
        yield Step((*marks, *ahead), figures=figures, measure=partial(mean_entropy, p_NM[: len(kept)]))
    yield from refined(target, ask, [*range(first, end)], rounds, fine_temperature)


def refined(target: CoarseSession, ask: Ask, slots: list[int], rounds: int, heat: float) -> Iterator[Step]:
    """Yield one step a round: the codes of the slots that are surest given what is known."""
    known = [*target.given, *[-1] * len(slots)]
    for left in remaining(len(slots), rounds, "linear"):
        p_NV = target.refine(known)[slots].to("cpu")
        if heat != 1.0:
            p_NV = distribution(p_NV.log(), Sampling(heat))
        sure = [-h for h in entropies(p_NV)]
        stay = sorted(choose(sure, len(slots) - left, 0.0, ask.chance))
        now = [slots[n] for n in stay]
        codes = ask.take(draw(p_NV[stay], now, ask.chance))
        changed = 0
        for slot, code in zip(now, codes, strict=True):
            known[slot] = code
            changed += code != target.medoids[target.members[code]]
        slots = [slot for slot in slots if known[slot] < 0]
        erased = tuple(Mark(slot, None, Fate.ERASED) for slot in now)
        figures = {"stage": 2.0, "changed": float(changed)}
        note = f"colours of {len(now)} slots, {left} are left"
        told = partial(mean_entropy, p_NV)
        yield Step(erased + filled(now, codes, p_NV[stay]), note, tuple(known), figures=figures, measure=told)


def shown(mark: Mark, medoids: Sequence[int]) -> Mark:
    """The mark of a group as one of the code that stands for it."""
    assert mark.token is not None
    return replace(mark, token=medoids[mark.token], options=tuple((medoids[group], p) for group, p in mark.options))
