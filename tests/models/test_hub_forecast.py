"""Published forecasters: tiny random ones in their packages' format, loaded by us, against the packages' answers."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend import entries
from backend.catalog import Catalog
from backend.errors import UserError
from backend.meter import Meter
from backend.models.hub import loading
from backend.models.hub.forecast import OutsideModel, OutsideSession, bridged, is_forecaster, load_forecaster_folder
from backend.offers import series_models
from backend.protocols import BandSession, Prompt
from backend.registry import find
from backend.run import record
from backend.series.forecasts import Forecast, forecast_of
from backend.types import Request, Sampling
from demos.parts import forecast_form

TINY_ID = "hub/test/tiny"
LEVELS = [round(0.1 * i, 1) for i in range(1, 10)]
CLOSE = 1e-5


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained networks of every family, each saved as its package saves it."""
    torch.manual_seed(3)
    made = {"bolt": _bolt, "two": _two, "timesfm": _timesfm}
    out = {}
    for name, make in made.items():
        out[name] = tmp_path_factory.mktemp(name)
        model = make()
        for weight in model.parameters():  # heads begin near 0, where mistakes would not show
            if weight.dim() == 2:
                torch.nn.init.normal_(weight, std=0.3)
        model.save_pretrained(out[name], safe_serialization=True)
    return out


def _bolt() -> Any:
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    options = {
        "context_length": 64,
        "prediction_length": 12,
        "input_patch_size": 8,
        "input_patch_stride": 8,
        "quantiles": LEVELS,
        "use_reg_token": True,
    }
    config = T5Config(
        d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, chronos_config=options, decoder_start_token_id=0
    )
    config.architectures = ["ChronosBoltModelForForecasting"]
    config.chronos_pipeline_class = "ChronosBoltPipeline"
    return ChronosBoltModelForForecasting(config)


def _two() -> Any:
    from chronos.chronos2 import Chronos2Model
    from chronos.chronos2.config import Chronos2CoreConfig

    options = {
        "context_length": 64,
        "output_patch_size": 8,
        "input_patch_size": 8,
        "input_patch_stride": 8,
        "quantiles": [0.01, *LEVELS, 0.99],
        "use_reg_token": True,
        "use_arcsinh": True,
        "max_output_patches": 6,
    }
    config = Chronos2CoreConfig(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, chronos_config=options)
    config.architectures = ["Chronos2Model"]
    config.chronos_pipeline_class = "Chronos2Pipeline"
    return Chronos2Model(config)


def _timesfm() -> Any:
    from transformers import TimesFm2_5Config, TimesFm2_5ModelForPrediction

    config = TimesFm2_5Config(
        patch_length=8,
        context_length=64,
        horizon_length=12,
        num_hidden_layers=2,
        hidden_size=16,
        intermediate_size=24,
        head_dim=8,
        num_attention_heads=2,
        num_key_value_heads=2,
        output_quantile_len=16,
        max_position_embeddings=64,
    )
    return TimesFm2_5ModelForPrediction(config)


def values(length: int, seed: int = 0) -> list[float | None]:
    noise_T = np.random.default_rng(seed).normal(size=length)
    at_T = np.arange(length)
    return (40 + 6 * np.sin(2 * math.pi * at_T / 12) + 0.1 * at_T + noise_T).tolist()


def opened(model: OutsideModel, y: list[float | None]) -> tuple[OutsideSession, Any]:
    prompt = model.codec.encode({"y": y, "season": 12})
    return model.open(BandSession, prompt, Sampling(temperature=1.0), Meter(), 1), prompt.extras["scale"]


def answer(model: OutsideModel, y: list[float | None], size: int) -> Tensor:
    """What a session says, in the units of the series: [Q, size]."""
    session, scale = opened(model, y)
    return torch.from_numpy(scale.decode(session.predict(size)[0].numpy()))


def numbers(y: list[float | None]) -> Tensor:
    return torch.tensor([math.nan if x is None else x for x in y], dtype=torch.float32)


