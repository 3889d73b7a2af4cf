"""One seed, one stream; slots with noise of their own; and the chance that enumerates.

Statistical checks use fixed seeds and bounds that correct code would fail once in a million suites.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from backend.chance import KEPT_NOISES, Ask, Chance, Exhaustive, Seeded
from backend.errors import UserError
from tests.exact import law

P = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
Q = torch.tensor([0.1, 0.5, 0.3, 0.1], dtype=torch.float64)
DRAWS = 20_000
CHI2_3 = 30.66  # a chi-square of 3 degrees of freedom exceeds it with probability 1e-6
SIGMAS = 4.9  # a normal variable leaves +-4.9 standard deviations with probability 1e-6


def chi_square(counts: Tensor, p_V: Tensor) -> float:
    wanted = p_V * counts.sum()
    return float(((counts - wanted) ** 2 / wanted).sum())


# ------------------------------------------------------------------------------------------------------------ seeded
def test_pick_draws_from_p() -> None:
    chance = Seeded(11)
    counts = torch.bincount(torch.tensor([chance.pick(P) for _ in range(DRAWS)]), minlength=4).double()
    assert chi_square(counts, P) < CHI2_3


def test_pick_by_slot_draws_from_p() -> None:
    chance = Seeded(12)
    counts = torch.bincount(torch.tensor([chance.pick(P, slot) for slot in range(DRAWS)]), minlength=4).double()
    assert chi_square(counts, P) < CHI2_3


def test_neighbouring_slots_are_independent() -> None:
    chance = Seeded(13)
    tokens = [chance.pick(P, slot) for slot in range(DRAWS)]
    pairs = torch.zeros(4, 4, dtype=torch.float64)
    for a, b in itertools.pairwise(tokens):
        pairs[a, b] += 1
    wanted = torch.outer(pairs.sum(1), pairs.sum(0)) / pairs.sum()
    assert float(((pairs - wanted) ** 2 / wanted).sum()) < 46.1  # 9 degrees of freedom at about 6e-7


def test_flip_is_true_as_often_as_asked() -> None:
    chance = Seeded(14)
    hits = sum(chance.flip(0.3) for _ in range(DRAWS))
    assert abs(hits - 0.3 * DRAWS) < SIGMAS * math.sqrt(DRAWS * 0.3 * 0.7)


def test_flip_at_the_ends_is_certain() -> None:
    chance = Seeded(0)
    assert all(chance.flip(1.0) for _ in range(1_000))
    assert not any(chance.flip(0.0) for _ in range(1_000))


def test_noise_is_standard_normal() -> None:
    x = Seeded(15).noise((100, 200))
    assert x.shape == (100, 200)
    assert abs(float(x.mean())) < SIGMAS / math.sqrt(x.numel())
    assert abs(float(x.var()) - 1) < SIGMAS * math.sqrt(2 / x.numel())


def test_a_seed_determines_everything() -> None:
    def play(seed: int) -> list[float]:
        chance = Seeded(seed)
        return [
            chance.pick(P),
            chance.pick(P, 5),
            float(chance.flip(0.5)),
            *chance.noise((3,)).tolist(),
            chance.pick(P),
        ]

    assert play(3) == play(3)
    assert len({tuple(play(seed)) for seed in range(10)}) == 10


def test_a_slot_has_one_noise_whatever_happens_between() -> None:
    chance, other = Seeded(4), Seeded(4)
    first = chance.pick(P, 7)
    chance.flip(0.5)
    chance.noise((10,))
    assert chance.pick(P, 7) == first == other.pick(P, 7)
    for slot in range(1_000, 1_001 + KEPT_NOISES):
        chance.pick(P, slot)  # slot 7 is forgotten
    assert chance.pick(P, 7) == first


def test_slot_picks_leave_the_stream_alone() -> None:
    chance, other = Seeded(4), Seeded(4)
    for slot in range(10):
        chance.pick(P, slot)
    assert [chance.pick(P) for _ in range(20)] == [other.pick(P) for _ in range(20)]


@pytest.mark.parametrize("slot", [None, 3])
def test_one_hot_costs_no_randomness(slot: int | None) -> None:
    chance, other = Seeded(5), Seeded(5)
    assert [chance.pick(torch.eye(4)[i], slot) for i in range(4)] == [0, 1, 2, 3]
    assert chance.pick(P) == other.pick(P)


@pytest.mark.parametrize("slot", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_impossible_tokens_are_never_drawn(slot: int | None, dtype: torch.dtype) -> None:
    p_V = torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0], dtype=dtype)
    for seed in range(500):
        assert Seeded(seed).pick(p_V, slot) in (1, 3)


@pytest.mark.parametrize(("u", "token"), [(0.0, 1), (1.0, 3)])
def test_the_very_edges_of_the_unit_interval_are_possible_tokens(
    monkeypatch: pytest.MonkeyPatch, u: float, token: int
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *args, **options: torch.tensor(u, dtype=torch.float64))
    assert Seeded(0).pick(torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0])) == token


def agreement(p_V: Tensor, q_V: Tensor) -> float:
    """Chance that an exponential race gives p and q the same winner: sum_i 1 / sum_j max(p_j / p_i, q_j / q_i)."""
    total = 0.0
    for i in range(len(p_V)):
        if p_V[i] > 0 and q_V[i] > 0:
            total += 1 / float(torch.maximum(p_V / p_V[i], q_V / q_V[i]).sum())
    return total


def test_shared_noise_agrees_as_often_as_its_closed_form() -> None:
    chance = Seeded(16)
    wanted = agreement(P, Q)
    overlap = float(torch.minimum(P, Q).sum())
    assert (
        overlap / (2 - overlap) <= wanted <= overlap
    )  # (1 - TV) / (1 + TV) below, what an optimal coupling gives above
    hits = sum(chance.pick(P, slot) == chance.pick(Q, slot) for slot in range(DRAWS))
    assert abs(hits - wanted * DRAWS) < SIGMAS * math.sqrt(DRAWS * wanted * (1 - wanted))


def test_equal_laws_always_agree() -> None:
    chance = Seeded(17)
    assert all(chance.pick(P, slot) == chance.pick(P.clone(), slot) for slot in range(500))


# -------------------------------------------------------------------------------------------------------- exhaustive
def test_weights_of_all_games_add_up_to_the_law() -> None:
    assert law(lambda chance: chance.pick(P)) == pytest.approx(dict(enumerate(P.tolist())))
    assert law(lambda chance: chance.flip(0.3)) == pytest.approx({True: 0.3, False: 0.7})


def test_only_possible_branches_are_visited() -> None:
    assert law(lambda chance: chance.pick(torch.tensor([0.0, 1.0]))) == {1: 1.0}
    assert law(lambda chance: chance.flip(1.0)) == {True: 1.0}
    assert law(lambda chance: chance.flip(0.0)) == {False: 1.0}


def test_forks_and_weight_describe_the_game() -> None:
    chance = Exhaustive((1, 0))
    assert chance.pick(P) == 1
    assert chance.flip(0.25) is True
    assert chance.pick(Q) == 0  # behind the script: the first branch
    assert chance.forks == [4, 2, 4]
    assert chance.weight == pytest.approx(0.3 * 0.25 * 0.1)


def test_a_slot_keeps_its_number_and_every_marginal_is_right() -> None:
    def run(chance: Chance) -> tuple[int, int, int, int]:
        return chance.pick(P, 9), chance.pick(Q, 9), chance.pick(P, 9), chance.pick(P, 10)

    games = law(run)
    assert all(first == again for first, _, again, _ in games)
    for place, truth in enumerate((P, Q, P, P)):
        for token in range(4):
            assert sum(w for game, w in games.items() if game[place] == token) == pytest.approx(float(truth[token]))
    both = {(a, b): 0.0 for a in range(4) for b in range(4)}
    for (a, _, _, b), w in games.items():
        both[a, b] += w
    assert all(w == pytest.approx(float(P[a] * P[b])) for (a, b), w in both.items()), "slots are independent"


def test_refining_with_three_laws_stays_coherent() -> None:
    """The order in which laws are asked at a slot must not matter."""
    laws = {"p": P, "q": Q, "r": torch.tensor([0.0, 0.25, 0.25, 0.5], dtype=torch.float64)}
    found = []
    for order in itertools.permutations(laws):

        def run(chance: Chance, order: tuple[str, ...] = order) -> tuple[tuple[str, int], ...]:
            return tuple(sorted((name, chance.pick(laws[name], 0)) for name in order))

        found.append(law(run))
    assert all(games == pytest.approx(found[0]) for games in found)


def test_continuous_noise_is_refused() -> None:
    with pytest.raises(AssertionError, match="cannot enumerate continuous noise"):
        Exhaustive().noise((2,))


# --------------------------------------------------------------------------------------------------------------- ask
def test_take_cuts_at_the_budget() -> None:
    ask = Ask(3, Seeded(0))
    assert ask.take([1, 2]) == [1, 2]
    assert (ask.left, ask.open) == (1, True)
    assert ask.take([3, 4]) == [3]
    assert (ask.left, ask.open, ask.ended) == (0, False, False)


def test_take_cuts_behind_the_end_token() -> None:
    ask = Ask(9, Seeded(0), {7})
    assert ask.take([1, 7, 2, 7]) == [1, 7]
    assert (ask.left, ask.open, ask.ended) == (7, False, True)


def test_an_end_token_beyond_the_budget_does_not_count() -> None:
    ask = Ask(1, Seeded(0), {7})
    assert ask.take([1, 7]) == [1]
    assert not ask.ended


def test_a_split_ask_is_as_open_as_its_parts() -> None:
    """Equal shares, the rest is left over; it ended early only if all parts did."""
    ask = Ask(7, Seeded(0), {7})
    first, second = ask.split(2)
    assert (first.left, second.left, ask.open) == (3, 3, True)
    assert first.take([1, 7]) == [1, 7]
    assert (first.open, ask.open, ask.ended) == (False, True, False)
    assert second.take([1, 2, 7, 4]) == [1, 2, 7]
    assert (ask.open, ask.ended) == (False, True)


def test_a_split_ask_whose_budget_is_used_up_did_not_end_early() -> None:
    ask = Ask(4, Seeded(0), {7})
    first, second = ask.split(2)
    first.take([7])
    second.take([1, 2])
    assert (ask.open, ask.ended) == (False, False)


def test_a_share_holds_a_token() -> None:
    with pytest.raises(UserError, match="3 texts share the budget, but it is 2; ask for 3 new tokens"):
        Ask(2, Seeded(0)).split(3)


def test_the_chance_of_a_text_is_that_of_a_seed_of_its_own() -> None:
    """Text 0 has the seed itself; the largest seed is followed by the first."""
    picks = [[Seeded(seed).pick(P, slot) for slot in range(50)] for seed in (5, 6, 0)]
    assert [[Seeded(5).part(i).pick(P, slot) for slot in range(50)] for i in (0, 1)] == picks[:2]
    assert [Seeded((1 << 32) - 1).part(1).pick(P, slot) for slot in range(50)] == picks[2]
    assert picks[0] != picks[1]


def test_enumerated_texts_are_independent_at_the_same_slot() -> None:
    """Two picks at one slot agree within a text, and are independent across texts."""

    def game(chance: Chance) -> tuple[int, ...]:
        texts = [chance.part(0), chance.part(1)]
        return tuple(part.pick(P, 3) for part in (*texts, *texts))

    found = law(game)
    assert all(a == c and b == d for a, b, c, d in found)
    assert all(weight == pytest.approx(float(P[a] * P[b])) for (a, b, _, _), weight in found.items())
    assert len(found) == 16


def test_picks_say_what_pick_says_of_every_row() -> None:
    """Laws of all kinds: flat ones, nearly and wholly one-hot ones, in both precisions, whatever was asked before."""
    p_NV = torch.rand(40, 7, generator=torch.Generator().manual_seed(2)) ** 6
    p_NV[5] = torch.eye(7)[3]
    p_NV[6] = torch.tensor([0.0, 1.0, 1e-9, 0.0, 0.0, 0.0, 0.0])
    p_NV = p_NV / p_NV.sum(1, keepdim=True)
    slots = [(11 * i) % 40 for i in range(40)]
    for law_NV in (p_NV, p_NV.double()):
        chance, alone = Seeded(7), Seeded(7)
        chance.pick(law_NV[0], slots[3])
        assert chance.picks(law_NV, slots) == [alone.pick(p_V, s) for p_V, s in zip(law_NV, slots, strict=True)]
        assert chance.picks(law_NV[:0], []) == []
    script = (1, 0, 1)
    together, apart = Exhaustive(script), Exhaustive(script)
    tokens = together.picks(p_NV[:3], [0, 1, 2])
    assert tokens == [apart.pick(p_V, i) for i, p_V in enumerate(p_NV[:3])]
    assert (together.forks, together.weight) == (apart.forks, apart.weight)
