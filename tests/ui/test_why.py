"""Why slower: the terms add up to the difference, and the sentence names the largest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.trace import Trace
from backend.types import Fate, Mark, Request, Step
from demos.parts.snapshot import Snapshots, finished, recorded
from demos.parts.why import Cost, terms, why_slower

PLAIN = Cost(units=100, seconds=2.0, calls=100, rows=110, target=1.9, draft=0.0)  # 20 ms a token


def run_of(target: float, draft: float = 0.0, other: float = 0.0, calls: int = 50, units: int = 100) -> Cost:
    return Cost(units, target + draft + other, calls, 5 * calls, target, draft)


@pytest.mark.parametrize(
    ("mine", "largest", "words"),
    [
        (run_of(1.0, draft=1.8, other=0.1), "draft", "Mostly the draft calls: per token draft calls cost 18 ms"),
        (run_of(2.6, draft=0.2, other=0.1), "wide", "52 ms over 5.0 rows instead of 19 ms"),
        (run_of(0.95, draft=0.1, other=1.4), "other", "Mostly the work outside model calls"),
        (run_of(2.85, other=0.1, calls=150), "calls", "1.50 instead of 1.00 a token"),
    ],
)
def test_the_largest_cost_comes_first_and_all_add_up(mine: Cost, largest: str, words: str) -> None:
    found = terms(mine, PLAIN)
    assert sum(found.values()) == pytest.approx(mine.seconds / mine.units - PLAIN.seconds / PLAIN.units)
    assert max(found, key=lambda name: found[name]) == largest
    sentence = why_slower(mine, PLAIN)
    assert words in sentence
    assert sentence.endswith(".")
    if found["calls"] < 0:
        assert "(2.00 tokens a call) save only 9.5 ms" in sentence


def test_nothing_is_said_of_a_faster_or_a_short_run() -> None:
    assert why_slower(run_of(1.0), PLAIN) == ""
    assert why_slower(run_of(3.0, units=3), PLAIN) == ""
    assert why_slower(replace(PLAIN, seconds=0.0), PLAIN) == ""


def trace_of(spent: dict[str, float], calls: dict[str, int], num_steps: int = 20) -> Trace:
    """A run that writes one token a step."""
    steps = tuple(
        Step((Mark(3 + i, 1, Fate.BONUS),), index=i, calls=calls, rows=calls, seconds=0.1, spent=spent)
        for i in range(num_steps)
    )
    return Trace(Request("autoregressive", "x"), (1, 1, 1), {1: "a"}, steps=steps, end="budget")


def test_parts_of_the_target_count_as_the_target() -> None:
    cost = Cost.of(trace_of({"target": 0.04, "target.tokens": 0.02, "draft": 0.01}, {"target": 1, "target.tokens": 4}))
    assert cost.calls == cost.units == 20
    assert (cost.target, cost.draft) == pytest.approx((1.2, 0.2))
    assert cost.other == pytest.approx(0.6)


def test_the_lane_says_it_live_and_recorded() -> None:
    base = trace_of({"target": 0.03}, {"target": 1})
    base = replace(base, steps=tuple(replace(step, seconds=0.03) for step in base.steps))
    slow = trace_of({"target": 0.03, "draft": 0.06}, {"target": 1, "draft": 4})
    lanes = recorded([base, slow], "then")["lanes"]
    assert lanes[0]["why"] == ""
    assert "Mostly the draft calls" in lanes[1]["why"]
    growing = Snapshots("run", 2)
    early = [finished(replace(t, steps=t.steps[:3])) for t in (base, slow)]
    assert growing.take(early)["lanes"][1]["why"] == "", "too short to say"
    assert growing.take([finished(base), finished(slow)])["lanes"][1]["why"] == lanes[1]["why"]
