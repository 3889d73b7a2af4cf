"""Trees of guesses: merging, walking, marking; and that walking is exact for any tree."""

from __future__ import annotations

import itertools

import pytest
import torch

from backend.chance import Chance
from backend.protocols import Scores
from backend.trees import depths, follow_tree, judged_tree, merge
from backend.types import Fate
from tests.exact import law, total_variation
from tests.toys import ToyCausal

TOKENS, PARENTS = [1, 2, 0, 1, 2], [-1, -1, 0, 2, 0]  # 1-0-1, 1-2 and 2


def rows(toy: ToyCausal, tokens: list[int], parents: list[int], text: tuple[int, ...] = (0,)) -> torch.Tensor:
    """The target's laws after the text and after every node."""
    paths = [text]
    for token, parent in zip(tokens, parents, strict=True):
        paths.append((*paths[parent + 1], token))
    return torch.stack([toy.law(path) for path in paths])


def test_depths() -> None:
    assert depths(PARENTS) == [0, 0, 1, 2, 1]
    assert depths([]) == []


def test_merge_shares_beginnings_and_keeps_order() -> None:
    assert merge([[1, 2, 3], [1, 4], [1, 2, 3], [5]]) == ([1, 2, 3, 4, 5], [-1, 0, 1, 0, -1])
    assert merge([]) == ([], [])
    assert merge([[], [1]]) == ([1], [-1])


def test_merge_keeps_every_path() -> None:
    paths = [list(path) for path in itertools.product(range(3), repeat=3)]
    tokens, parents = merge(paths)
    assert len(tokens) == 3 + 9 + 27
    found = set()
    for i, depth in enumerate(depths(parents)):
        if depth == 2:
            found.add((tokens[parents[parents[i]]], tokens[parents[i]], tokens[i]))
    assert found == set(map(tuple, paths))
    assert all(parent < i for i, parent in enumerate(parents))


@pytest.mark.parametrize(
    "paths", [[[1, 0, 1], [1, 2], [2]], [[0, 0, 0]], [[0], [1], [2]], [[0, 1], [0, 2], [0, 0], [1, 1]], []]
)
def test_following_a_tree_is_exact_for_any_tree(paths: list[list[int]]) -> None:
    """The law of path + token is the target's own, zeros included."""
    toy = ToyCausal(seed=21)
    tokens, parents = merge(paths)
    p_NV = rows(toy, tokens, parents)

    def run(chance: Chance) -> tuple[int, ...]:
        path, token = follow_tree(p_NV, tokens, parents, 1, chance)
        return (*(tokens[i] for i in path), token)

    got = law(run)
    wanted: dict[tuple[int, ...], float] = {}
    for text in got:
        weight = 1.0
        for i, token in enumerate(text):
            weight *= float(toy.law((0, *text[:i]))[token])
        wanted[text] = weight
    assert sum(wanted.values()) == pytest.approx(1.0)
    assert total_variation(got, wanted) < 1e-12


def test_marks_of_a_walk() -> None:
    """1-0 agrees, then the target says 2 where 1 was guessed."""
    scores = Scores(rows(ToyCausal(seed=21, zeros=0.0), TOKENS, PARENTS))
    marks = judged_tree(5, TOKENS, PARENTS, [0, 2], [1, 0, 2], scores)
    assert [m.fate for m in marks] == [Fate.KEPT, Fate.REJECTED, Fate.KEPT, Fate.REJECTED, Fate.REJECTED, Fate.FIXED]
    assert [m.slot for m in marks] == [5, 5, 6, 7, 6, 7]
    assert [m.parent for m in marks] == [None, None, 0, 2, 0, None]
    assert [m.token for m in marks] == [*TOKENS, 2]
    assert marks[3].p == pytest.approx(float(scores.p_NV[3, 1]), rel=1e-5)
    assert marks[5].p == pytest.approx(float(scores.p_NV[3, 2]), rel=1e-5)


def test_marks_behind_a_leaf_and_below_a_rejected_node() -> None:
    scores = Scores(rows(ToyCausal(seed=21, zeros=0.0), TOKENS, PARENTS))
    marks = judged_tree(5, TOKENS, PARENTS, [1], [2, 0], scores)
    assert [m.fate for m in marks] == [
        Fate.REJECTED, Fate.KEPT, Fate.UNREAD, Fate.UNREAD, Fate.UNREAD, Fate.BONUS,
    ]  # fmt: skip


def test_marks_of_a_walk_that_was_cut() -> None:
    """An end token or the budget stopped the text within the path: what came behind it does not stay."""
    scores = Scores(rows(ToyCausal(seed=21, zeros=0.0), TOKENS, PARENTS))
    marks = judged_tree(5, TOKENS, PARENTS, [0, 2, 3], [1], scores)
    assert [m.token for m in marks if m.fate.commits] == [1]
    assert [m.fate for m in marks][2:4] == [Fate.UNREAD, Fate.UNREAD]


def test_marks_without_guesses() -> None:
    scores = Scores(rows(ToyCausal(), [], []))
    (mark,) = judged_tree(3, [], [], [], [2], scores)
    assert (mark.slot, mark.token, mark.fate) == (3, 2, Fate.BONUS)
