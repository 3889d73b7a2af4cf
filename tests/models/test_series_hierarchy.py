"""The hierarchy of stages: what one says the next one does not see, nothing looks ahead, windows are scaled anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.meter import Meter
from backend.models.house.hierarchy import Hierarchy, HierarchyConfig, read_hierarchy, save_hierarchy
from backend.models.series_hierarchy import HierarchyModel, window_of
from backend.protocols import SegmentSession
from backend.run import record
from backend.train.forecast import hierarchy
from backend.types import Request, Sampling
from tests.toys import ToyCatalog

SMALL = HierarchyConfig(8, 3, 8, 1, 2, 12)


def net() -> Hierarchy:
    torch.manual_seed(1)
    return Hierarchy(SMALL).requires_grad_(False)


def test_each_stage_reads_what_is_left() -> None:
    model = net()
    y_BT, known_BT = torch.randn(2, 24), torch.ones(2, 24)
    parts_BKNP = model(y_BT, known_BT)
    assert parts_BKNP.shape == (2, 4, 3, 8)
    rest_BT = y_BT.clone()
    for k, stage in enumerate(model.stages):
        added_BNP = stage(rest_BT, known_BT)
        assert torch.allclose(added_BNP, parts_BKNP[:, k], atol=1e-6)
        rest_BT[:, 8:] -= added_BNP[:, :-1].flatten(1)


def test_nothing_looks_ahead() -> None:
    model = net()
    y_BT = torch.randn(1, 24)
    other_BT = y_BT.clone()
    other_BT[:, 16:] += 5.0
    before, after = model(y_BT, torch.ones(1, 24)), model(other_BT, torch.ones(1, 24))
    assert torch.allclose(before[:, :, :2], after[:, :, :2], atol=1e-6)
    assert not torch.allclose(before[:, :, 2], after[:, :, 2], atol=1e-3)


def test_windows_slide_over_what_is_written_and_are_scaled_anew() -> None:
    """The series on another level and in another size moves the curve along; short series and gaps are no trouble."""
    model = HierarchyModel("house/series-hierarchy", net())
    y = [float((i * i) % 11) for i in range(20)]
    curves = []
    for series in (y, [50 + 10 * x for x in y]):
        prompt = {"y": [None if i == 4 else x for i, x in enumerate(series)]}
        trace = record(Request("any_horizon", prompt, {}, {}, budget=20), ToyCatalog([model]))
        assert len(trace.steps) == 3
        held = trace.values()
        scale = model.codec.encode(prompt).extras["scale"]
        curves.append([scale.decode(held[slot]) for slot in range(20)])
    assert curves[1] == pytest.approx([50 + 10 * x for x in curves[0]], rel=1e-3)
    session = model.open(SegmentSession, model.codec.encode({"y": y}), Sampling(), Meter(), 8)
    first_KP = session.follow(torch.empty(0))
    assert first_KP.shape == (4, 8)
    assert torch.equal(session.follow(torch.empty(0)), first_KP)
    assert not torch.allclose(session.follow(torch.full((8,), 9.0)), first_KP)


def test_window_of_a_short_series() -> None:
    series_CT = torch.tensor([[float("nan"), 2.0, float("nan"), 3.0]], dtype=torch.float64)
    y_T, known_T = window_of(series_CT, torch.tensor([7.0]), 7)
    assert y_T.tolist() == [2.0, 2.0, 2.0, 2.0, 2.0, 3.0, 7.0]
    assert known_T.tolist() == [0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0]
    assert window_of(series_CT, torch.tensor([7.0, 8.0]), 3)[0].tolist() == [3.0, 7.0, 8.0]


def test_files_and_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = net()
    save_hierarchy(tmp_path / "m.safetensors", model)
    again = read_hierarchy(tmp_path / "m.safetensors")
    assert again.config == SMALL
    y_BT = torch.randn(1, 24)
    told, exact = (of(y_BT, torch.ones(1, 24)) for of in (again, model))
    assert float((told - exact).norm() / exact.norm()) < 0.03, "8 bits a weight"
    options = ["--tiny", "--data", str(tmp_path), "--out", str(tmp_path)]
    hierarchy.main([*options, "--steps", "2"])
    hierarchy.main([*options, "--steps", "3"])
    assert "step 3/3" in capsys.readouterr().out
