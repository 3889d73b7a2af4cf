"""The true law of a random procedure: play every game that its random decisions allow, and add up their weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from backend.chance import Chance, Exhaustive
from backend.types import Sampling
from tests.toys import ToyCausal

Outcome = TypeVar("Outcome", bound=Hashable)
MAX_GAMES = 20_000


class TooManyGamesError(AssertionError):
    """The procedure branches too often to be enumerated."""


def law(run: Callable[[Chance], Outcome], max_games: int = MAX_GAMES) -> dict[Outcome, float]:
    """The law of what `run` returns, over everything its chance may do: depth first through all scripts.

    Raises TooManyGamesError beyond `max_games` games: make the draft, the budget or the vocabulary smaller.
    """
    out: dict[Outcome, float] = {}
    script: list[int] = []
    for _ in range(max_games):
        chance = Exhaustive(script)
        outcome = run(chance)
        out[outcome] = out.get(outcome, 0.0) + chance.weight
        script += [0] * (len(chance.forks) - len(script))
        assert len(script) == len(chance.forks), "the procedure is random beyond its chance: a replay took another turn"
        while script and script[-1] + 1 >= chance.forks[len(script) - 1]:
            script.pop()
        if not script:
            assert abs(math.fsum(out.values()) - 1.0) < 1e-9, f"weights add up to {math.fsum(out.values())}"
            return out
        script[-1] += 1
    raise TooManyGamesError(f"more than {max_games} games; make the draft, the budget or the vocabulary smaller")


def expected(outcomes: Mapping[Any, float], value: Callable[[Any], float] = float) -> float:
    """Expectation of a value of the outcome."""
    return math.fsum(weight * value(outcome) for outcome, weight in outcomes.items())


def total_variation(a: Mapping[Any, float], b: Mapping[Any, float]) -> float:
    """Half the sum of differences: the largest difference that any event can show."""
    return math.fsum(abs(a.get(x, 0.0) - b.get(x, 0.0)) for x in {*a, *b}) / 2


def ancestral(
    model: ToyCausal, prompt: Sequence[int], length: int, sampling: Sampling, written: tuple[int, ...] = ()
) -> dict[tuple[int, ...], float]:
    """The law of plain sampling, from the table alone: `length` tokens, fewer where an end token comes first."""
    if len(written) == length or (written and written[-1] in model.codec.end):
        return {written: 1.0}
    out: dict[tuple[int, ...], float] = {}
    for token, p in enumerate(plain_filters(model.law((*prompt, *written)).tolist(), sampling)):
        if p > 0:
            for text, weight in ancestral(model, prompt, length, sampling, (*written, token)).items():
                out[text] = out.get(text, 0.0) + p * weight
    return out


def greedy(model: ToyCausal, prompt: Sequence[int], length: int) -> list[int]:
    """The likeliest next token, again and again."""
    text = list(prompt)
    while len(text) < len(prompt) + length and not (len(text) > len(prompt) and text[-1] in model.codec.end):
        text.append(int(model.law(text).argmax()))
    return text[len(prompt) :]


def plain_filters(p: Sequence[float], sampling: Sampling) -> list[float]:
    """Temperature, top-k, top-p and min-p in plain Python, written apart from the code under test."""
    assert sampling.repetition_penalty == 1.0, "not written here"
    order = sorted(range(len(p)), key=lambda i: -p[i])
    if sampling.temperature == 0:
        return [float(i == order[0]) for i in range(len(p))]
    p = _normal([x ** (1 / sampling.temperature) for x in p])
    if sampling.top_k:
        p = _normal([p[i] if i in order[: sampling.top_k] else 0.0 for i in range(len(p))])
    if sampling.top_p < 1:
        kept, total = set(), 0.0
        for i in order:
            if total < sampling.top_p:
                kept.add(i)
                total += p[i]
        p = _normal([x if i in kept else 0.0 for i, x in enumerate(p)])
    if sampling.min_p > 0:
        p = _normal([x if x >= sampling.min_p * max(p) else 0.0 for x in p])
    return list(p)


def _normal(weights: Sequence[float]) -> list[float]:
    total = math.fsum(weights)
    return [x / total for x in weights]
