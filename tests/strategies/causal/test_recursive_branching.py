"""Recursive speculative decoding: known acceptance of siblings, shapes of trees, and what it has in common with one."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from backend.chance import Chance, Seeded
from backend.couplings import accept_siblings, pick_siblings, without
from backend.sampling import residual
from backend.types import Fate
from tests.exact import expected, law, total_variation
from tests.strategies.causal.first_step import expected_kept, first_law, first_step, flat
from tests.strategies.causal.played import COLD, play
from tests.toys import causal_pair

P, Q = [0.4, 0.3, 0.2, 0.1], [0.1, 0.5, 0.3, 0.1]
P_V, Q_V = torch.tensor(P, dtype=torch.float64), torch.tensor(Q, dtype=torch.float64)


def normal(weights: Sequence[Fraction]) -> list[Fraction]:
    total = sum(weights)
    return [w / total for w in weights] if total else list(weights)


def by_hand(count: int) -> Fraction:
    """Chance that one of `count` siblings stays, in fractions, over all orders in which they can be drawn."""
    stays = Fraction(0)
    for order in itertools.permutations(range(4), count):
        p, q = ([Fraction(x).limit_denominator(10) for x in row] for row in (P, Q))
        weight = still = Fraction(1)
        for token in order:
            weight *= q[token]
            still *= 1 - min(Fraction(1), p[token] / q[token])
            p = normal([max(a - b, Fraction(0)) for a, b in zip(p, q, strict=True)])
            q = normal([Fraction(0) if i == token else b for i, b in enumerate(q)])
        stays += weight * (1 - still)
    return stays


def independent(p_V: Tensor, q_V: Tensor, count: int, chance: Chance) -> bool:
    """Whether one of `count` guesses stays that are drawn from q each for itself."""
    for _ in range(count):
        token = chance.pick(q_V)
        if chance.flip(min(1.0, float(p_V[token] / q_V[token]))):
            return True
        p_V = residual(p_V, q_V)
    return False


# ----------------------------------------------------------------------------------------------------------- siblings
@pytest.mark.parametrize(("count", "known"), [(1, "7/10"), (2, "132/175"), (3, "1811/2100")])
def test_known_acceptance_of_siblings(count: int, known: str) -> None:
    """All branches enumerated, the sum over all orders in fractions, and the known answer: three times the same."""

    def stays(chance: Chance) -> bool:
        return accept_siblings(P_V, Q_V, pick_siblings(Q_V, count, chance), chance)[0] < count

    assert by_hand(count) == Fraction(known)
    assert expected(law(stays)) == pytest.approx(float(Fraction(known)), abs=1e-12)


@pytest.mark.parametrize(("count", "known"), [(2, 73 / 100), (3, 757 / 1000)])
def test_siblings_beat_independent_guesses(count: int, known: float) -> None:
    """The same number of target rows, and independent guesses say the same thing twice."""
    assert expected(law(lambda chance: independent(P_V, Q_V, count, chance))) == pytest.approx(known, abs=1e-12)
    assert float(by_hand(count)) > known


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_law_of_the_token_is_the_targets(count: int) -> None:
    def token(chance: Chance) -> int:
        x = pick_siblings(Q_V, count, chance)
        n, rest_V = accept_siblings(P_V, Q_V, x, chance)
        return x[n] if n < len(x) else chance.pick(rest_V)

    assert total_variation(law(token), dict(enumerate(P))) < 1e-12


def test_siblings_are_drawn_without_replacement() -> None:
    """Each from q without its elders; as many as there are, and not one more."""
    orders = law(lambda chance: tuple(pick_siblings(Q_V, 2, chance)))
    assert orders == pytest.approx({(a, b): Q[a] * Q[b] / (1 - Q[a]) for a, b in itertools.permutations(range(4), 2)})
    assert sorted(pick_siblings(Q_V, 9, Seeded(1))) == [0, 1, 2, 3]
    assert pick_siblings(torch.tensor([0.0, 1.0, 0.0]), 3, Seeded(1)) == [1]


def test_without_keeps_tiny_laws() -> None:
    """Single precision, and next to nothing left: still a law."""
    rest_V = without(torch.tensor([1.0, 3e-45, 6e-45]), 0)
    assert rest_V.tolist() == pytest.approx([0.0, 1 / 3, 2 / 3])
    assert without(torch.tensor([0.0, 1.0]), 1).tolist() == [0.0, 0.0]


# -------------------------------------------------------------------------------------------------------------- trees
@pytest.mark.parametrize(("size", "seed", "branch", "depth"), [(2, 6, 4, 3), (2, 7, 6, 2), (3, 8, 4, 2), (3, 9, 2, 3)])
def test_law_of_whole_trees(size: int, seed: int, branch: int, depth: int) -> None:
    """Several siblings at several depths, every branch enumerated: more than the contract's budget reaches."""
    pair = causal_pair(size=size, seed=seed, zeros=0.0 if size == 2 else 0.1)
    got, wanted = first_law("recursive_branching", pair, depth + 1, branch=branch, depth=depth)
    assert total_variation(got, wanted) < 1e-9


