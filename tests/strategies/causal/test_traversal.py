"""Traversal verification: block verification on chains, more kept tokens on trees, exact on both."""

from __future__ import annotations

import pytest
import torch

from backend.chance import Chance, Seeded
from backend.couplings import pick_siblings
from backend.protocols import Scores
from backend.trees import accept_tree, depths, judged_tree, traverse_tree
from backend.types import Fate
from tests.exact import expected, law, total_variation
from tests.strategies.causal.first_step import expected_kept, first_law, first_step, flat
from tests.strategies.causal.played import COLD, play
from tests.toys import ToyCausal, causal_pair


@pytest.mark.parametrize(("size", "seed", "branch", "depth"), [(2, 6, 4, 3), (2, 7, 6, 2), (3, 8, 4, 2), (3, 9, 2, 3)])
def test_law_of_whole_trees(size: int, seed: int, branch: int, depth: int) -> None:
    """Several siblings at several depths, every branch enumerated: more than the contract's budget reaches."""
    pair = causal_pair(size=size, seed=seed, zeros=0.0 if size == 2 else 0.1)
    got, wanted = first_law("traversal", pair, depth + 1, branch=branch, depth=depth)
    assert total_variation(got, wanted) < 1e-9


def test_branch_one_is_block_verification() -> None:
    for seed in range(20):
        pair = causal_pair(size=4, seed=seed)
        tree = play("traversal", pair, seed=seed, branch=1, depth=4)
        assert tree.replay() == play("block_verification", pair, seed=seed, gamma=4).replay()


def test_kept_tokens_of_a_chain() -> None:
    """p = (1/3, 2/3), q = (2/3, 1/3), two slots ahead: 11/9 against 10/9, by enumeration."""
    pair = [flat("toy/p", [1 / 3, 2 / 3]), flat("toy/q", [2 / 3, 1 / 3])]
    assert expected_kept("traversal", pair, 3, branch=1, depth=2) == pytest.approx(11 / 9, abs=1e-12)
    assert expected_kept("recursive_branching", pair, 3, branch=1, depth=2) == pytest.approx(10 / 9, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_keeps_at_least_as_many_as_from_the_top(seed: int) -> None:
    """Binary and ternary trees of random tables; all of them, though not all laws there are (see the next test)."""
    for size, branch, depth in ((2, 2, 2), (2, 1, 3), (3, 2, 2)):
        pair = causal_pair(size=size, seed=seed, zeros=0.0)
        leaf_up, top_down = (
            expected_kept(s, pair, depth + 1, branch=branch, depth=depth) for s in ("traversal", "recursive_branching")
        )
        assert leaf_up >= top_down - 1e-12


def test_laws_exist_that_are_better_judged_from_the_top() -> None:
    """A first sibling that takes all it can may leave little to the second: 1/225 fewer tokens here."""
    text = [[0.8, 0.2, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]  # p and q of the first slot
    behind = [[0.1, 0.4, 0.3, 0.2], [0.1, 0.1, 0.0, 0.8]]
    p_NV, q = (torch.tensor([a, *[b] * 3], dtype=torch.float64) for a, b in zip(text, behind, strict=True))

    def kept(rule: object, chance: Chance) -> int:
        x = [0, *pick_siblings(q[1], 2, chance)]
        path, _, _ = rule(p_NV, list(q[:2]), x, [-1, 0, 0], chance)  # type: ignore[operator]
        return len(path)

    leaf_up, top_down = (expected(law(lambda chance, r=r: kept(r, chance))) for r in (traverse_tree, accept_tree))
    assert top_down - leaf_up == pytest.approx(1 / 225, abs=1e-12)


def test_first_slot_stays_as_often_as_from_the_top() -> None:
    """Above the first slot there is nothing to make up for: both rules fill it from the draft equally often."""
    pair = causal_pair(seed=3, zeros=0.0)

    def filled(strategy: str, chance: Chance) -> bool:
        step = first_step(strategy, pair, chance, 3, branch=2, depth=2)
        return any(mark.fate is Fate.KEPT for mark in step.marks)

    chances = [expected(law(lambda chance, s=s: filled(s, chance))) for s in ("traversal", "recursive_branching")]
    assert chances[0] == pytest.approx(chances[1], abs=1e-12)


def test_leaves_come_before_their_parents() -> None:
    """A target that wants none of the guesses: every node is visited once, in post-order."""
    p_NV = torch.tensor([[0.0, 0.0, 1.0]] * 7)
    q = [torch.tensor([0.5, 0.5, 0.0])] * 3
    x, parents = [0, 1, 0, 1, 0, 1], [-1, -1, 0, 0, 1, 1]
    path, behind_V, refused = traverse_tree(p_NV, q, x, parents, Seeded(0))
    assert (path, refused) == ([], [2, 3, 0, 4, 5, 1])
    assert behind_V.tolist() == [0.0, 0.0, 1.0]


def test_equal_models_keep_the_first_path() -> None:
    pair = [ToyCausal("toy/a", seed=3), ToyCausal("toy/b", seed=3)]
    for step in play("traversal", pair, budget=16, branch=2, depth=3).steps[:-1]:
        assert sum(mark.fate is Fate.KEPT for mark in step.marks) == 3
        assert not any(mark.fate is Fate.REJECTED for mark in step.marks)


def test_marks_tell_which_nodes_were_tried() -> None:
    """Everything before the kept path's last node was tried, deeper nodes under it too; nothing behind it was."""
    pair = causal_pair(size=5, seed=4, zeros=0.0)
    trees = 0
    for step in play("traversal", pair, budget=60, branch=4, depth=3).steps:
        nodes = [m for m in step.marks if m.fate not in (Fate.FIXED, Fate.BONUS)]
        parents = [-1 if m.parent is None else m.parent for m in nodes]
        below = {i: [j for j, parent in enumerate(parents) if parent == i] for i in range(-1, len(nodes))}

        def post_order(i: int, below: dict[int, list[int]] = below) -> list[int]:
            return [k for j in below[i] for k in (*post_order(j), j)]

        kept = {i for i, m in enumerate(nodes) if m.fate is Fate.KEPT}
        last = max(kept, key=lambda i: depths(parents)[i], default=None)
        order = post_order(-1)
        tried = order if last is None else order[: order.index(last)]
        assert {i for i, m in enumerate(nodes) if m.fate is Fate.REJECTED} == set(tried)
        trees += len(tried) > 1
    assert trees


def test_nothing_is_judged_behind_the_end_of_the_text() -> None:
    """An end token in the kept path: refused nodes stay so only where the text still stands."""
    scores = Scores(torch.full((7, 3), 1 / 3))
    x, parents, q = [0, 1, 0, 1, 0, 1], [-1, -1, 0, 0, 1, 1], list(scores.p_NV[:3])
    whole, cut = (judged_tree(5, x, parents, [1, 5], kept, scores, q, [2, 3, 0, 4]) for kept in ([1, 1, 2], [1]))
    assert [m.fate.value for m in whole] == ["rejected", "kept", *["rejected"] * 3, "kept", "bonus"]
    assert [m.fate.value for m in cut] == ["rejected", "kept", *["unread"] * 4]
    assert {m.q for m in cut} == {0.333333}


def test_temperature_zero_is_speculative_sampling() -> None:
    for seed in range(10):
        pair = causal_pair(size=4, seed=seed)
        tree = play("traversal", pair, sampling=COLD, depth=3)
        chain = play("speculative", pair, sampling=COLD, gamma=3)
        assert [[m.token for m in s.marks if m.fate.commits] for s in tree.steps] == [
            [m.token for m in s.marks if m.fate.commits] for s in chain.steps
        ]
