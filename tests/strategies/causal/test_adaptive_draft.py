"""Adaptive draft: what the matrix counts, what the search visits, and the text of plain decoding."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest

from backend.strategies.causal.adaptive_draft import MOST, SUCCESSORS, Matrix, search
from tests.strategies.causal.played import COLD, counting, play, same_text
from tests.toys import ToyCausal


def test_weights_are_mean_chances_heaviest_first() -> None:
    matrix = Matrix()
    for token in (7, 8, 8, 8):
        matrix.learn([1, 2], [(token, 1.0)])
    assert matrix.after([5, 1, 2]) == [(8, 0.75), (7, 0.25)]
    matrix.learn([1, 2], [(7, 0.5), (9, 0.5)])  # what the target says counts as one more sight of the pair
    weights = dict(matrix.after([1, 2]))
    assert weights == pytest.approx({8: 3 / 5, 7: 1.5 / 5, 9: 0.5 / 5})
    assert matrix.after([2, 1]) == []


def test_newest_tri_grams_gain_weight_up_to_a_limit() -> None:
    matrix = Matrix()
    matrix.learn([1, 2], [(7, 0.6), (8, 0.4)])
    matrix.nudge([1, 2, 8, 1], 0.3)
    assert dict(matrix.after([1, 2])) == pytest.approx({8: 0.7, 7: 0.6})  # not normalised again
    assert matrix.after([2, 8]) == [(1, 0.3)]
    for _ in range(20):
        matrix.nudge([1, 2, 8], 0.3)
    assert matrix.after([1, 2])[0] == (8, MOST)


def test_a_pair_keeps_its_heaviest_successors() -> None:
    matrix = Matrix()
    matrix.learn([1, 2], [(token, (token + 1) / 1000) for token in range(30)])
    assert [token for token, _ in matrix.after([1, 2])] == list(range(29, 29 - SUCCESSORS, -1))
    matrix.learn([3, 4], [(1, 0.0)])
    assert matrix.after([3, 4]) == []


def test_a_new_pair_falls_back_on_its_last_token() -> None:
    matrix = Matrix()
    matrix.learn([1, 2], [(7, 1.0)])
    matrix.learn([3, 2], [(8, 1.0)])
    assert matrix.after([1, 2]) == [(7, 1.0)]
    assert dict(matrix.after([9, 2])) == {7: 0.5, 8: 0.5}
    assert matrix.after([2, 9]) == []


def binary() -> tuple[Matrix, dict[tuple[int, ...], float]]:
    """A matrix over tokens 0 and 1 with weights of its own for every pair, and the chance of each path of three."""
    matrix = Matrix()
    chances = {(0, 0): 0.2, (0, 1): 0.9, (1, 0): 0.4, (1, 1): 0.7}  # of token 1
    for pair, one in chances.items():
        matrix.learn(pair, [(0, 1 - one), (1, one)])
    paths = {}
    for path in product((0, 1), repeat=3):
        text = (0, 1, *path)
        paths[path] = prod(
            chances[text[i], text[i + 1]] if text[i + 2] else 1 - chances[text[i], text[i + 1]] for i in range(3)
        )
    return matrix, paths


def test_search_visits_the_heaviest_path_most() -> None:
    matrix, paths = binary()
    found = search(matrix, (0, 1), iterations=300, depth=3)
    longest = [path for path in found if len(path) == 3]
    assert longest[0] == max(paths, key=lambda path: paths[path]) == (1, 1, 1)
    best = sorted(paths, key=lambda path: -paths[path])
    assert set(longest[:3]) == set(best[:3])
    assert len(found) == len(set(found)) == 2 + 4 + 8


def test_search_lists_beginnings_before_what_is_longer() -> None:
    matrix, _ = binary()
    for iterations in (20, 57, 300):
        found = search(matrix, (0, 1), iterations, depth=4)
        assert all(found.index(path[:-1]) < i for i, path in enumerate(found) if len(path) > 1)
        assert max(map(len, found)) <= 4
    assert search(matrix, (7, 7), 50, 4) == []


def test_search_is_the_same_every_time() -> None:
    matrix, _ = binary()
    assert search(matrix, (1, 0), 100, 4) == search(matrix, (1, 0), 100, 4)


def test_the_prompt_warms_the_matrix() -> None:
    """A cycle in the prompt is drafted from the first step on: depth tokens and one more."""
    trace = play("adaptive_draft", [counting(4)], prompt="0 1 2 3 0 1 2 3", sampling=COLD, budget=24, depth=3)
    assert [sum(mark.fate.commits for mark in step.marks) for step in trace.steps] == [5, 5, 5, 5, 4]
    assert trace.steps[0].note.startswith("tri-grams of")


def test_learns_from_judged_guesses() -> None:
    """A cycle never seen before: the second round is drafted although the prompt was one token."""
    trace = play("adaptive_draft", [counting(5)], prompt="0", sampling=COLD, budget=30)
    assert trace.summary().num_target_calls <= 5 + 1 + 6


def test_takes_up_the_targets_other_candidates() -> None:
    """Every pair is followed by 1 or 2 alike; the target's law, not the text alone, puts both into the tree."""
    target = ToyCausal("toy/even", size=4, fixed=[0.0, 0.5, 0.5, 0.0])
    trace = play("adaptive_draft", [target], prompt="1 1", budget=12, nodes=6)
    drafted = {mark.token for step in trace.steps[4:] for mark in step.marks if mark.fate.value != "fixed"}
    assert drafted == {1, 2}


@pytest.mark.parametrize("knobs", [{}, {"nodes": 3, "keep": 2, "iterations": 20}, {"step": 0.0, "depth": 2}])
def test_prints_what_plain_decoding_prints(knobs: dict[str, float]) -> None:
    same_text("adaptive_draft", seeds=25, **knobs)
