"""Several drafts for one place: known answers, the laws of the rules by enumeration, the optimum by maximum flow."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import networkx
import pytest
import torch
from torch import Tensor

from backend import couplings
from backend.chance import Chance, Seeded
from backend.couplings import (
    Drafts,
    accept_siblings,
    best_greedy,
    best_independent,
    best_siblings,
    choose_greedy,
    choose_hub,
    choose_k_seq,
    draft_greedy,
    draft_hub,
    figures,
    greedy,
    independent,
    k_seq,
    k_seq_acceptance,
    overlap,
    pick_siblings,
    siblings,
    tokens_by_ratio,
    without,
)
from backend.sampling import residual
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


def draws_alone(n: int) -> Draw:
    return lambda q_V, chance: [chance.pick(q_V) for _ in range(n)]


def draws_siblings(n: int) -> Draw:
    return lambda q_V, chance: pick_siblings(q_V, n, chance)


def draws_greedy(n: int) -> Draw:
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
    *(pytest.param(draws_alone(k), choose_k_seq, partial(k_seq_acceptance, k=k), id=f"k_seq-{k}") for k in (1, 2, 3)),
    *(
        pytest.param(draws_greedy(n), choose_greedy, partial(best_greedy, n=n), id=f"greedy-{n}")
        for n in (1, 2, 3, 4, 5)
    ),
    pytest.param(draft_hub, choose_hub, partial(best_greedy, n=2), id="hub"),
]


@pytest.mark.parametrize(("draw", "choose", "acceptance"), RULES)
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_rules_are_exact_and_as_good_as_they_say(draw: Draw, choose, acceptance, zeros: float) -> None:
    """Every random branch: the token has law p, and is one of the drafts as often as the formula says."""

    def game(p_V: Tensor, q_V: Tensor, chance: Chance) -> tuple[int, bool]:
        x = draw(q_V, chance)
        token, refused = choose(p_V, q_V, x, chance)
        assert set(refused) <= set(x)
        assert token in x or set(refused) == set(x), "a token from outside stands in place of all drafts"
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
        games = law(lambda chance, p_V=p_V, q_V=q_V: choose(p_V, q_V, draw(q_V, chance), chance)[0], max_games=1)
        assert games == {0: 1.0}
    assert acceptance(same, same) == 1.0
    assert acceptance(same, other) == 0.0


def test_greedy_and_paired_drafts_make_the_same_pairs() -> None:
    for _, q_V in pairs(20, 5):
        ours, theirs = (
            law(lambda chance, d=d, q_V=q_V: frozenset(d(q_V, chance))) for d in (draft_hub, draws_greedy(2))
        )
        assert ours == pytest.approx(theirs, abs=1e-12)


# ------------------------------------------------------------------------------------------------------- the best rule
@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("zeros", [0.0, 0.4])
@pytest.mark.parametrize(
    ("draw", "best"),
    [(draws_alone, best_independent), (draws_siblings, best_siblings), (draws_greedy, best_greedy)],
    ids=["independent", "siblings", "greedy"],
)
def test_best_acceptance_is_that_of_the_transport_problem(draw, best, size: int, n: int, zeros: float) -> None:
    for p_V, q_V in pairs(8, size, zeros):
        assert best(p_V, q_V, n) == pytest.approx(best_by_flow(p_V, q_V, draw(n)), abs=2e-7)


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
        assert best_siblings(p_V, q_V, n) == pytest.approx(brute, abs=2e-7)


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
            assert best_siblings(P, q_V, n) == pytest.approx(best_by_flow(P, q_V, draws_siblings(n)), abs=1e-7)


def kept_of_siblings(p_V: Tensor, q_V: Tensor, n: int) -> float:
    """How often recursive rejection takes one of n siblings, every branch enumerated."""

    def taken(chance: Chance) -> bool:
        x = pick_siblings(q_V, n, chance)
        return accept_siblings(p_V, q_V, x, chance)[0] < len(x)

    return law(taken).get(True, 0.0)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("zeros", [0.0, 0.4])
def test_acceptance_of_siblings_is_that_of_all_branches(n: int, zeros: float) -> None:
    for p_V, q_V in [(P, Q), (Q, P), (P, P), *pairs(8, 5, zeros)]:
        assert siblings(p_V, q_V, n)[0] == pytest.approx(kept_of_siblings(p_V, q_V, n), abs=1e-9)
    assert [siblings(P, Q, n)[0] for n in (2, 3)] == pytest.approx([132 / 175, 1811 / 2100], abs=1e-12)


def test_figures_of_a_step() -> None:
    """Known answers under the names that views read; nothing where there is no draft or no choice."""
    rows_NV = P[None]
    for drafts, rule, optimum in (
        (independent, 3 / 4, 79 / 100),
        (greedy, 4 / 5, 4 / 5),
        (siblings, 132 / 175, 269 / 315),
    ):
        told = figures(rows_NV, [Q], 2, drafts)
        assert list(told) == ["single", "rule", "optimum"]
        assert list(told.values()) == pytest.approx([7 / 10, rule, optimum])
        assert figures(rows_NV, [], 2, drafts) == {}
        one_NV = torch.eye(4, dtype=torch.float64)
        assert figures(one_NV, [one_NV[1]], 2, drafts) == {}
        assert figures(one_NV, [Q], 2, drafts)["single"] == pytest.approx(0.1)


@functools.cache
def wide_pairs(count: int = 3, size: int = 5_000) -> list[tuple[Tensor, Tensor]]:
    """Laws as language models have them: a few likely tokens, a long tail, and a drafter that is off by some."""
    out = []
    for seed in range(count):
        stream = torch.Generator().manual_seed(seed)
        raw_V = (1.0 + seed / 2) * torch.randn(size, generator=stream)
        raw_V[:4] += 6.0 * torch.rand(4, generator=stream)
        q_V = torch.softmax(raw_V + torch.randn(size, generator=stream), 0)
        out.append((torch.softmax(raw_V, 0), q_V))
    return out


@pytest.mark.parametrize("n", [2, 4])
def test_merged_tokens_move_acceptances_by_less_than_one_in_ten_thousand(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures of wide vocabularies against the same formulas with every token by itself."""
    quick = [[f(p_V, q_V, n) for f in (independent, siblings)] for p_V, q_V in wide_pairs()]
    assert all(len(tokens_by_ratio(p_V, q_V).p_W) < 1000 for p_V, q_V in wide_pairs())
    monkeypatch.setattr(couplings, "NARROW", 1 << 20)
    for (p_V, q_V), found in zip(wide_pairs(), quick, strict=True):
        assert len(tokens_by_ratio(p_V, q_V).p_W) == len(p_V)
        for (rule, optimum), f in zip(found, (independent, siblings), strict=True):
            assert (rule, optimum) == pytest.approx(f(p_V, q_V, n), abs=1e-4)


