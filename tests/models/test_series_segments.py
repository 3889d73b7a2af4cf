"""Segments through a frozen text model: the trunk stays as it is, examples have a scale of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from backend.meter import Meter
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.house.segments import Segments, SegmentsConfig, read_segments, save_segments
from backend.models.series_segments import SegmentsModel, asked_in_its_scale
from backend.protocols import ExampleSession
from backend.run import record
from backend.train.forecast import segments
from backend.types import Request, Sampling
from tests.toys import ToyCatalog

SMALL = SegmentsConfig(4, 3, 2)


def trunk() -> Llama:
    torch.manual_seed(2)
    return Llama(LlamaConfig(16, 16, 1, 2, 2, 8, 24, 64)).requires_grad_(False)


def net() -> Segments:
    words = trunk()
    torch.manual_seed(1)
    return Segments(SMALL, words).requires_grad_(False)


def test_only_the_maps_are_weights_and_the_trunk_stays(tmp_path: Path) -> None:
    words = trunk()
    before = {name: weight.clone() for name, weight in words.state_dict().items()}
    model = Segments(SMALL, words)
    assert model.num_params == (8 * 16 + 16) + 2 * 16 + (16 * 4 + 4)
    loss = model(torch.randn(2, 3, 4), torch.ones(2, 3, 4)).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in (model.into.weight, model.out.weight))
    assert all(p.grad is None for p in words.parameters())
    save_segments(tmp_path / "m.safetensors", model)
    again = read_segments(tmp_path / "m.safetensors", words)
    assert again.config == SMALL
    x = torch.randn(1, 3, 4)
    assert torch.allclose(again(x, torch.ones_like(x)), model(x, torch.ones_like(x)))
    assert all(torch.equal(weight, before[name]) for name, weight in words.state_dict().items())


def test_scale_of_an_example_is_that_of_its_question() -> None:
    found_X = asked_in_its_scale(torch.tensor([1.0, 3.0, 1.0, 3.0, 9.0, 9.0]).double(), 2)
    assert found_X.tolist() == [-1.0, 1.0, -1.0, 1.0, 7.0, 7.0]


def test_level_and_size_move_the_curve_along_and_examples_change_it() -> None:
    model = SegmentsModel("house/series-segments", net())
    y = [float((i * i) % 11) for i in range(40)]
    curves = {}
    for name, series, count in (("plain", y, 0), ("moved", [50 + 10 * x for x in y], 0), ("shown", y, 2)):
        request = Request("segment_autoregressive", {"y": series}, {}, {"examples": count}, budget=10)
        trace = record(request, ToyCatalog([model]))
        assert len(trace.steps) == 3
        scale = model.codec.encode({"y": series}).extras["scale"]
        curves[name] = [scale.decode(trace.values()[slot]) for slot in range(10)]
    assert curves["moved"] == pytest.approx([50 + 10 * x for x in curves["plain"]], rel=1e-3)
    assert curves["shown"] != pytest.approx(curves["plain"], rel=1e-3)


def test_rows_count_the_words_that_are_read() -> None:
    model = SegmentsModel("house/series-segments", net())
    meter = Meter()
    prompt = model.codec.encode({"y": [float(i % 5) for i in range(30)]})
    session = model.open(ExampleSession, prompt, Sampling(), meter, 4)
    session.follow(torch.empty(0))
    assert (meter.calls, meter.rows) == (1, 3)
    session.recall(torch.empty(0), torch.randn(2, 8).double())
    assert (meter.calls, meter.rows) == (2, 3 + 3 + 4)


def test_training_batches_hold_examples_in_front_of_their_question(tmp_path: Path) -> None:
    past_BT = torch.randn(3, 50)
    past_BT[:, 10:14] = past_BT[:, -4:]
    shown_BEX = segments.shown_windows(past_BT, SMALL, 2, None)
    assert shown_BEX.shape == (3, 2, 8)
    assert torch.equal(shown_BEX[:, 1], past_BT[:, 10:18])
    drawn_BEX = segments.shown_windows(past_BT, SMALL, 2, np.random.default_rng(0))
    assert not torch.equal(drawn_BEX, shown_BEX)
    for count in (0, 1, 2):
        inside, behind = segments.errors(net(), torch.randn(4, 84), count, None)
        assert torch.isfinite(inside + behind)
    options = ["--tiny", "--data", str(tmp_path), "--out", str(tmp_path), "--steps", "2"]
    segments.main(options)
    assert (tmp_path / "series-segments.safetensors").exists()
