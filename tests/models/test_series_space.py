"""The state space model: layers are the recursions that they stand for, and its sessions read and run on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from backend.meter import Meter
from backend.models.house.state_space import SpaceConfig, StateSpace, bounded, convolved, read_space, save_space
from backend.models.series_space import SpaceModel
from backend.protocols import LoopSession
from backend.train.forecast import points, space
from backend.types import Sampling

SMALL = SpaceConfig(20, 3, 5, 1)


def net(config: SpaceConfig = SMALL) -> StateSpace:
    torch.manual_seed(1)
    return StateSpace(config).double().requires_grad_(False)


def test_convolution_is_causal_and_by_definition() -> None:
    u_BCL, kernel_CT = torch.randn(2, 3, 11).double(), torch.randn(3, 4).double()
    out_BCL = convolved(u_BCL, kernel_CT)
    for n in range(11):
        wanted_BC = sum(kernel_CT[:, i] * u_BCL[..., n - i] for i in range(4) if n >= i)
        assert torch.allclose(out_BCL[..., n], wanted_BC)


def test_state_taught_and_unrolled_are_the_recursion() -> None:
    """x' = A x + b z over the past, then z = K x: what FFT and powers give is what the loop gives."""
    model = net()
    z_BCL = torch.randn(2, 3, 20).double()
    matrix_CDD, b_CD, k_CD = model.loop.matrix(), model.loop.b_CD, bounded(model.gain_CD)
    x_BCD = torch.zeros(2, 3, 5).double()
    seen_BL, next_BCL = model.taught(z_BCL)
    for n in range(20):
        x_BCD = (matrix_CDD @ x_BCD[..., None])[..., 0] + b_CD * z_BCL[..., n, None]
        assert torch.allclose(seen_BL[:, n], model.read(x_BCD))
        assert torch.allclose(next_BCL[..., n], (k_CD * x_BCD).sum(-1))
    assert torch.allclose(model.state(z_BCL), x_BCD)
    unrolled_BH = model.unrolled(x_BCD, 9)
    for h in range(9):
        assert torch.allclose(unrolled_BH[:, h], model.read(x_BCD))
        x_BCD = (matrix_CDD @ x_BCD[..., None])[..., 0] + b_CD * (k_CD * x_BCD).sum(-1, keepdim=True)


def test_a_companion_matrix_shifts_and_stays_inside_the_unit_circle() -> None:
    matrix_CDD = net().loop.matrix()
    assert torch.equal(matrix_CDD[:, 1:, :-1], torch.eye(4).double().expand(3, -1, -1))
    assert torch.equal(matrix_CDD[:, 0, :-1], torch.zeros(3, 4).double())
    assert float(torch.linalg.eigvals(matrix_CDD).abs().max()) <= 1 + 1e-9


