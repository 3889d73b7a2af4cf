"""Speculative Jacobi: exact whatever the first guesses, calls in closed form, and what the window's figures count."""

from itertools import pairwise, product
from typing import Any

import pytest

from backend.chance import Ask, Chance
from backend.meter import Meter
from backend.registry import find
from backend.types import Fate
from tests.exact import ancestral, expected, law, total_variation
from tests.strategies.causal.played import COLD, WARM, counting, play
from tests.toys import ToyCausal
from tests.toys_raster import CELLS, GREEDY, paint, painter

STARTS = ("repeat", "random", "sample")
BELIEFS = ("certain", "law")


def games(toy: ToyCausal, length: int, **knobs: Any) -> tuple[float, dict[tuple[int, ...], float]]:
    """Expected calls and the law of the text, every random branch enumerated."""

    def game(chance: Chance) -> tuple[int, tuple[int, ...]]:
        meter = Meter()
        session = toy.make(toy.codec.encode("0"), WARM, meter, length)
        for _ in find("speculative_jacobi").run(
            session, Ask(length, chance), **{"start": "repeat", "belief": "certain"} | knobs
        ):
            pass
        return meter.calls, tuple(session.tokens[1:])

    outcomes = law(game)
    texts: dict[tuple[int, ...], float] = {}
    for (_, text), weight in outcomes.items():
        texts[text] = texts.get(text, 0.0) + weight
    return expected(outcomes, lambda outcome: outcome[0]), texts


@pytest.mark.parametrize(("start", "belief"), [*product(STARTS, BELIEFS)])
def test_every_rule_of_first_guesses_gives_the_law(start: str, belief: str) -> None:
    """Windows shorter and longer than the text; zeros in the table."""
    toy = ToyCausal(seed=3, size=2)
    for window in (1, 2, 4):
        calls, texts = games(toy, 4, window=window, start=start, belief=belief)
        assert total_variation(texts, ancestral(toy, (0,), 4, WARM)) < 1e-9
        assert 1 <= calls <= 4


def test_a_random_guess_that_counts_as_certain_is_right_one_time_in_three() -> None:
    """Three tokens: a call without a guess, then one guess, which saves a call with chance 1/3 whatever the table."""
    for seed in range(3):
        assert games(ToyCausal(seed=seed), 3, start="random")[0] == pytest.approx(3 - 1 / 3)


def test_calls_of_tables_of_three_tokens() -> None:
    """Four tokens by a window of four, first guesses repeated: about 2.5 calls in place of 4 over random tables."""
    mean = sum(games(ToyCausal(seed=seed, zeros=0.0), 4, window=4)[0] for seed in range(3)) / 3
    assert mean == pytest.approx(2.52, abs=0.1)


def test_the_law_as_belief_saves_calls() -> None:
    """sum(min(p, q)) is at least sum(p q)."""
    for seed, start in product(range(2), ("random", "sample")):
        toy = ToyCausal(seed=seed)
        certain, honest = (games(toy, 3, start=start, belief=belief)[0] for belief in BELIEFS)
        assert honest < certain


def test_without_context_refreshed_guesses_are_always_right() -> None:
    trace = play("speculative_jacobi", [ToyCausal(size=4, fixed=[0.4, 0.3, 0.2, 0.1])], window=6, budget=40, seed=2)
    for before, after in pairwise(trace.steps):
        assert after.figures["accepted"] >= before.figures["refreshed"]
    assert trace.summary().num_target_calls < 25


def test_figures_add_up_to_the_window() -> None:
    for start in STARTS:
        trace = play("speculative_jacobi", [ToyCausal(seed=4)], window=5, budget=30, start=start)
        for before, after in pairwise(trace.steps):
            waiting = sum(mark.fate is Fate.GUESS for mark in before.marks)
            assert waiting == before.figures["refreshed"] + before.figures["new"] == after.figures["window"]
            assert after.figures["accepted"] == sum(mark.fate is Fate.KEPT for mark in after.marks)
            first = after.figures["accepted"] - before.figures["refreshed"]
            assert after.figures["first"] == max(0, first)


def test_at_temperature_0_it_writes_what_plain_decoding_writes() -> None:
    """A cycle, of which first guesses know nothing; and a text that repeats one token, which they guess whole."""
    trace = play("speculative_jacobi", [counting(4)], prompt="0 1 2 3", sampling=COLD, window=4, budget=12)
    assert trace.replay()[4:] == [0, 1, 2, 3] * 3
    flat = play(
        "speculative_jacobi", [ToyCausal(fixed=[0.0, 1.0, 0.0])], prompt="1", window=4, budget=15, start="repeat"
    )
    assert (flat.replay(), flat.summary().num_target_calls) == ([1] * 16, 3)


def test_pictures_are_painted_unchanged() -> None:
    """A random painter at temperature 0: the picture of plain decoding, and no longer than the canvas."""
    target = painter()
    plain = paint("autoregressive", [target], sampling=GREEDY)
    ours = paint("speculative_jacobi", [target], sampling=GREEDY, window=16)
    assert ours.written() == plain.written()
    assert len(ours.written()) == CELLS
    assert ours.summary().num_target_calls <= CELLS
