"""The first step of a draft-and-judge strategy with every branch enumerated, for the tests beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.chance import Ask, Chance
from backend.meter import Meter
from backend.registry import find
from backend.types import Fate, Step
from tests.exact import ancestral, expected, law
from tests.strategies.causal.played import WARM
from tests.toys import ToyCausal

MAX_GAMES = 60_000


def flat(name: str, p: Sequence[float]) -> ToyCausal:
    """A model whose law no text changes."""
    return ToyCausal(name, size=len(p), fixed=p)


def first_step(strategy: str, pair: Sequence[ToyCausal], chance: Chance, budget: int, **knobs: Any) -> Step:
    """The first step after the prompt "0", with a target and a draft."""
    sessions = [m.make(m.codec.encode("0"), WARM, Meter(), budget) for m in pair]
    step: Step = next(iter(find(strategy).run(*sessions, Ask(budget, chance), **knobs)))
    return step


def written(step: Step) -> tuple[int, ...]:
    """The tokens that a step commits."""
    new = sorted((m.slot, m.token) for m in step.marks if m.fate.commits and m.token is not None)
    return tuple(token for _, token in new)


def first_law(
    strategy: str, pair: Sequence[ToyCausal], budget: int, **knobs: Any
) -> tuple[Mapping[tuple[int, ...], float], Mapping[tuple[int, ...], float]]:
    """The law of `budget` tokens, the first step's and then the target's own; and what it has to be."""
    steps = law(lambda chance: written(first_step(strategy, pair, chance, budget, **knobs)), MAX_GAMES)
    out: dict[tuple[int, ...], float] = {}
    for text, weight in steps.items():
        for whole, p in ancestral(pair[0], [0], budget, WARM, text).items():
            out[whole] = out.get(whole, 0.0) + weight * p
    return out, ancestral(pair[0], [0], budget, WARM)


def expected_kept(strategy: str, pair: Sequence[ToyCausal], budget: int, **knobs: Any) -> float:
    """The expected number of guesses that the first step keeps."""

    def kept(chance: Chance) -> int:
        step = first_step(strategy, pair, chance, budget, **knobs)
        return sum(mark.fate is Fate.KEPT for mark in step.marks)

    return expected(law(kept, MAX_GAMES))
