"""Several drafts for one place: known answers, the laws of the rules by enumeration, the optimum by maximum flow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import networkx
import pytest
import torch
from torch import Tensor

from backend.chance import Chance
from backend.couplings import (
    Drafts,
    best_greedy,
    best_independent,
    best_siblings,
    choose_greedy,
    choose_hub,
    choose_k_seq,
    draft_greedy,
    draft_hub,
    gap,
    k_seq,
    k_seq_acceptance,
    overlap,
    pick_siblings,
)
from tests.exact import law
from tests.toys import random_law

P = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
Q = torch.tensor([0.1, 0.5, 0.3, 0.1], dtype=torch.float64)
Draw = Callable[[Tensor, Chance], Sequence[int]]


def pairs(count: int, size: int, zeros: float = 0.0) -> list[tuple[Tensor, Tensor]]:
    """Random targets and drafters, the sharper the later."""
    out = []
    for seed in range(count):
        p_V, q_V = (random_law(7 * seed + 1000 * i, size, zeros) ** (1 + seed % 3) for i in (1, 2))
        out.append((p_V / p_V.sum(), q_V / q_V.sum()))
    return out


def independent(n: int) -> Draw:
    return lambda q_V, chance: [chance.pick(q_V) for _ in range(n)]


def siblings(n: int) -> Draw:
    return lambda q_V, chance: pick_siblings(q_V, n, chance)


def greedy(n: int) -> Draw:
    return lambda q_V, chance: draft_greedy(q_V, n, chance)


def best_by_flow(p_V: Tensor, q_V: Tensor, draw: Draw) -> float:
    """The transport problem itself: weight flows from sets of drafts through one of their tokens, at most p each."""
    graph = networkx.DiGraph()
    for drafts, weight in law(lambda chance: frozenset(draw(q_V, chance))).items():
        graph.add_edge("drafts", drafts, capacity=weight)
        graph.add_edges_from((drafts, token) for token in drafts)
    for token, p in enumerate(p_V.tolist()):
        graph.add_edge(token, "text", capacity=p)
    return float(networkx.maximum_flow_value(graph, "drafts", "text"))


# ------------------------------------------------------------------------------------------------------ known answers
def test_known_answers_of_two_and_three_drafts() -> None:
    assert overlap(P, Q) == pytest.approx(0.7)
    assert [k_seq(P, Q, k) for k in (1, 2, 3)] == pytest.approx([1.0, 1.5, 1.93950], abs=1e-6)
    assert [k_seq_acceptance(P, Q, k) for k in (1, 2, 3)] == pytest.approx([0.7, 0.75, 0.793950], abs=1e-6)
    assert [best_independent(P, Q, n) for n in (1, 2, 3)] == pytest.approx([0.7, 0.79, 0.871])
    assert [best_siblings(P, Q, n) for n in (1, 2, 3)] == pytest.approx([0.7, 269 / 315, 1.0], abs=1e-7)
    assert [best_greedy(P, Q, n) for n in (1, 2, 3, 4)] == pytest.approx([0.7, 0.8, 1.0, 1.0])


def test_second_known_instance() -> None:
    p_V, q_V = torch.tensor([0.618, 0.354, 0.028]).double(), torch.tensor([0.373, 0.580, 0.047]).double()
    assert best_independent(p_V, q_V, 2) == pytest.approx(0.988871, abs=1e-6)


# -------------------------------------------------------------------------------------------------- laws of the rules
RULES = [
    *(pytest.param(independent(k), choose_k_seq, partial(k_seq_acceptance, k=k), id=f"k_seq-{k}") for k in (1, 2, 3)),
    *(pytest.param(greedy(n), choose_greedy, partial(best_greedy, n=n), id=f"greedy-{n}") for n in (1, 2, 3, 4, 5)),
    pytest.param(draft_hub, choose_hub, partial(best_greedy, n=2), id="hub"),
]


@pytest.mark.parametrize(("draw", "choose", "acceptance"), RULES)
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_rules_are_exact_and_as_good_as_they_say(draw: Draw, choose, acceptance, zeros: float) -> None:
    """Every random branch: the token has law p, and is one of the drafts as often as the formula says."""

    def game(p_V: Tensor, q_V: Tensor, chance: Chance) -> tuple[int, bool]:
        x = draw(q_V, chance)
        token = choose(p_V, q_V, x, chance)
        return token, token in x

    for p_V, q_V in [(P, Q), (Q, P), (P, P), *pairs(25, 4, zeros)]:
        games = law(partial(game, p_V, q_V))
        for token, p in enumerate(p_V.tolist()):
            assert sum(w for (t, _), w in games.items() if t == token) == pytest.approx(p, abs=1e-12)
        assert sum(w for (_, taken), w in games.items() if taken) == pytest.approx(acceptance(p_V, q_V), abs=1e-12)


@pytest.mark.parametrize(("draw", "choose", "acceptance"), RULES)
def test_one_hot_laws_leave_nothing_to_chance(draw: Draw, choose, acceptance) -> None:
    """Temperature 0: the target's token, taken if it was drafted, in a single game."""
    same, other = torch.eye(3, dtype=torch.float64)[:2]
    for p_V, q_V in ((same, same), (same, other)):
        games = law(lambda chance, p_V=p_V, q_V=q_V: choose(p_V, q_V, draw(q_V, chance), chance), max_games=1)
        assert games == {0: 1.0}
    assert acceptance(same, same) == 1.0
    assert acceptance(same, other) == 0.0


