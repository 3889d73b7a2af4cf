"""Special to strategies on quantile heads: schedules, what is fed back, and what that does to the width of bands."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from backend.chance import Ask, Seeded
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import Prompt
from backend.registry import find
from backend.types import Sampling, Step
from backend.unrolling import masses, pooled, quantile_at, schedule
from tests.toys_forecast import ToyBands

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def run(strategy: str, model: ToyBands, horizon: int, **knobs: Any) -> tuple[Any, list[Step]]:
    session = model.make(Prompt(), Sampling(temperature=1.0), Meter(), horizon)
    options = {name: o.default for name, o in find(strategy).knobs.items()} | knobs
    return session, list(find(strategy).run(target=session, ask=Ask(horizon, Seeded(1)), **options))


def canvas(steps: list[Step], horizon: int) -> torch.Tensor:
    held = {m.slot + i: x for step in steps for m in step.marks for i, x in enumerate(m.values)}
    return torch.tensor([held[slot] for slot in range(len(held))], dtype=torch.float64).reshape(-1, horizon)


@pytest.mark.parametrize("rule", ["fit_below", "overshoot", "smallest"])
def test_schedules_cover_exactly(rule: Any) -> None:
    for horizon in range(1, 201):
        sizes = schedule(horizon, (1, 8, 32, 64), rule)
        assert sum(sizes[:-1]) < horizon <= sum(sizes)
        if rule != "overshoot":
            assert sum(sizes) == horizon
    assert schedule(3, (8, 16), "fit_below") == [8]


def test_schedules_of_the_paper() -> None:
    assert schedule(96, (1, 8, 32, 64), "fit_below") == [64, 32]
    assert schedule(100, (1, 8, 32, 64), "fit_below") == [64, 32, 1, 1, 1, 1]
    assert schedule(100, (1, 8, 32, 64), "overshoot") == [64, 64]


def test_direct_is_the_model_in_one_call() -> None:
    model = ToyBands()
    session, steps = run("direct", model, 7)
    mean_RH, spread_H = model.moments(session.series_CT[0, -1:], 7)
    z_L = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
    assert torch.allclose(canvas(steps, 7), mean_RH + z_L[:, None] * spread_H, rtol=1e-5)
    assert session.calls == 1
    with pytest.raises(UserError, match="reaches 8 steps, but the horizon is 9"):
        run("direct", model, 9)


def test_median_feedback_shrinks_bands_at_every_border_and_fan_out_repairs_them() -> None:
    """AR(1) near a random walk, four blocks, widths over the true ones: a saw-tooth with the median.

    Fed back curves end at the levels 0.1 and 0.9, so that some width is lost at every border, but no more than that.
    """
    model, horizon = ToyBands(phi=0.98), 32
    _, spread_H = model.moments(torch.zeros(1), horizon)
    widths = {}
    for feedback in ("median", "fan_out"):
        band_LH = canvas(run("rolled_direct", model, horizon, feedback=feedback)[1], horizon)
        widths[feedback] = (band_LH[-1] - band_LH[0]) / (2 * 1.2815516 * spread_H)
    assert torch.allclose(widths["median"][:8], torch.ones(8, dtype=torch.float64), atol=1e-4)
    assert widths["median"][8] < 0.4  # as narrow as one step again
    assert (widths["fan_out"][8:] > 0.7).all()
    assert (widths["fan_out"][8:] < 1.0).all()


def test_sampled_feedback_gives_paths_with_the_right_spread_of_steps_and_the_wrong_one_of_sums() -> None:
    model = ToyBands(phi=0.9)
    paths_SH = canvas(run("rolled_direct", model, 8, feedback="sampled", paths=500)[1], 8)
    _, spread_H = model.moments(torch.zeros(1), 8)
    assert paths_SH.std(0) / spread_H == pytest.approx(torch.ones(8), abs=0.16)
    steps_H = torch.arange(8, dtype=torch.float64)
    order = torch.minimum(steps_H[:, None], steps_H).long()
    true = (spread_H[order] ** 2 * 0.9 ** (steps_H[:, None] - steps_H).abs()).sum().sqrt()
    assert paths_SH.sum(1).std() < 0.6 * true  # steps drawn apart do not add up


def test_calls_by_head_and_rule() -> None:
    model = ToyBands()
    assert run("rolled_direct", model, 17)[0].calls == 3
    assert run("rolled_direct", model, 17, head=3)[0].calls == 17
    assert run("multi_resolution", model, 17)[0].calls == 3  # 8 + 8 + 1
    assert run("multi_resolution", model, 15)[0].calls == 4  # 8 + 4 + 2 + 1
    assert run("multi_resolution", model, 15, rule="overshoot")[0].calls == 2
    assert run("multi_resolution", model, 15, rule="smallest")[0].calls == 15


# -------------------------------------------------------------------------------------------------------------- maths
def test_masses_and_pools_of_equal_bands() -> None:
    assert masses(LEVELS) == pytest.approx([0.15, *[0.1] * 7, 0.15])
    one_LH = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))[:, None]
    same_LH = pooled(one_LH.expand(9, 9, 1), LEVELS)
    assert same_LH[1:-1, 0] == pytest.approx(one_LH[1:-1, 0], abs=0.06)
    assert pooled(one_LH[None] + 10 * one_LH[:, None], LEVELS)[4, 0] == pytest.approx(0.0, abs=1e-6)


def test_quantile_function_has_its_levels_and_no_atoms() -> None:
    levels, band_LH = (0.1, 0.5, 0.9), torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64)
    u_SH = torch.tensor([[0.1], [0.3], [0.5], [0.9], [0.95], [0.01], [0.99]], dtype=torch.float64)
    x = quantile_at(band_LH, levels, u_SH)[:, 0].tolist()
    assert x[:4] == pytest.approx([-1.0, -0.5, 0.0, 2.0])
    assert x[4] == pytest.approx(2.0 + 5.0 * 0.1 * 0.6931472)  # density goes on at 0.2 and halves every 0.35
    assert x[5] < -1.2
    assert x[6] > x[4]
    assert torch.isfinite(quantile_at(band_LH, levels, torch.tensor([[0.0], [1.0]], dtype=torch.float64))).all()