def by_package(name: str, folder: Path, y: list[float | None], size: int) -> Tensor:
    """The package's own forecast, [Q, size]."""
    if name == "timesfm":
        from transformers import TimesFm2_5ModelForPrediction

        model = TimesFm2_5ModelForPrediction.from_pretrained(folder).eval()
        with torch.no_grad():
            return model(past_values=[numbers(y)], truncate_negative=False).full_predictions[0, :size, 1:].T
    from chronos import BaseChronosPipeline, Chronos2Pipeline

    if name == "two":
        return Chronos2Pipeline.from_pretrained(folder).predict([numbers(y)], prediction_length=size)[0][0]
    return BaseChronosPipeline.from_pretrained(folder).predict([numbers(y)], prediction_length=size)[0]


def far(found: Tensor, want: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((found - want).abs().max() / want.abs().max())


# --------------------------------------------------------------------------------------------- against their packages
@pytest.mark.parametrize("length", [20, 64, 90])
@pytest.mark.parametrize(("name", "size"), [("bolt", 12), ("two", 8), ("two", 32), ("two", 48), ("timesfm", 12)])
def test_one_call_is_what_the_package_predicts(name: str, size: int, length: int, folders: dict[str, Path]) -> None:
    """For contexts that are shorter than, as long as, and longer than what the network reads."""
    model = load_forecaster_folder(TINY_ID, folders[name])
    y = values(length)
    assert far(answer(model, y, size), by_package(name, folders[name], y, size)) < CLOSE


def test_forecasts_of_positive_series_are_not_cut_at_zero(folders: dict[str, Path]) -> None:
    """The only difference to what transformers answers for TimesFM by itself."""
    from transformers import TimesFm2_5ModelForPrediction

    y = values(64)
    found = answer(load_forecaster_folder(TINY_ID, folders["timesfm"]), y, 12)
    theirs = TimesFm2_5ModelForPrediction.from_pretrained(folders["timesfm"]).eval()
    with torch.no_grad():
        want = theirs(past_values=[numbers(y)]).full_predictions[0, :, 1:].T
    assert float(found.min()) < 0
    assert far(found.clamp_min(0), want) < CLOSE


@pytest.mark.parametrize(("name", "size"), [("bolt", 12), ("two", 16)])
def test_gaps_are_masked_as_the_package_masks_them(name: str, size: int, folders: dict[str, Path]) -> None:
    model, y = load_forecaster_folder(TINY_ID, folders[name]), values(50)
    y[0] = y[17] = y[18] = y[49] = None
    found = answer(model, y, size)
    assert far(found, by_package(name, folders[name], y, size)) < CLOSE
    assert far(found, answer(model, values(50), size)) > 10 * CLOSE


def test_gaps_are_bridged_for_timesfm(folders: dict[str, Path]) -> None:
    model, y = load_forecaster_folder(TINY_ID, folders["timesfm"]), values(50)
    y[0], y[20], y[49] = None, None, None
    straight = y[1:]
    straight[19], straight[48] = (y[19] + y[21]) / 2, y[48]  # type: ignore[operator]
    assert far(answer(model, y, 12), by_package("timesfm", folders["timesfm"], straight, 12)) < CLOSE
    rows = torch.tensor([[math.nan, 1.0, math.nan, 3.0, math.nan], [0.0, 0.0, 1.0, math.nan, 5.0]])
    assert bridged(rows.double()).tolist() == [[1, 2, 3, 3], [0, 1, 3, 5]]


def test_a_future_is_read_like_the_past_by_rows_that_do_not_see_each_other(folders: dict[str, Path]) -> None:
    for name, path in folders.items():
        model = load_forecaster_folder(TINY_ID, path)
        session, scale = opened(model, values(40))
        ahead_RH = np.stack([np.array(values(8, seed), dtype=float) for seed in (1, 2)])
        found = session.predict(model.net.sizes[0], torch.from_numpy(scale.encode(ahead_RH)))
        for row, ahead_H in enumerate(ahead_RH):
            want = by_package(name, path, [*values(40), *ahead_H.tolist()], model.net.sizes[0])
            assert far(torch.from_numpy(scale.decode(found[row].numpy())), want) < CLOSE


def test_units_are_those_of_the_context_however_far_a_forecast_goes(folders: dict[str, Path]) -> None:
    """The same futures in other units of the same shape give the same answer: nothing is rescaled on the way."""
    model = load_forecaster_folder(TINY_ID, folders["bolt"])
    y = values(40)
    y_more = [None if x is None else 1000 + 250 * x for x in y]
    (session, scale), (larger, other) = opened(model, y), opened(model, y_more)
    ahead_1H = torch.tensor([values(12, 5)], dtype=torch.float64)
    found = scale.decode(session.predict(12, torch.from_numpy(scale.encode(ahead_1H.numpy()))).numpy())
    again = other.decode(larger.predict(12, torch.from_numpy(other.encode(1000 + 250 * ahead_1H.numpy()))).numpy())
    assert far(torch.from_numpy((again - 1000) / 250), torch.from_numpy(found)) < CLOSE
    assert torch.equal(session.series_CT, opened(model, y)[0].series_CT)


# ---------------------------------------------------------------------------------------------------- under strategies
def forecast(model: OutsideModel, strategy: str, horizon: int, **knobs: object) -> tuple[Forecast, Any]:
    catalog = Catalog("cpu")
    catalog._loaded[model.id] = model
    prompt = {"y": values(60), "season": 12}
    trace = record(
        Request(strategy, prompt, {"target": model.id}, knobs, Sampling(temperature=1.0), horizon, 0), catalog
    )
    return forecast_of(trace, model.codec.encode(prompt).extras["scale"]), trace


@pytest.mark.parametrize("name", ["bolt", "two", "timesfm"])
def test_strategies_of_bands_run_unchanged_and_calls_are_true(name: str, folders: dict[str, Path]) -> None:
    model = load_forecaster_folder(TINY_ID, folders[name])
    net: Any = {}
    forwards = _counted(model, net)
    most = model.net.sizes[-1]
    for strategy, horizon, knobs in (
        ("direct", most, {}),
        ("rolled_direct", 2 * most + 3, {"feedback": "fan_out"}),
        ("rolled_direct", 2 * most, {"feedback": "median"}),
        ("rolled_direct", most + 1, {"feedback": "sampled", "paths": 5}),
        ("multi_resolution", most + 5, {"rule": "overshoot"}),
    ):
        before = len(forwards)
        made, trace = forecast(model, strategy, horizon, **knobs)
        assert made.values_SH.shape[1] == horizon
        assert np.isfinite(made.values_SH).all()
        assert trace.summary().num_target_calls == len(forwards) - before
    assert forwards


def _counted(model: OutsideModel, net: Any) -> list[int]:
    """A list that grows by one with every forward of the network."""
    inner = model.net.ask.__closure__
    assert inner is not None
    module = next(cell.cell_contents for cell in inner if isinstance(cell.cell_contents, torch.nn.Module))
    seen: list[int] = []
    trunk = module.encoder if hasattr(module, "encoder") else module.model
    trunk.register_forward_pre_hook(lambda *_: seen.append(1))
    return seen


def test_rolling_the_median_is_the_package_with_only_the_median_fed_back(folders: dict[str, Path]) -> None:
    path = folders["bolt"]
    made, _ = forecast(load_forecaster_folder(TINY_ID, path), "rolled_direct", 24, feedback="median")
    first = by_package("bolt", path, values(60), 12).sort(0).values
    second = by_package("bolt", path, [*values(60), *first[4].tolist()], 12).sort(0).values
    assert far(torch.from_numpy(made.values_SH), torch.cat((first, second), 1)) < 10 * CLOSE  # marks are rounded


# ------------------------------------------------------------------------------------------------------------- fracast
def _fracast() -> OutsideModel:
    pytest.importorskip("fracast", reason="fracast is not installed")
    model = Catalog("cpu").get(entries.FRACAST)
    assert isinstance(model, OutsideModel)
    return model


def test_fracast_is_what_its_package_forecasts() -> None:
    from fracast import FracastModel

    model = _fracast()
    assert model.num_params == entries.OUTSIDE[entries.FRACAST][3]
    assert (model.net.levels, model.net.sizes) == (tuple(LEVELS), (48,))
    y = values(60)
    y[7] = y[30] = None
    theirs = FracastModel.from_pretrained(weights="fp32")
    want = torch.from_numpy(theirs.forecast(numbers(y).numpy())).T
    assert far(answer(model, y, 48), want) < CLOSE
    made, trace = forecast(model, "rolled_direct", 96, feedback="median")
    rolled = torch.from_numpy(np.sort(theirs.forecast(numbers(values(60)).numpy(), horizon=96).T, 0))
    assert far(torch.from_numpy(made.values_SH), rolled) < 10 * CLOSE
    assert trace.summary().num_target_calls == 2
    assert trace.summary().rows["target"] == 2 * 2048


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in ("chronos", "fracast") else real(name, *rest)
    )
    fetched: list[str] = []
    monkeypatch.setattr(loading, "fetch", lambda model_id, progress: fetched.append(model_id))
    for model_id, command in (
        (entries.FRACAST, r"pip install --no-deps fracast==0\.1\.0"),
        ("hub/amazon/chronos-2", "pip install chronos-forecasting"),
    ):
        with pytest.raises(UserError, match=f"not installed: run `{command}`"):
            Catalog("cpu").get(model_id)
    assert not fetched
    with pytest.raises(UserError, match="pip install chronos-forecasting"):
        load_forecaster_folder(TINY_ID, folders["bolt"])
    here = {entry.id: entry for entry in entries.entries()}
    assert not here[entries.FRACAST].available
    assert here["hub/amazon/chronos-2"].why == "pip install chronos-forecasting"


