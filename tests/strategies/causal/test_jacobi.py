"""Jacobi decoding: at most one call a token, one call a window at the fixed point, the text of plain decoding."""

import pytest

from tests.strategies.causal.played import counting, play, same_text
from tests.toys import ToyCausal


@pytest.mark.parametrize("start", ["prompt", "repeat"])
def test_prints_what_plain_decoding_prints_in_no_more_calls(start: str) -> None:
    same_text("jacobi", window=4, start=start)
    for seed in range(20):
        summary = play("jacobi", [ToyCausal(seed=seed)], window=4, start=start, seed=seed).summary()
        assert summary.num_target_calls <= summary.new_slots


def test_a_law_without_context_is_fixed_after_one_sweep() -> None:
    """Every slot's draw depends on its noise alone, so the second call confirms a whole window."""
    trace = play("jacobi", [ToyCausal(size=5, fixed=[0.2] * 5)], window=5, budget=18)
    kept = [sum(m.fate.value == "kept" for m in step.marks) for step in trace.steps]
    assert kept[1] >= 4


def test_a_right_first_guess_is_kept_whole() -> None:
    trace = play("jacobi", [counting(4)], prompt="0 1 2 3", window=4, budget=5)
    assert trace.summary().num_target_calls == 1  # the prompt's tokens are the guesses, and they are right