def test_branch_one_is_speculative_sampling() -> None:
    for seed in range(20):
        pair = causal_pair(size=4, seed=seed)
        tree = play("recursive_branching", pair, seed=seed, branch=1, depth=3)
        chain = play("speculative", pair, seed=seed, gamma=3)
        assert [[(m.slot, m.token, m.fate, m.p, m.q) for m in s.marks] for s in tree.steps] == [
            [(m.slot, m.token, m.fate, m.p, m.q) for m in s.marks] for s in chain.steps
        ]


def test_temperature_zero_leaves_one_sibling() -> None:
    for seed in range(10):
        pair = causal_pair(size=4, seed=seed)
        tree, chain = (play(s, pair, sampling=COLD) for s in ("recursive_branching", "speculative"))
        assert tree.replay() == chain.replay()
        for step in tree.steps:
            guesses = [m.slot for m in step.marks if m.fate not in (Fate.FIXED, Fate.BONUS)]
            assert len(guesses) == len(set(guesses))


def test_acceptance_grows_with_siblings() -> None:
    """One slot ahead: the closed forms; two slots ahead: more tokens with every sibling."""
    pair = [flat("toy/p", P), flat("toy/q", Q)]
    one = [expected_kept("recursive_branching", pair, 2, branch=b, depth=1) for b in (1, 2, 3)]
    assert one == pytest.approx([0.7, 132 / 175, 1811 / 2100], abs=1e-12)
    pair = list(causal_pair(seed=3, zeros=0.0))
    two = [expected_kept("recursive_branching", pair, 3, branch=b, depth=2) for b in (1, 2, 3)]
    assert two[0] < two[1] < two[2]


def test_shape_of_the_tree() -> None:
    """Four guesses for the next slot, two siblings behind each, then one; all siblings different."""
    pair = causal_pair(size=6, seed=2, zeros=0.0)
    step = first_step("recursive_branching", pair, Seeded(3), 9, branch=4, depth=4)
    nodes = [m for m in step.marks if m.fate not in (Fate.FIXED, Fate.BONUS)]
    assert Counter(m.slot - 1 for m in nodes) == {0: 4, 1: 8, 2: 8, 3: 8}
    assert len({(m.parent, m.token) for m in nodes}) == len(nodes)


def test_one_draft_call_a_level_and_one_target_call_a_step() -> None:
    pair = causal_pair(size=6, seed=2, zeros=0.0)
    trace = play("recursive_branching", pair, budget=20, depth=3)
    assert all(step.calls["target"] == 1 and step.calls["draft"] <= 3 for step in trace.steps)


def test_younger_siblings_of_a_kept_node_are_unread() -> None:
    """Siblings are judged in the order in which they were drawn, up to the one that stays."""
    pair = causal_pair(size=5, seed=4, zeros=0.0)
    for step in play("recursive_branching", pair, budget=40, branch=3, depth=2).steps:
        nodes = [m for m in step.marks if m.fate not in (Fate.FIXED, Fate.BONUS)]
        for i, kept in enumerate(nodes):
            if kept.fate is Fate.KEPT:
                family = [(j, m.fate) for j, m in enumerate(nodes) if m.parent == kept.parent and j != i]
                assert all(fate is (Fate.REJECTED if j < i else Fate.UNREAD) for j, fate in family)


def test_never_drafts_beyond_the_budget() -> None:
    for budget in range(1, 6):
        for step in play("recursive_branching", budget=budget, depth=8).steps:
            assert all(mark.slot < 4 + budget for mark in step.marks)