def test_a_known_autoregression_is_fitted() -> None:
    """The gain alone, from the loss of next inputs, on an AR(3) without noise; then the closed loop is that AR(3)."""
    weights = (0.5, -0.2, 0.25)
    values = [1.0, -2.0, 0.5]
    for _ in range(40):
        values.append(sum(w * values[-1 - i] for i, w in enumerate(weights)))
    model = net(SpaceConfig(30, 1, 3, 0))
    model.embed.weight.copy_(torch.tensor([[1.0, 0.0]]))
    model.embed.bias.zero_()
    model.loop.a_CD.zero_()
    model.loop.b_CD.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
    y_BL = torch.tensor([values[:30]]).double()
    z_BCL = model.inputs(y_BL, torch.ones_like(y_BL))
    model.gain_CD.requires_grad_(True)
    search = torch.optim.LBFGS([model.gain_CD], max_iter=60, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def loss() -> torch.Tensor:
        search.zero_grad()
        away = (model.taught(z_BCL)[1][..., 2:-1] - z_BCL[..., 3:]).square().mean()
        away.backward()
        return away

    search.step(loss)
    model.requires_grad_(False)
    assert model.gain_CD[0].tolist() == pytest.approx(weights, abs=1e-4)
    model.loop.c_CD.copy_(model.gain_CD)
    model.out.weight.fill_(1.0)
    model.out.bias.zero_()
    found_H = model.unrolled(model.state(z_BCL), 13)[0]
    assert found_H.tolist() == pytest.approx(values[30:43], abs=1e-4)


def test_sessions_read_short_series_and_gaps() -> None:
    model = SpaceModel("house/series-space", net())
    for y in ([1.0, 2.0, None, 4.0, 3.0, 5.0, None, 2.0, 1.0, 7.0], [float(i % 7) for i in range(60)]):
        prompt = model.codec.encode({"y": y})
        meter = Meter()
        session = model.open(LoopSession, prompt, Sampling(), meter, 9)
        state_D = session.listen()
        assert torch.isfinite(session.read(session.advance(state_D[None], 4))).all()
        assert meter.calls == 2
        assert torch.equal(session.listen(), state_D)
    with pytest.raises(AssertionError, match="no power of 2"):
        session.advance(state_D[None], 3)


def test_level_and_size_of_a_series_move_the_forecast_along() -> None:
    model = SpaceModel("house/series-space", net())
    y = [float((i * i) % 11) for i in range(30)]
    curves = []
    for series in (y, [1000 + 10 * x for x in y]):
        prompt = model.codec.encode({"y": series})
        session = model.open(LoopSession, prompt, Sampling(), Meter(), 9)
        curves.append(prompt.extras["scale"].decode(session.read(session.listen()[None]).numpy()))
    assert curves[1] == pytest.approx(1000 + 10 * curves[0], rel=1e-6)


def test_files_and_poles(tmp_path: Path) -> None:
    model = net()
    save_space(tmp_path / "m.safetensors", model.float())
    again = read_space(tmp_path / "m.safetensors")
    assert again.config == SMALL
    assert torch.equal(again.gain_CD, model.gain_CD.double())
    poles_Z = SpaceModel("m", again).poles_Z
    assert len(poles_Z) == 3 * 5
    assert (poles_Z.abs().diff() <= 1e-12).all()


def test_training_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tiny", "--data", str(tmp_path), "--out", str(tmp_path)]
    space.main([*options, "--steps", "2"])
    space.main([*options, "--steps", "4"])
    assert "step 4/4" in capsys.readouterr().out
    assert (tmp_path / "series-space.safetensors").exists()


def test_batches_are_in_units_of_their_past() -> None:
    recipe = space.TINY
    y_BT = points.draw(points.walks(64), recipe, (1, 2))
    assert y_BT.shape == (recipe.batch, recipe.past + recipe.future)
    location_B = y_BT[:, : recipe.past].nanmedian(1).values
    assert torch.allclose(location_B, torch.zeros(recipe.batch), atol=1e-5)
    assert torch.allclose(y_BT[:, : recipe.past].abs().nanmean(1), torch.ones(recipe.batch), atol=1e-4)
    assert torch.equal(points.draw(points.walks(64), recipe, (1, 2)).nan_to_num(), y_BT.nan_to_num())


def test_error_is_squared_up_to_one_and_linear_beyond() -> None:
    found = torch.tensor([0.0, 0.0, 0.0])
    assert float(points.huber(found, torch.tensor([0.5, 3.0, torch.nan]))) == pytest.approx((0.25 + 5.0) / 2)


def test_measuring_against_seasonal_naive() -> None:
    """A series that repeats itself: seasonal naive is right, and a forecast of zeros is off by its mean size."""

    class Case:
        past_T = np.tile([1.0, 2.0, 3.0, 6.0], 6) + 0.1 * np.arange(24) % 0.2
        truth_H = np.resize(past_T[-4:], 6)
        season = 4

    told = points.measured({"one": [Case()]}, lambda case: [0.0] * 6)["one"]
    assert told["cases"] == 1
    assert told["mase_seasonal_naive"] == 0.0
    gap = float(np.abs(Case.past_T[4:] - Case.past_T[:-4]).mean())
    assert told["mase"] == pytest.approx(float(Case.truth_H.mean()) / gap, rel=1e-3)
