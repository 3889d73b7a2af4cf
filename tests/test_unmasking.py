"""Schedules, orders and draws of a canvas that is filled in any order, against closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from backend.chance import Ask, Chance, Exhaustive, Seeded
from backend.errors import UserError
from backend.meter import Meter
from backend.types import Fate
from backend.unmasking import (
    Curve,
    bounded,
    chances,
    check_same_sizes,
    choose,
    draw,
    entropies,
    fill,
    filled,
    halton,
    masked_share,
    mean_entropy,
    next_slots,
    open_slots,
    remaining,
    scale_figures,
    shuffle,
    spread,
)
from tests.exact import law
from tests.toys import ToyScale, ToyScaleSession
from tests.toys_image import PLAIN

CURVES: tuple[Curve, ...] = ("cosine", "linear", "square", "root")


# ---------------------------------------------------------------------------------------------------------- schedules
@pytest.mark.parametrize("curve", CURVES)
def test_a_schedule_falls_from_all_to_none(curve: Curve) -> None:
    shares = [masked_share(curve, i / 50) for i in range(51)]
    assert (shares[0], shares[-1]) == (1.0, 0.0)
    assert shares == sorted(shares, reverse=True)


def test_schedules_are_those_of_the_paper() -> None:
    assert masked_share("cosine", 0.5) == pytest.approx(math.sqrt(0.5))
    assert masked_share("cosine", 2 / 3) == pytest.approx(0.5)
    assert [masked_share(c, 0.25) for c in ("linear", "square", "root")] == [0.75, 0.9375, 0.5]


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("total", [1, 2, 7, 64, 256])
@pytest.mark.parametrize("calls", [1, 2, 8, 12, 300])
def test_every_call_fills_a_slot_and_the_last_fills_the_rest(curve: Curve, total: int, calls: int) -> None:
    left = [total, *remaining(total, calls, curve)]
    assert all(a > b for a, b in itertools.pairwise(left))
    assert left[-1] == 0
    assert len(left) - 1 <= min(calls, total)


def test_known_plans() -> None:
    assert remaining(16, 4, "cosine") == [
        14,
        11,
        6,
        0,
    ]  # 16 cos(i pi/8) = 14.78, 11.31, 6.12
    assert remaining(100, 4, "linear") == [75, 50, 25, 0]
    assert remaining(100, 100, "linear") == list(range(99, -1, -1))  # 100 * (1 - 0.93) is 6.99.. in floats
    assert remaining(4, 0, "root") == [3, 2, 1, 0]
    assert remaining(0, 5, "cosine") == remaining(0, 0, "cosine") == []


@pytest.mark.parametrize("curve", ["cosine", "linear", "square"])
def test_as_many_calls_as_slots_fill_one_each(curve: Curve) -> None:
    """Concave curves lie above the line; calls beyond that change nothing."""
    for total in (1, 5, 64, 256):
        one = list(range(total - 1, -1, -1))
        assert remaining(total, total, curve) == remaining(total, total + 9, curve) == one


def test_spread_takes_the_ends_and_evenly_between() -> None:
    sizes = [(i, i) for i in (1, 2, 3, 4, 6, 8, 12, 16)]
    assert spread(sizes, 0) == spread(sizes, 8) == sizes
    assert spread(sizes, 1) == [(16, 16)]
    assert spread(sizes, 2) == [(1, 1), (16, 16)]
    for count in range(2, 9):
        some = spread(sizes, count)
        assert len(set(some)) == count
        assert some == sorted(some)
        assert (some[0], some[-1]) == ((1, 1), (16, 16))


def test_spread_refuses_more_than_there_are() -> None:
    with pytest.raises(UserError, match="12 scales were asked for, but the model has 3 sizes; ask for 1 to 3, or"):
        spread([(1, 1), (2, 2), (4, 4)], 12)


# ------------------------------------------------------------------------------------------------------------- orders
def test_open_slots_are_the_unknown_ones() -> None:
    assert open_slots([-1, 5, -1, 0, -1], 9) == [0, 2, 4]
    assert open_slots([-1, 5, -1, 0, -1], 2) == [0, 2]
    assert open_slots([3, 1], 2) == []


def test_choose_without_noise_takes_the_largest_and_the_first_of_equals() -> None:
    chance = Exhaustive()
    assert choose([0.1, 0.9, 0.5, 0.9], 3, 0.0, chance) == [1, 3, 2]
    assert choose([0.1, 0.9], 2, 5.0, chance) == [1, 0]  # all of them: nothing is left to chance
    assert not chance.forks


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_choose_has_the_law_of_the_largest_perturbed_weights(temperature: float) -> None:
    """Two of three: exactly Plackett and Luce; and that is what adding Gumbel noise and sorting gives."""
    p = [0.6, 0.3, 0.1]
    found = law(lambda chance: tuple(choose([math.log(x) for x in p], 2, temperature, chance)))
    heat = [x ** (1 / temperature) for x in p]
    for (i, j), weight in found.items():
        assert weight == pytest.approx(heat[i] / sum(heat) * heat[j] / (sum(heat) - heat[i]))
    noise = -(-torch.rand(40_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).log()).log()
    first, second = (torch.tensor(p, dtype=torch.float64).log() + temperature * noise).topk(2, dim=1).indices.T
    for (i, j), weight in found.items():
        share = float(((first == i) & (second == j)).double().mean())
        assert share == pytest.approx(weight, abs=5 * math.sqrt(weight / 40_000))


def test_choose_bears_the_smallest_temperature_and_weight() -> None:
    assert sorted(choose([-1e3, 0.0, -2e3, -1.0], 3, 1e-3, Seeded(0))) == [0, 1, 3]


def test_shuffle_is_even() -> None:
    orders = law(lambda chance: tuple(shuffle([4, 7, 9], chance)))
    assert len(orders) == 6
    assert all(weight == pytest.approx(1 / 6) for weight in orders.values())


def test_bounded_sets_ignore_no_more_than_the_bound() -> None:
    h = [0.0, 2.0, 0.5, 0.0, 1.0]
    assert bounded(h, 0.0) == [0, 3, 2]  # the certain ones and one more
    assert bounded(h, 0.49) == [0, 3, 2]
    assert bounded(h, 0.5) == [0, 3, 2, 4]
    assert bounded(h, 1.5) == [0, 3, 2, 4, 1]
    assert bounded([3.0], 0.0) == [0]
    for bound in (0.0, 0.3, 0.9, 5.0):
        chosen = [h[i] for i in bounded(h, bound)]
        assert sum(chosen) - max(chosen) <= bound


def test_halton_visits_every_cell_once_in_the_known_order() -> None:
    """Base 2 gives rows 1/2, 1/4, 3/4, 1/8, ..., base 3 columns 1/3, 2/3, 1/9, 4/9, ..."""
    assert halton((4, 3))[:4] == [2 * 3 + 1, 1 * 3 + 2, 3 * 3 + 0, 0 * 3 + 1]
    for grid in ((1, 1), (1, 7), (16, 16), (5, 9), (32, 24)):
        assert sorted(halton(grid)) == list(range(grid[0] * grid[1]))


def test_halton_spreads_better_than_raster_and_than_chance() -> None:
    """After a sixteenth of the cells, every quarter of the picture has its share."""
    first = halton((16, 16))[:16]
    quarters = [(slot // 16 // 8, slot % 16 // 8) for slot in first]
    counts = [quarters.count((y, x)) for y in (0, 1) for x in (0, 1)]
    assert max(counts) - min(counts) <= 2


# ------------------------------------------------------------------------------------------------------------- tokens
P_NV = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.25] * 4, [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)


def test_entropies_in_nats() -> None:
    assert entropies(P_NV) == pytest.approx([math.log(2), math.log(4), 0.0])
    assert entropies(P_NV)[2] == 0.0  # exactly: such slots are free in `bounded`
    assert mean_entropy(P_NV) == {"entropy": pytest.approx(math.log(8) / 3, rel=1e-5)}
    assert mean_entropy(P_NV[:0]) == {"entropy": 0.0}


def test_draws_belong_to_slots_not_to_the_order_of_asking() -> None:
    for seed in range(30):
        tokens = draw(P_NV, [5, 6, 7], Seeded(seed))
        chance = Seeded(seed)
        assert [draw(P_NV[[i]], [5 + i], chance)[0] for i in (2, 0, 1)] == [tokens[2], tokens[0], tokens[1]]
        assert tokens[2] == 1
    assert chances(P_NV, [0, 3, 1]) == [0.5, 0.25, 1.0]


def test_slots_of_one_call_are_drawn_each_for_itself() -> None:
    tokens = law(lambda chance: tuple(draw(P_NV, [0, 1, 2], chance)))
    assert len(tokens) == 8
    assert all(weight == pytest.approx(1 / 8) for weight in tokens.values())


def test_fill_writes_the_canvas_and_marks_it() -> None:
    canvas, ask = [-1, 9, -1], Ask(5, Seeded(3))
    marks = fill(canvas, [2, 0], P_NV, ask)
    assert (canvas[1], canvas[2], ask.left) == (9, 1, 3)
    assert [(m.slot, m.token, m.fate, m.p) for m in marks] == [(2, 1, Fate.BONUS, 1.0), (0, canvas[0], Fate.BONUS, 0.5)]
    assert [m.fate for m in filled([0], [1], P_NV, Fate.FIXED)] == [Fate.FIXED]


# ------------------------------------------------------------------------------------------------------------- scales
def scales(*sizes: tuple[int, int]) -> ToyScaleSession:
    return ToyScaleSession(ToyScale(sizes=sizes), PLAIN, Meter())


def test_slots_of_scales_follow_one_another() -> None:
    session = scales((1, 1), (1, 2), (2, 2))
    assert next_slots(session, 7) == range(0, 1)
    assert scale_figures(session) == {"scale": 1.0, "scales": 3.0, "height": 1.0, "width": 1.0}
    session.commit([0])
    session.commit([0, 1])
    assert next_slots(session, 4) == range(3, 7)
    assert not next_slots(session, 3), "a scale is written whole or not at all"
    session.commit([0, 1, 1, 0])
    assert not next_slots(session, 99)


def test_two_models_must_write_the_same_scales() -> None:
    check_same_sizes(scales((1, 1), (2, 2)), scales((1, 1), (2, 2)))
    with pytest.raises(UserError, match="1x1, 2x2 against 1x1, 1x2"):
        check_same_sizes(scales((1, 1), (2, 2)), scales((1, 1), (1, 2)))


def test_nothing_is_drawn_but_through_chance() -> None:
    state = torch.get_rng_state()
    chance: Chance = Seeded(0)
    shuffle(range(9), chance)
    choose([0.0, 1.0, 2.0], 2, 1.0, chance)
    draw(P_NV, [0, 1, 2], chance)
    assert torch.equal(state, torch.get_rng_state())