def test_filtered_laws_of_wide_vocabularies() -> None:
    """Most tokens have no chance, in one law or in both: as if only the others were there."""
    p_V, q_V = (
        x_V * (x_V >= x_V.topk(count).values[-1]) for x_V, count in zip(wide_pairs()[0], (300, 90), strict=True)
    )
    p_V, q_V = p_V / p_V.sum(), q_V / q_V.sum()
    some_V = (p_V > 0) | (q_V > 0)
    for drafts in (independent, siblings):
        assert drafts(p_V, q_V, 3) == pytest.approx(drafts(p_V[some_V], q_V[some_V], 3), abs=1e-6)


def test_acceptance_of_siblings_in_wide_vocabularies_is_what_comes_out() -> None:
    """Three siblings drawn and judged many times, and the mean of their chances to stay."""
    p_V, q_V = wide_pairs()[2]
    chance, total = Seeded(0), 0.0
    for _ in range(150):
        rest_V, law_V, fails = p_V, q_V, 1.0
        for token in pick_siblings(q_V, 3, chance):
            fails *= 1.0 - min(1.0, float(rest_V[token]) / float(law_V[token]))
            rest_V, law_V = residual(rest_V, law_V), without(law_V, token)
        total += 1.0 - fails
    assert siblings(p_V, q_V, 3)[0] == pytest.approx(total / 150, abs=0.06)


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

    def rule(p_V: Tensor, q_V: Tensor, x: Sequence[int], chance: Chance) -> tuple[int, list[int]]:
        asked.append((float(p_V[0]), float(q_V[0]), list(x)))
        return x[-1], list(x)

    rows_NV = torch.tensor([[0.0, 1.0], [0.1, 0.9], [0.2, 0.8], [1.0, 0.0]], dtype=torch.float64)
    games = law(lambda chance: tuple(map(str, tree.descend(rows_NV, list(rows_NV), rule, chance))))
    assert games == {("[1, 2]", "0", "[0]"): 1.0}
    assert asked == [(0.0, 0.0, [0, 1]), (0.2, 0.2, [1])]


class Script:
    """Answers flips from a list, and picks the likeliest token."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)

    def flip(self, a: float) -> bool:
        return self.answers.pop(0)

    def pick(self, p_V: Tensor, slot: int | None = None) -> int:
        return int(p_V.argmax())


def test_rules_say_whom_they_refused() -> None:
    """Drafts behind the one that stays were never judged; a draft may fail its first trial and pass its second."""
    assert choose_k_seq(P, Q, [1, 2, 1, 3], Script(False, True)) == (2, [1])  # type: ignore[arg-type]
    assert choose_k_seq(P, Q, [1, 2, 1, 3], Script(False, False, True)) == (1, [1, 2])  # type: ignore[arg-type]
    assert choose_k_seq(P, Q, [1, 2], Script(False, False)) == (0, [1, 2])  # type: ignore[arg-type]
    assert choose_greedy(P, Q, [1, 2, 3], Script(True)) == (3, [])  # type: ignore[arg-type]
    assert choose_greedy(P, Q, [1, 2, 3], Script(False))[1] == [1, 2, 3]  # type: ignore[arg-type]
    assert choose_hub(P, Q, [2, 1], Script(True)) == (2, [])  # type: ignore[arg-type]
    assert choose_hub(P, Q, [2, 1], Script(False, True)) == (1, [2])  # type: ignore[arg-type]
    tree = Drafts()
    for token in (1, 2, 1, 3):
        tree.hang(-1, token)
    rows_NV = P.expand(4, -1)
    assert tree.descend(rows_NV, [Q], choose_k_seq, Script(False, False, True)) == ([0], 0, [1])  # type: ignore[arg-type]
