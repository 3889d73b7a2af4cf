"""Trees that draft heads fill: fixed trees of ranks, trees that grow by confidence, and typical acceptance."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from backend.chance import Chance
from backend.meter import Meter
from backend.protocols import HeadsSession, Prompt
from backend.trees import depths, fill_ranks, follow_typical, grow_tree, likeliest_ranks
from backend.types import Sampling
from tests.exact import law
from tests.toys import ToyCausal, causal_pair
from tests.toys_heads import ToyHeads, ToyHeadsSession


def heads(reach: int = 3, size: int = 4) -> tuple[ToyHeads, ToyHeadsSession]:
    """Heads after the text 0, told what the target thought of it, which is nothing."""
    toy = ToyHeads("toy/heads", causal_pair(size=size, seed=3)[0], reach=reach)
    session = toy.make(Prompt((0,)), Sampling(), Meter(), 8)
    assert isinstance(session, HeadsSession)
    return toy, session


# -------------------------------------------------------------------------------------------------------------- ranks
ODDS = [[0.6, 0.2, 0.1], [0.5, 0.3, 0.1], [0.4, 0.1, 0.05]]


def weight(path: tuple[int, ...]) -> float:
    return math.prod(ODDS[place][rank] for place, rank in enumerate(path))


@pytest.mark.parametrize("nodes", [1, 2, 5, 9, 20, 39])
def test_ranks_are_the_heaviest_paths(nodes: int) -> None:
    everything = [path for depth in (1, 2, 3) for path in itertools.product(range(3), repeat=depth)]
    chosen = likeliest_ranks(ODDS, nodes, 3)
    heaviest = sorted(map(weight, everything), reverse=True)[:nodes]
    assert sorted(map(weight, chosen), reverse=True) == pytest.approx(heaviest)
    assert len(set(chosen)) == nodes
    assert {path[:-1] for path in chosen} <= {(), *chosen}, "a path without its beginning"
    assert chosen == sorted(chosen, key=lambda path: (len(path), path))


def test_ranks_end_with_the_guesses_there_are() -> None:
    assert len(likeliest_ranks(ODDS, 64, 3)) == 3 + 9 + 27
    assert likeliest_ranks(ODDS, 64, 1) == [(0,), (1,), (2,)]
    assert likeliest_ranks(ODDS, 0, 3) == likeliest_ranks(ODDS, 5, 0) == likeliest_ranks(ODDS, 5, -1) == []


def test_ranks_are_filled_with_the_guesses_after_their_own_path() -> None:
    toy, session = heads()
    ranks = likeliest_ranks(ODDS, 9, 3)
    x, parents, q = fill_ranks(session, ranks)
    assert session.calls == 3, "one call a depth"
    paths: list[tuple[int, ...]] = [(0,)]
    for path, token, parent, chance in zip(ranks, x, parents, q, strict=True):
        law_V = toy.table.law(paths[parent + 1])
        assert chance == pytest.approx(float(law_V.sort(descending=True).values[path[-1]]))
        assert float(law_V[token]) == pytest.approx(chance)
        assert len(paths[parent + 1]) == len(path)
        paths.append((*paths[parent + 1], token))
    assert session.rows == 1 + sum(any(other[:-1] == path for other in ranks) for path in ranks), "leaves are not run"
    assert fill_ranks(session, []) == ([], [], [])


# ------------------------------------------------------------------------------------------------------------- growth
@pytest.mark.parametrize("nodes", [1, 3, 8, 40])
def test_a_tree_grows_where_the_drafter_is_surest(nodes: int) -> None:
    """With a beam as wide as the vocabulary the search leaves nothing out."""
    toy, session = heads(size=3)
    x, parents, q = grow_tree(session, nodes, beam=9, deepest=3)
    all_weights, paths = [], [(0,)]
    for depth in (1, 2, 3):
        for path in itertools.product(range(3), repeat=depth):
            w = math.prod(float(toy.table.law((0, *path[:i]))[path[i]]) for i in range(depth))
            all_weights.append(w)
    cumulative = [1.0]
    for token, parent, chance in zip(x, parents, q, strict=True):
        assert chance == pytest.approx(float(toy.table.law(paths[parent + 1])[token]))
        cumulative.append(cumulative[parent + 1] * chance)
        paths.append((*paths[parent + 1], token))
    best = [w for w in sorted(all_weights, reverse=True) if w > 0][:nodes]
    assert sorted(cumulative[1:], reverse=True) == pytest.approx(best)
    assert len(set(paths)) == len(paths)


def test_a_narrow_beam_gives_a_narrow_tree() -> None:
    _, session = heads(reach=4)
    x, parents, _ = grow_tree(session, nodes=9, beam=1, deepest=4)
    assert parents == [-1, 0, 1, 2], "a chain"
    assert len(x) == session.calls == 4


def test_growth_stops_when_nothing_deeper_can_get_in() -> None:
    even = ToyCausal("toy/even", size=8, fixed=[0.125] * 8)
    toy = ToyHeads("toy/heads", even, reach=5)
    toy.table = even
    session = toy.make(Prompt((0,)), Sampling(), Meter(), 8)
    x, parents, _ = grow_tree(session, nodes=4, beam=8, deepest=5)
    assert depths(parents) == [0, 0, 0, 0]
    assert session.calls == 1
    assert len(set(x)) == 4
    assert grow_tree(session, 4, 8, 0) == ([], [], [])


@pytest.mark.parametrize(("least", "calls"), [(0.0, 4), (0.1, 3), (0.2, 2), (0.6, 1), (1.0, 1)])
def test_growth_stops_where_all_leaves_together_are_unlikely(least: float, calls: int) -> None:
    """Two of four equal tokens get children: together they have the chance 1/2, then 1/8, then 1/32."""
    even = ToyCausal("toy/even", size=4, fixed=[0.25] * 4)
    toy = ToyHeads("toy/heads", even, reach=5)
    toy.table = even
    session = toy.make(Prompt((0,)), Sampling(), Meter(), 8)
    x, _, _ = grow_tree(session, nodes=64, beam=2, deepest=4, least=least)
    assert session.calls == calls
    assert len(x) == 2 + 4 * (calls - 1)


# -------------------------------------------------------------------------------------------------- typical acceptance
def typical(p: list[list[float]], x: list[int], parents: list[int]) -> dict[tuple[int, ...], float]:
    rows = torch.tensor(p, dtype=torch.float64)

    def run(chance: Chance) -> tuple[int, ...]:
        path, token = follow_typical(rows, x, parents, 5, chance, epsilon=0.09, alpha=0.3)
        return (*path, -1 - token)

    return law(run)


def test_typical_takes_what_is_likely_enough_and_the_longest_path() -> None:
    flat, sharp = [0.25, 0.25, 0.25, 0.25], [0.92, 0.05, 0.02, 0.01]
    assert typical([sharp, flat, flat], [0, 1], [-1, -1]).keys() == {(0, -1), (0, -2), (0, -3), (0, -4)}
    # an even law of 4 has exp(-H) = 1/4, so 0.3 / 4 = 0.075 is the floor, and all four pass; 1 has a child that passes
    assert all(path[:2] == (1, 2) for path in typical([flat, flat, flat, sharp], [0, 1, 2], [-1, -1, 1]))
    # 0.05 is under min(0.09, 0.3 * exp(-H)): nothing stays, and the token is drawn from the first law
    assert typical([sharp, flat], [1], [-1]) == pytest.approx({(-1,): 0.92, (-2,): 0.05, (-3,): 0.02, (-4,): 0.01})


def test_the_likeliest_of_equally_long_paths_stays() -> None:
    law_V = [0.3, 0.4, 0.2, 0.1]
    assert {path[0] for path in typical([law_V] * 4, [0, 1, 2], [-1, -1, -1])} == {1}


def test_typical_is_greedy_at_temperature_zero() -> None:
    one_hot = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    assert typical(one_hot, [0, 1, 0], [-1, -1, 1]) == {(1, 2, -1): 1.0}
