"""Prompt lookup: what is found, what is not, and the text of plain decoding."""

from backend.strategies.causal.prompt_lookup import find_copy
from tests.strategies.causal.played import counting, play, same_text


def test_longest_ending_and_latest_place_win() -> None:
    assert find_copy([1, 2, 3, 9, 1, 2], 3, 2) == (2, [3, 9])
    assert find_copy([7, 1, 5, 8, 1, 6, 1], 3, 1) == (5, [6])  # the more recent 1
    assert find_copy([4, 1, 5, 8, 1, 6, 4, 1], 3, 1) == (2, [5])  # the longer match, though it is older
    assert find_copy([1, 2, 3], 3, 4) == (-1, [])
    assert find_copy([3, 3, 3], 2, 4) == (2, [3])  # may overlap the ending, never runs past the text
    assert find_copy([1], 3, 4) == (-1, [])


def test_a_cycle_is_copied_at_full_length() -> None:
    trace = play("prompt_lookup", [counting(4)], prompt="0 1 2 3 0 1 2 3", budget=20, length=4)
    assert trace.summary().num_target_calls == 4
    assert trace.steps[0].note == "copied from slot 4"


def test_prints_what_plain_decoding_prints() -> None:
    same_text("prompt_lookup", length=3)
