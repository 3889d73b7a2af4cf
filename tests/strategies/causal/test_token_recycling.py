"""Token recycling: the tree of ranks, the table, and the text of plain decoding."""

from backend.strategies.causal.token_recycling import fill, rank_tree
from tests.strategies.causal.played import counting, play, same_text


def test_rank_tree_is_best_first_and_closed_under_parents() -> None:
    shape = rank_tree(20, 8)
    assert len(set(shape)) == 20
    assert shape[0] == (0,)
    assert all(path[:-1] in shape or len(path) == 1 for path in shape)
    assert len(rank_tree(80, 8)) == 80
    assert rank_tree(5, 1) == [(0,), (0, 0), (0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0, 0)]


def test_fill_takes_what_the_table_knows() -> None:
    shape = [(0,), (1,), (0, 0), (0, 1), (1, 0)]
    assert fill(shape, {7: [1, 2], 1: [5]}, root=7, deepest=4) == ([1, 2, 5], [-1, -1, 0])
    assert fill(shape, {7: [1, 2], 1: [5]}, root=7, deepest=1) == ([1, 2], [-1, -1])
    assert fill(shape, {}, root=7, deepest=4) == ([], [])


def test_learns_a_cycle() -> None:
    trace = play("token_recycling", [counting(4)], prompt="0", budget=30, nodes=8, branch=1)
    assert trace.summary().mean_acceptance_length > 2.5


def test_prints_what_plain_decoding_prints() -> None:
    same_text("token_recycling", nodes=6)