def test_greedy_and_paired_drafts_make_the_same_pairs() -> None:
    for _, q_V in pairs(20, 5):
        ours, theirs = (law(lambda chance, d=d, q_V=q_V: frozenset(d(q_V, chance))) for d in (draft_hub, greedy(2)))
        assert ours == pytest.approx(theirs, abs=1e-12)


# ------------------------------------------------------------------------------------------------------- the best rule
@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("zeros", [0.0, 0.4])
@pytest.mark.parametrize(
    ("draw", "best"),
    [(independent, best_independent), (siblings, best_siblings), (greedy, best_greedy)],
    ids=["independent", "siblings", "greedy"],
)
def test_best_acceptance_is_that_of_the_transport_problem(draw, best, size: int, n: int, zeros: float) -> None:
    for p_V, q_V in pairs(8, size, zeros):
        assert best(p_V, q_V, n) == pytest.approx(best_by_flow(p_V, q_V, draw(n)), abs=1e-8)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_best_set_without_replacement_is_a_prefix(n: int) -> None:
    """Against all sets of tokens, with Q(H) added up draw by draw."""

    def all_in(rest: tuple[int, ...], q: list[float], left: float, drafts: int) -> float:
        if drafts == 0:
            return 1.0
        return sum(q[i] / left * all_in(tuple(j for j in rest if j != i), q, left - q[i], drafts - 1) for i in rest)

    for p_V, q_V in pairs(6, 6):
        p, q = p_V.tolist(), q_V.tolist()
        sets = itertools.chain.from_iterable(itertools.combinations(range(6), size) for size in range(7))
        brute = 1.0 + min(sum(p[i] for i in some) - all_in(some, q, 1.0, n) for some in sets)
        assert best_siblings(p_V, q_V, n) == pytest.approx(brute, abs=1e-8)


def test_k_seq_lies_where_the_paper_says() -> None:
    """Between 1 - 1/e of the optimum and the optimum; more drafts are never worse; the residual is never negative."""
    for p_V, q_V in pairs(20, 6, 0.2):
        last = 0.0
        for k in range(1, 9):
            rho, acceptance = k_seq(p_V, q_V, k), k_seq_acceptance(p_V, q_V, k)
            best = best_independent(p_V, q_V, k)
            assert 1.0 <= rho <= k
            assert acceptance >= last - 1e-12
            assert (1 - 1 / math.e) * best - 1e-12 <= acceptance <= best + 1e-12
            beta = acceptance / rho
            assert acceptance == pytest.approx(1 - (1 - beta) ** k, abs=1e-12)
            last = acceptance


def test_wide_vocabularies_in_single_precision() -> None:
    """A row as models give it: nothing overflows, n = 1 is the overlap, more drafts are better, siblings are best."""
    stream = torch.Generator().manual_seed(1)
    raw_V = 3 * torch.randn(4096, generator=stream)
    p_V, q_V = torch.softmax(raw_V, 0), torch.softmax(raw_V + torch.randn(4096, generator=stream), 0)
    one = overlap(p_V, q_V)
    for best in (best_independent, best_siblings, best_greedy):
        assert best(p_V, q_V, 1) == pytest.approx(one, abs=1e-6)
        assert one < best(p_V, q_V, 2) < best(p_V, q_V, 3) < best(p_V, q_V, 4) < 1
    for n in (2, 3, 4):
        assert k_seq_acceptance(p_V, q_V, n) < best_independent(p_V, q_V, n) < best_siblings(p_V, q_V, n)


def test_siblings_of_a_drafter_that_is_almost_sure() -> None:
    """Waiting times of very different length; two drafts by the closed form, three by the integral, both by flow."""
    for rest in (1e-3, 1e-6, 1e-9):
        q_V = torch.tensor([1 - rest, 0.6 * rest, 0.3 * rest, 0.1 * rest], dtype=torch.float64)
        for n in (2, 3):
            assert best_siblings(P, q_V, n) == pytest.approx(best_by_flow(P, q_V, siblings(n)), abs=1e-7)


def test_the_gap_in_words() -> None:
    words = gap(P, Q, k_seq_acceptance(P, Q, 2), best_independent(P, Q, 2))
    assert words == "acceptance 0.75 used, 0.70 one draft, 0.79 best possible"


# ----------------------------------------------------------------------------------------------------- drafts in a tree
def test_drafts_share_what_they_begin_with() -> None:
    tree = Drafts()
    ends = [tree.hang(-1, token) for token in (5, 7, 5)]
    assert ends == [0, 1, 0]
    assert [tree.hang(end, token) for end, token in zip(ends, (1, 1, 2), strict=True)] == [2, 3, 4]
    assert (tree.tokens, tree.parents) == ([5, 7, 1, 1, 2], [-1, -1, 0, 1, 0])
    assert tree.drawn == {-1: [5, 7, 5], 0: [1, 2], 1: [1]}


def test_descend_asks_until_no_draft_went_there() -> None:
    tree = Drafts()
    for end, token in ((-1, 0), (-1, 1), (1, 1)):
        tree.hang(end, token)
    asked = []

    def rule(p_V: Tensor, q_V: Tensor, x: Sequence[int], chance: Chance) -> int:
        asked.append((float(p_V[0]), float(q_V[0]), list(x)))
        return x[-1]

    rows_NV = torch.tensor([[0.0, 1.0], [0.1, 0.9], [0.2, 0.8], [1.0, 0.0]], dtype=torch.float64)
    games = law(lambda chance: tuple(map(str, tree.descend(rows_NV, list(rows_NV), rule, chance))))
    assert games == {("[1, 2]", "0"): 1.0}
    assert asked == [(0.0, 0.0, [0, 1]), (0.2, 0.2, [1])]
