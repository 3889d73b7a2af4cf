"""The net that tells noise in windows of series, its sessions, and its files: tiny random weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.chance import Ask, Seeded
from backend.entries import ASSETS
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.series_diffusion import (
    SEASON,
    DiffusionConfig,
    LinearBetas,
    SeriesDiffusion,
    beside,
    read_series_diffusion,
    save_series_diffusion,
)
from backend.models.series_diffusion import NoiseTelling, SeriesDiffusionModel, load_series_diffusion
from backend.protocols import SeriesDiffusionSession
from backend.registry import find
from backend.train.forecast import diffusion_measure
from backend.train.forecast.held_out import Case
from backend.types import Sampling

TINY = DiffusionConfig(window=32, channels=8, embedding=8, gaps=(1, SEASON, 4))
Y = [math.sin(i / 2) + 0.1 * (i % 3) for i in range(40)]


def tiny() -> SeriesDiffusion:
    torch.manual_seed(0)
    net = SeriesDiffusion(TINY)
    for block in net.blocks:
        torch.nn.init.normal_(block.out.weight, std=0.5)
    return net.requires_grad_(False)


def opened(meter: Meter | None = None) -> NoiseTelling:
    model = SeriesDiffusionModel("house/tiny", tiny())
    prompt = model.codec.encode({"y": Y, "season": 6})
    return model.open(SeriesDiffusionSession, prompt, Sampling(temperature=1.0), meter or Meter(), 8)


def told(net: SeriesDiffusion, x_BL: Tensor, t: float, seasons: list[int]) -> Tensor:
    alpha, sigma = net.schedule.alpha(t), net.schedule.sigma(t)
    return net(x_BL, torch.full((len(x_BL),), alpha), torch.full((len(x_BL),), sigma), seasons)


def test_linear_betas() -> None:
    schedule = LinearBetas(DiffusionConfig())
    product = 1.0
    for i in range(100):
        product *= 1 - (1e-4 + (0.1 - 1e-4) * i / 99)
    assert schedule.alpha(1.0) == pytest.approx(product**0.5)
    assert schedule.alpha(0.0) == 1.0
    assert schedule.sigma(0.0) == 0.0
    assert schedule.sigma(0.01) == pytest.approx(1e-2)
    for t in (0.004, 0.2, 0.77, 1.0):
        assert schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2 == pytest.approx(1.0)
    assert schedule.alpha(0.2) > schedule.alpha(0.205) > schedule.alpha(0.21)


def test_windows_of_several_seasons_are_told_as_one_by_one() -> None:
    net, x_BL = tiny(), torch.randn(4, 20)
    seasons = [6, 6, 13, 40]  # one longer than the window counts as none
    together_BL = told(net, x_BL, 0.3, seasons)
    for i, season in enumerate(seasons):
        assert torch.allclose(told(net, x_BL[i : i + 1], 0.3, [season]), together_BL[i : i + 1], atol=1e-5)
    assert not torch.allclose(told(net, x_BL[:1], 0.3, [6]), told(net, x_BL[:1], 0.3, [5]), atol=1e-5)
    assert torch.equal(told(net, x_BL[3:], 0.3, [40]), told(net, x_BL[3:], 0.3, [1]))


def test_beside_reads_a_season_back_and_ahead() -> None:
    x_CL = torch.arange(1.0, 6.0)[None]
    assert beside(x_CL, 2)[0].tolist() == [[0, 0, 1, 2, 3], [1, 2, 3, 4, 5], [3, 4, 5, 0, 0]]


def test_nearly_all_noise_is_told_as_such() -> None:
    """At t = 1 a window says next to nothing, so the noise is the input, whatever the weights."""
    x_BL = torch.randn(2, 32)
    assert torch.allclose(told(tiny(), x_BL, 1.0, [1]), x_BL, atol=0.15)


def test_session_is_the_net_and_pulls_back_as_differences_do() -> None:
    meter = Meter()
    session = opened(meter)
    assert isinstance(session, SeriesDiffusionSession)
    assert (session.shape, session.season, session.noise_levels) == ((32,), 6, 100)
    x_SL = torch.randn(3, 18, dtype=torch.float64)
    noise_SL = session.predict(x_SL, 0.5)
    assert (meter.calls, meter.rows, noise_SL.dtype) == (1, 3, torch.float64)
    weight_SL = torch.randn(3, 18, dtype=torch.float64)
    same_SL, pulled_SL = session.guided(x_SL, 0.5, lambda noise: weight_SL * noise)
    assert (meter.calls, meter.rows) == (3, 9), "forward and back"
    assert torch.allclose(same_SL, noise_SL, atol=1e-6)
    for place in ((0, 0), (2, 17)):
        step_SL = torch.zeros_like(x_SL)
        step_SL[place] = 1e-2
        change_SL = (session.predict(x_SL + step_SL, 0.5) - session.predict(x_SL - step_SL, 0.5)) / 2e-2
        assert float((weight_SL * noise_SL * change_SL).sum()) == pytest.approx(float(pulled_SL[place]), abs=5e-3)


def test_sessions_never_train_and_never_interact() -> None:
    first, second = opened(), opened()
    x_SL = torch.randn(2, 32, dtype=torch.float64)
    before_SL = second.predict(x_SL, 0.2)
    first.guided(torch.randn(5, 12, dtype=torch.float64), 0.9, lambda noise: noise)
    assert torch.equal(second.predict(x_SL, 0.2), before_SL)
    with torch.no_grad():
        first.guided(x_SL, 0.2, lambda noise: noise)


def test_noise_that_is_no_number_is_said() -> None:
    session = opened()
    with pytest.raises(UserError, match="returned numbers that are no noise"):
        session.predict(torch.full((1, 16), torch.inf, dtype=torch.float64), 0.5)


@pytest.mark.parametrize("strategy", ["self_guided", "in_painting", "refine"])
def test_the_trained_model_goes_on_with_a_wave_in_its_phase(strategy: str) -> None:
    """House weights, default knobs: the middle of a few paths rises and falls with the wave that was cut off."""
    at_T = np.arange(192 + 48)
    wave_T = 20 + 3 * np.sin(2 * np.pi * at_T / 24 + 1.0)
    model = load_series_diffusion("house/series-diffusion", ASSETS / "house" / "series-diffusion.safetensors")
    prompt = model.codec.encode({"y": wave_T[:192].tolist(), "season": 24})
    session = model.open(SeriesDiffusionSession, prompt, Sampling(temperature=1.0), Meter(), 48)
    found = find(strategy)
    held: dict[int, float] = {}
    for step in found.run(session, Ask(48, Seeded(0)), **found.settle({"paths": 9})):
        held.update((m.slot + i, x) for m in step.marks if m.fate.commits for i, x in enumerate(m.values))
    z_SH = np.array([held[i] for i in range(9 * 48)]).reshape(9, 48)
    median_H = np.median(prompt.extras["scale"].decode(z_SH), axis=0)
    assert np.corrcoef(median_H, wave_T[192:])[0, 1] > 0.9
    assert np.abs(median_H - wave_T[192:]).mean() < 0.5 * np.abs(wave_T - 20).mean(), "and as far"


def test_a_card_tells_what_the_ways_of_sampling_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y_T = 5 + np.sin(2 * np.pi * np.arange(46) / 6) + 0.01 * np.arange(46)
    held = {name: [Case(name, y_T[:40], y_T[40:], 6, name)] * count for name, count in (("a", 3), ("b", 1))}
    held["none"] = [Case("flat", np.ones(40), np.ones(6), 6, "none")]
    monkeypatch.setattr(diffusion_measure, "groups", lambda data: held)
    monkeypatch.setattr(diffusion_measure, "PATHS", 8)
    card, file = tmp_path / "it.json", tmp_path / "bench" / "it.json"
    save_series_diffusion(card.with_suffix(".safetensors"), tiny())
    card.write_text('{"id": "house/it"}')
    diffusion_measure.measure(card, tmp_path, 2, ("seasonal naive", "refine", "self_guided, skip 20"), file)
    told = json.loads(card.read_text())["held_out"]
    assert set(told) == {"about", "a", "b", "all"}
    assert {way: row["series"] for way, row in told["all"].items()} == {"refine": 3, "seasonal naive": 3}
    assert told["b"]["seasonal naive"]["mase"] < 3
    rows = json.loads(file.read_text())["rows"]["all"]
    assert rows["self_guided, skip 20"]["calls"] == 2 * 5
    assert rows["seasonal naive"]["calls"] == 0
    assert "| self_guided, skip 20 | 10 |" in diffusion_measure.table(file)
    with pytest.raises(UserError, match="make it with"):
        diffusion_measure.table(tmp_path / "other.json")


def test_files(tmp_path: Path) -> None:
    path, net = tmp_path / "tiny.safetensors", tiny()
    save_series_diffusion(path, net)
    again = read_series_diffusion(path)
    assert again.config == net.config
    x_BL = torch.randn(2, 32)
    assert torch.allclose(told(again, x_BL, 0.4, [6]), told(net, x_BL, 0.4, [6]), atol=0.05)
    assert load_series_diffusion("house/tiny", path).num_params == net.num_params
    with pytest.raises(UserError, match="There is no house model at"):
        read_series_diffusion(tmp_path / "none.safetensors")
