"""Special to any_horizon and segment_autoregressive: calls, parts, and which examples stand in front of a series."""

from __future__ import annotations

import pytest
import torch

from backend.chance import Ask, Seeded
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import Prompt, SegmentSession
from backend.registry import find
from backend.types import Sampling, Step
from backend.unrolling import first_windows, past_windows, shape_distances
from tests.toys_linear import SERIES, ToySegments, ToySegmentsSession


def run(strategy: str, horizon: int, seed: int = 1, **knobs: object) -> tuple[ToySegmentsSession, list[Step]]:
    model = ToySegments(protocol=find(strategy).protocol)
    session = model.make(Prompt(), Sampling(), Meter(), horizon)
    options = {name: o.default for name, o in find(strategy).knobs.items()} | knobs
    return session, list(find(strategy).run(target=session, ask=Ask(horizon, Seeded(seed)), **options))


def curve(steps: list[Step]) -> list[float]:
    held = {m.slot + i: x for step in steps for m in step.marks for i, x in enumerate(m.values)}
    return [held[slot] for slot in range(len(held))]


@pytest.mark.parametrize("horizon", [1, 2, 7, 24])
def test_any_horizon_writes_segments_by_definition(horizon: int) -> None:
    session, steps = run("any_horizon", horizon)
    assert session.calls == len(steps) == -(-horizon // 2)
    assert curve(steps) == pytest.approx(ToySegments().truth(horizon), rel=1e-5)


def test_parts_add_up_to_the_curve() -> None:
    _, steps = run("any_horizon", 7)
    told = {name: x for step in steps for name, x in step.figures.items() if name.startswith("part ")}
    assert len(told) == 2 * 7
    for i, value in enumerate(curve(steps), 1):
        assert told[f"part 1 {i}"] + told[f"part 2 {i}"] == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_longer_horizons_begin_as_shorter_ones() -> None:
    assert curve(run("any_horizon", 24)[1])[:7] == curve(run("any_horizon", 7)[1])


def test_without_examples_it_is_the_plain_unrolling() -> None:
    assert SegmentSession in find("segment_autoregressive").protocol.__mro__
    _, steps = run("segment_autoregressive", 7, examples=0)
    assert curve(steps) == pytest.approx(ToySegments().truth(7), rel=1e-5)
    assert not any(name.startswith("example") for name in steps[0].figures)


def test_examples_stand_in_front_in_every_call_and_count() -> None:
    session, steps = run("segment_autoregressive", 7, examples=2)
    assert len(session.shown) == 4
    assert all(shown_EX.shape == (2, 6) for shown_EX in session.shown)
    assert all(torch.equal(shown_EX, session.shown[0]) for shown_EX in session.shown)
    starts = [int(steps[0].figures[f"example {e}"]) for e in (1, 2)]
    for start, shown_X in zip(starts, session.shown[0], strict=True):
        assert shown_X.tolist() == list(SERIES[start : start + 6])
    answers = [x for shown_X in session.shown[0].tolist() for x in shown_X[-2:]]
    assert curve(steps) == pytest.approx(ToySegments().truth(7, answers), rel=1e-5)


def test_similar_examples_have_the_shape_of_the_end() -> None:
    """The same shape elsewhere, on another level and in another size, is found; the best stands last."""
    generator = torch.Generator().manual_seed(0)
    series_T = torch.randn(80, generator=generator, dtype=torch.float64)
    series_T[20:28] = 5 + 3 * series_T[-8:]
    windows_NX = past_windows(series_T, 12, 4)
    assert len(windows_NX) == 80 - 2 * 8 + 1  # questions that do not touch the last one
    distance_N = shape_distances(windows_NX, series_T, 4)
    assert int(distance_N.argmin()) == 20
    assert float(distance_N[20]) == pytest.approx(0.0, abs=1e-9)
    found = first_windows(distance_N.argsort(), 3, 12, 4)
    assert found[-1] == 20
    assert min(abs(i - j) for i in found for j in found if i != j) >= 4


def test_random_examples_follow_the_seed() -> None:
    starts = []
    for seed in range(6):
        _, steps = run("segment_autoregressive", 4, seed, examples=1, choice="random")
        starts.append(steps[0].figures["example 1"])
    _, again = run("segment_autoregressive", 4, 0, examples=1, choice="random")
    assert len(set(starts)) > 1
    assert again[0].figures["example 1"] == starts[0]


def test_a_series_without_room_for_examples() -> None:
    order_N = shape_distances(past_windows(torch.arange(9.0), 6, 2), torch.arange(9.0), 2).argsort()
    assert len(order_N) == 2
    with pytest.raises(UserError, match="2 examples of 6 steps were asked for, but the series has room for 1"):
        first_windows(order_N, 2, 6, 2)
    none_NX = past_windows(torch.arange(3.0), 6, 2)
    assert none_NX.shape == (0, 6)
    assert shape_distances(none_NX, torch.arange(3.0), 2).shape == (0,)