# ---------------------------------------------------------------------------------------------------- what is offered
def test_the_catalog_tells_forecasters_from_language_models(
    monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path], tmp_path: Path
) -> None:
    assert all(is_forecaster(path) for path in folders.values())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert not is_forecaster(tmp_path)
    monkeypatch.setattr(loading, "fetch", lambda model_id, progress: folders[model_id.rpartition("/")[2]])
    catalog = Catalog("cpu")
    for name in folders:
        model = catalog.get(f"hub/test/{name}")
        assert model.speaks == {BandSession}
        assert model.num_params == sum(p.numel() for p in _network(name).parameters())
    with pytest.raises(UserError, match="no draft model for hub/amazon/chronos-2"):
        catalog.default("draft", "hub/amazon/chronos-2")


def _network(name: str) -> Any:
    return {"bolt": _bolt, "two": _two, "timesfm": _timesfm}[name]()


def test_other_kinds_and_broken_folders_are_one_sentence(tmp_path: Path) -> None:
    told = {"chronos_config": {}, "architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="only Chronos-Bolt and Chronos-2 are read here"):
        load_forecaster_folder(TINY_ID, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "timesfm2_5"}))
    with pytest.raises(UserError, match="cannot be loaded as a forecaster"):
        load_forecaster_folder(TINY_ID, tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert not is_forecaster(tmp_path)


def test_outside_forecasters_are_offered_behind_ours_and_named_when_away(monkeypatch: pytest.MonkeyPatch) -> None:
    for strategy in ("direct", "rolled_direct", "multi_resolution"):
        offered = series_models(find(strategy))
        assert offered[0] == "house/forecaster"
        assert offered[-len(entries.OUTSIDE) :] == list(entries.OUTSIDE)
    assert not set(entries.OUTSIDE) & set(series_models(find("recursive")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    here = {entry.id: entry for entry in entries.entries()}
    assert not here["hub/google/timesfm-2.5-200m-transformers"].available
    with pytest.raises(UserError, match="not in this machine's hub cache"):
        Catalog("cpu").get("hub/google/timesfm-2.5-200m-transformers")


def test_the_chosen_forecaster_serves_the_strategies_that_it_can() -> None:
    catalog = Catalog("cpu")
    listed = [entry.id for entry in forecast_form.models_of_menu(catalog)]
    assert listed[0] == "house/forecaster"
    assert listed[-len(entries.OUTSIDE) :] == list(entries.OUTSIDE)
    for model_id in (entries.FRACAST, "hub/amazon/chronos-2", "hub/someone/something"):
        assert forecast_form.target_for("rolled_direct", {"model": model_id}, catalog) == model_id
        assert forecast_form.target_for("recursive", {"model": model_id}, catalog) == "house/forecaster"


def test_numbers_that_are_none_are_refused(folders: dict[str, Path]) -> None:
    model = load_forecaster_folder(TINY_ID, folders["bolt"])
    session = model.open(BandSession, Prompt(extras={"context": (math.nan,) * 9, "season": 1}), Sampling(), Meter(), 1)
    broken = OutsideModel("test", type(model.net)(**{**vars(model.net), "ask": lambda rows, size: rows[:, None] * 1.0}))
    session._model = broken
    with pytest.raises(UserError, match="no forecast"):
        session.predict(12)
