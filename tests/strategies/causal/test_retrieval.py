"""Retrieval: the heaviest nodes of the trie, a datastore as the store, and the text of plain decoding."""

from __future__ import annotations

import pytest

from backend.meter import Meter
from backend.protocols import Prompt
from backend.strategies.causal.retrieval import heaviest
from backend.types import Sampling
from tests.strategies.causal.played import COLD, counting, play, same_text
from tests.toys import ToyCausal, causal_pair


def branching() -> ToyCausal:
    """After the prompt (token 0) comes 1 (0.6) or 2 (0.4); after 1 always 3; after 2 comes 4 (0.9) or 5; then 0."""
    rows = {
        0: [0, 0.6, 0.4, 0, 0, 0],
        1: [0, 0, 0, 1, 0, 0],
        2: [0, 0, 0, 0, 0.9, 0.1],
    }
    return ToyCausal("toy/store", size=6, fixed=lambda text: rows.get(text[-1], [1, 0, 0, 0, 0, 0]))


def tree(nodes: int, deepest: int, floor: float) -> tuple[list[int], list[int], float]:
    store = branching().make(Prompt((0,)), Sampling(temperature=1.0), Meter(), 8)
    return heaviest(store, nodes, deepest, floor)


def test_heaviest_nodes_come_first() -> None:
    tokens, parents, weight = tree(nodes=5, deepest=2, floor=0.0)
    assert (tokens, parents) == ([1, 3, 2, 4, 5], [-1, 0, -1, 2, 2])
    assert weight == pytest.approx(0.6 + 0.6 + 0.4 + 0.36 + 0.04)


def test_number_depth_and_share_bound_the_tree() -> None:
    assert tree(2, 2, 0.0)[0] == [1, 3]
    assert tree(9, 1, 0.0)[0] == [1, 2]
    assert tree(9, 2, 0.3)[0] == [1, 3, 2, 4]
    assert tree(3, 3, 0.5)[0] == [1, 3, 0]
    assert tree(9, 0, 0.0) == ([], [], 0.0)
    assert tree(9, 3, 0.7) == ([], [], 0.0)


def test_a_store_that_knows_the_text_gives_whole_drafts() -> None:
    cycle = counting(4)
    trace = play("retrieval", [cycle, cycle], prompt="0", sampling=COLD, budget=22, length=10)
    assert [sum(mark.fate.commits for mark in step.marks) for step in trace.steps] == [11, 11]
    assert trace.steps[0].note == "the store expects 10.0 of 10"


def test_a_store_that_knows_nothing_drafts_nothing() -> None:
    target, _ = causal_pair(size=5)
    even = ToyCausal("toy/even", size=5, fixed=[0.2] * 5)
    trace = play("retrieval", [target, even], budget=5, floor=0.3)
    assert trace.summary().num_target_calls == 5
    assert {step.note for step in trace.steps} == {"nothing retrieved"}


@pytest.mark.parametrize("knobs", [{}, {"nodes": 4, "length": 2}, {"floor": 0.0}])
def test_prints_what_plain_decoding_prints(knobs: dict[str, float]) -> None:
    same_text("retrieval", seeds=25, **knobs)
