"""Lookahead decoding: the window's tree, the pool, and the text of plain decoding."""

from backend.strategies.causal.lookahead import Pool, hang
from backend.trees import depths
from tests.strategies.causal.played import counting, play, same_text


def test_window_hangs_in_columns() -> None:
    tokens, parents = hang([[1, 2, 3], [4, 5, 6]], offset=2)
    assert tokens == [1, 2, 3, 4, 5, 6]
    assert parents == [-1, 2, 3, 2, 3, 4]  # level 0 is a chain; level 1 hangs from its own column
    assert depths([-1, -1, *parents])[2:] == [0, 1, 2, 1, 2, 3]  # level k of column j guesses slot j + k


def test_pool_keeps_the_latest() -> None:
    pool = Pool(2)
    pool.add([[1, 2, 3], [1, 4, 5], [1, 2, 3], [1, 6, 7], [9, 1, 1]])
    assert pool.find(1) == [(6, 7), (2, 3)]
    assert pool.find(5) == []
    assert len(pool) == 3


def test_prompt_grams_are_verified_from_the_first_call() -> None:
    trace = play("lookahead", [counting(4)], prompt="0 1 2 3 0 1 2 3", budget=8, ngram=4)
    assert trace.summary().acceptance_histogram.get(3)


def test_grams_found_by_iteration_are_kept() -> None:
    """Without the prompt's n-grams, a cycle is discovered by the window alone."""
    trace = play("lookahead", [counting(5)], prompt="0 2", budget=40, window=6, ngram=3, from_prompt=False)
    assert trace.summary().mean_acceptance_length > 1.5


def test_prints_what_plain_decoding_prints() -> None:
    same_text("lookahead", seeds=25, window=3, ngram=3, verified=2)
