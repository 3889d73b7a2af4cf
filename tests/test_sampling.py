"""Filters against transformers' processors; acceptance rules against their closed forms and known answers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from backend.chance import Chance
from backend.protocols import Scores
from backend.sampling import (
    accept_block,
    accept_chain,
    distribution,
    drawn,
    follow_chain,
    guesses,
    judged,
    residual,
    shorten,
)
from backend.types import Fate, Sampling
from tests.exact import expected, law, plain_filters, total_variation

P = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
Q = torch.tensor([0.1, 0.5, 0.3, 0.1], dtype=torch.float64)
PLAIN = Sampling(temperature=1.0)


# ---------------------------------------------------------------------------------------------------------- filters
def by_transformers(raw_NV: Tensor, sampling: Sampling, seen: list[list[int]]) -> Tensor:
    rows = []
    for raw_V, tokens in zip(raw_NV, seen, strict=True):
        steps = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)])
        steps.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k:
            steps.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            steps.append(TopPLogitsWarper(sampling.top_p))
        if sampling.min_p > 0:
            steps.append(MinPLogitsWarper(sampling.min_p))
        rows.append(torch.softmax(steps(torch.tensor([tokens]), raw_V[None].clone())[0], -1))
    return torch.stack(rows)


SAMPLINGS = [
    PLAIN,
    Sampling(temperature=0.6),
    Sampling(temperature=1.7),
    Sampling(temperature=1.0, top_k=1),
    Sampling(temperature=1.0, top_k=5),
    Sampling(temperature=1.0, top_k=500),
    Sampling(temperature=1.0, top_p=0.3),
    Sampling(temperature=1.0, top_p=0.95),
    Sampling(temperature=1.0, min_p=0.2),
    Sampling(temperature=1.0, repetition_penalty=1.3),
    Sampling(temperature=1.0, repetition_penalty=0.8),
    Sampling(temperature=0.8, top_k=20, top_p=0.9, min_p=0.05, repetition_penalty=1.1),
    Sampling(temperature=1.3, top_k=7, top_p=0.5, min_p=0.3, repetition_penalty=1.9),
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_filters_equal_those_of_transformers(sampling: Sampling) -> None:
    stream = torch.Generator().manual_seed(1)
    raw_NV = 3 * torch.randn(40, 50, generator=stream, dtype=torch.float64)
    seen = torch.randint(50, (40, 12), generator=stream).tolist()
    before = raw_NV.clone()
    got = distribution(raw_NV, sampling, seen)
    assert torch.equal(raw_NV, before), "the logits were changed"
    assert torch.allclose(got, by_transformers(raw_NV, sampling, seen), atol=1e-12)
    assert torch.allclose(got.sum(-1), torch.ones(40).double())


@pytest.mark.parametrize("sampling", [s for s in SAMPLINGS if s.repetition_penalty == 1.0], ids=str)
def test_filters_equal_plain_python(sampling: Sampling) -> None:
    raw_NV = 2 * torch.randn(20, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for raw_V, got_V in zip(raw_NV, distribution(raw_NV, sampling), strict=True):
        assert got_V.tolist() == pytest.approx(plain_filters(torch.softmax(raw_V, 0).tolist(), sampling), abs=1e-12)


def test_temperature_zero_is_one_hot_and_still_minds_repetition() -> None:
    raw_NV = torch.tensor([[1.0, 3.0, 2.9], [-0.1, -2.0, -3.0]])
    assert distribution(raw_NV, Sampling()).tolist() == [[0, 1, 0], [1, 0, 0]]
    penalised = distribution(raw_NV, Sampling(repetition_penalty=1.5), [[1], [1]])
    assert penalised.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_temperature_zero_ties_go_to_one_token() -> None:
    (row,) = distribution(torch.tensor([[2.0, 5.0, 5.0, 5.0]]), Sampling())
    assert row.tolist() == [0, 1, 0, 0]


def test_ties_at_the_edge_of_top_k_stay_together() -> None:
    """As in transformers: a filter that broke ties by token id would prefer small ids."""
    row = distribution(torch.tensor([[2.0, 1.0, 1.0, 0.0]]), Sampling(temperature=1.0, top_k=2))[0]
    assert (row > 0).tolist() == [True, True, True, False]
    assert row[1] == row[2]


def test_top_p_keeps_the_token_that_crosses_the_line_and_never_nothing() -> None:
    raw_NV = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log()
    assert (distribution(raw_NV, Sampling(temperature=1.0, top_p=0.6))[0] > 0).tolist() == [True, True, False]
    assert distribution(raw_NV, Sampling(temperature=1.0, top_p=1e-6))[0].tolist() == pytest.approx([1, 0, 0])


def test_zeros_stay_zeros() -> None:
    raw_NV = torch.tensor([[0.5, 0.0, 0.5]], dtype=torch.float64).log()
    for sampling in SAMPLINGS[:9]:
        assert distribution(raw_NV, sampling)[0, 1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    for sampling in (*SAMPLINGS, Sampling()):
        assert distribution(torch.zeros(1, 9, dtype=dtype), sampling, [[1]]).dtype is dtype


# -------------------------------------------------------------------------------------------------- single decisions
def first_token(chance: Chance, p_V: Tensor, q_V: Tensor) -> tuple[int, int]:
    """Draft one token, judge it, return (kept, the token that comes out)."""
    x = chance.pick(q_V)
    n = accept_chain(torch.stack([p_V, p_V]), [q_V], [x], chance)
    return n, x if n else chance.pick(residual(p_V, q_V))


def test_one_draft_is_kept_seven_times_in_ten() -> None:
    games = law(lambda chance: first_token(chance, P, Q))
    assert sum(w for (n, _), w in games.items() if n) == pytest.approx(0.7, abs=1e-12)
    out = {token: sum(w for (_, t), w in games.items() if t == token) for token in range(4)}
    assert total_variation(out, dict(enumerate(P.tolist()))) < 1e-12


def test_following_the_target_keeps_a_fixed_draft_with_its_probability() -> None:
    games = law(lambda chance: follow_chain(torch.stack([P, P]), [1], 0, chance))
    assert sum(w for (n, _), w in games.items() if n) == pytest.approx(0.3)


def test_residual() -> None:
    assert residual(P, Q).tolist() == pytest.approx([1, 0, 0, 0])
    assert residual(Q, P).tolist() == pytest.approx([0, 2 / 3, 1 / 3, 0])
    assert torch.equal(residual(P, P), P)  # nothing is left: happens with probability 0
    assert residual(torch.eye(3)[0], torch.eye(3)[1]).tolist() == [1, 0, 0]


def test_chain_at_temperature_zero_is_exact_matching() -> None:
    eye = torch.eye(3)
    p_NV = torch.stack([eye[0], eye[1], eye[2], eye[0]])
    for x, agreed in (([0, 1, 2], 3), ([0, 2, 2], 1), ([1, 1, 2], 0), ([], 0)):
        assert law(lambda chance, x=x: accept_chain(p_NV, [eye[t] for t in x], x, chance)) == {agreed: 1.0}


# ------------------------------------------------------------------------------------------------- block against token
def draft_two(chance: Chance, rule: Callable[..., int], p_V: Tensor, q_V: Tensor) -> int:
    x = [chance.pick(q_V), chance.pick(q_V)]
    return rule(torch.stack([p_V] * 3), [q_V] * 2, x, chance)


def test_block_keeps_11_ninths_where_token_by_token_keeps_10() -> None:
    """Context-free p = (1/3, 2/3), q = (2/3, 1/3), two drafted tokens."""
    p_V, q_V = torch.tensor([1 / 3, 2 / 3]).double(), torch.tensor([2 / 3, 1 / 3]).double()
    token = law(lambda chance: draft_two(chance, accept_chain, p_V, q_V))
    block = law(lambda chance: draft_two(chance, lambda *args: accept_block(*args)[0], p_V, q_V))
    assert expected(token) == pytest.approx(float(Fraction(10, 9)), abs=1e-6)
    assert expected(block) == pytest.approx(float(Fraction(11, 9)), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_block_law_is_the_target_and_never_shorter(seed: int) -> None:
    """Random tables of three tokens with zeros, three drafted: law of all four tokens, completed by the target."""
    stream = torch.Generator().manual_seed(seed)
    p_NV, q_NV = (torch.rand(4, 3, generator=stream, dtype=torch.float64) ** 3 for _ in range(2))
    p_NV[torch.rand(4, 3, generator=stream) < 0.2] = 0.0
    q_NV[torch.rand(4, 3, generator=stream) < 0.2] = 0.0
    p_NV, q_NV = ((x + torch.eye(4, 3).double()) / (x + torch.eye(4, 3).double()).sum(1, True) for x in (p_NV, q_NV))

    def play(chance: Chance, block: bool) -> tuple[int, tuple[int, ...]]:
        x = [chance.pick(q_NV[i]) for i in range(3)]
        if block:
            n, rest_V = accept_block(p_NV, list(q_NV), x, chance)
        else:
            n = accept_chain(p_NV, list(q_NV), x, chance)
            rest_V = p_NV[n] if n == 3 else residual(p_NV[n], q_NV[n])
        return n, (*x[:n], chance.pick(rest_V))

    lengths = {}
    for block in (True, False):
        games = law(lambda chance, block=block: play(chance, block))
        lengths[block] = expected(games, lambda game: game[0])
        full: dict[tuple[int, ...], float] = {}
        for (_, text), weight in games.items():
            grow(text, weight, p_NV, full)
        wanted: dict[tuple[int, ...], float] = {}
        grow((), 1.0, p_NV, wanted)
        assert total_variation(full, wanted) < 1e-12
    assert lengths[True] >= lengths[False] - 1e-12


def grow(text: tuple[int, ...], weight: float, p_NV: Tensor, out: dict[tuple[int, ...], float]) -> None:
    """Complete a text to four tokens with the context-free laws of its places."""
    if len(text) == len(p_NV):
        out[text] = out.get(text, 0.0) + weight
        return
    for token, p in enumerate(p_NV[len(text)].tolist()):
        if p > 0:
            grow((*text, token), weight * p, p_NV, out)


def test_block_without_a_draft_draws_from_the_target() -> None:
    n, p_V = law_value(lambda chance: accept_block(P[None], [], [], chance))
    assert n == 0
    assert torch.equal(p_V, P)


def law_value(run: Callable[[Chance], tuple[int, Tensor]]) -> tuple[int, Tensor]:
    """The one outcome of a procedure that draws nothing."""
    found: list[tuple[int, Tensor]] = []
    law(lambda chance: found.append(run(chance)))
    assert len(found) == 1
    return found[0]


# -------------------------------------------------------------------------------------------------------------- marks
SCORES = Scores(torch.stack([P, Q, P, Q]))


def fates(x: list[int], n: int, kept: list[int]) -> list[str]:
    return [mark.fate.value for mark in judged(10, x, n, kept, SCORES, [Q] * len(x))]


def test_fates_of_a_chain() -> None:
    assert fates([1, 2, 3], 3, [1, 2, 3, 0]) == ["kept", "kept", "kept", "bonus"]
    assert fates([1, 2, 3], 1, [1, 0]) == ["kept", "rejected", "unread", "fixed"]
    assert fates([1, 2, 3], 0, [0]) == ["rejected", "unread", "unread", "fixed"]
    assert fates([], 0, [0]) == ["bonus"]


def test_fates_of_a_chain_that_was_cut() -> None:
    assert fates([1, 2, 3], 3, [1, 2]) == ["kept", "kept", "unread"]
    assert fates([1, 2, 3], 2, [1]) == ["kept", "unread", "unread"]  # the text ended before the third was read


def test_marks_carry_both_probabilities_and_the_best_tokens() -> None:
    kept, rejected, fixed = judged(10, [1, 2], 1, [1, 0], SCORES, [Q, P])
    assert (kept.slot, rejected.slot, fixed.slot) == (10, 11, 11)
    assert (kept.p, kept.q) == (0.3, 0.5)
    assert (rejected.p, rejected.q) == (0.3, 0.2)
    assert (fixed.p, fixed.q) == (0.1, None)
    assert kept.options == ((0, 0.4), (1, 0.3), (2, 0.2), (3, 0.1))
    assert fixed.options[0] == (1, 0.5)
    assert judged(0, [1], 1, [1, 0], SCORES)[0].q is None


def test_options_are_those_before_temperature_and_filters() -> None:
    raw_NV = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    scores = Scores(distribution(raw_NV, Sampling()), raw_NV)
    assert scores.p_NV.tolist() == [[1, 0, 0]]
    assert scores.options(0, 2) == ((0, 0.665241), (1, 0.244728))


def test_drawn_and_guesses() -> None:
    mark = drawn(4, 2, Fate.BONUS, SCORES, 1)
    assert (mark.slot, mark.token, mark.fate, mark.p) == (4, 2, Fate.BONUS, 0.3)
    assert [(m.slot, m.token, m.fate) for m in guesses(7, [1, 0])] == [(7, 1, Fate.GUESS), (8, 0, Fate.GUESS)]


def test_shorten_keeps_six_digits() -> None:
    assert shorten(1 / 3) == 0.333333
    assert shorten(torch.tensor(1.23456789e-9, dtype=torch.float64)) == 1.23457e-9
