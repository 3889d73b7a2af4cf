"""Segments of a series in a frozen text model, as the catalog offers it: sessions that scale every window anew."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from backend.codecs.forecast import SeriesCodec
from backend.meter import Meter
from backend.models.house.llama import Llama
from backend.models.house.own import read_own
from backend.models.house.segments import Segments, read_segments
from backend.models.series_hierarchy import moments, window_of
from backend.protocols import ExampleSession, Prompt, SegmentSession
from backend.types import Sampling

TRUNK = "tales.safetensors"  # beside the maps
CONTEXT = 768  # most values among which examples are looked for


class SegmentsSession:
    """An `ExampleSession`. It keeps nothing between calls: the scale of a window changes with what was written."""

    def __init__(self, model: SegmentsModel, prompt: Prompt, meter: Meter) -> None:
        config = model.net.config
        self.series_CT = torch.tensor([prompt.extras["context"]], dtype=torch.float64)
        self.season: int = prompt.extras["season"]
        self.segment = config.segment
        self.lookback, self.example = config.segment * config.lookback, config.segment * config.example
        self._model, self._meter = model, meter

    def follow(self, written_H: Tensor) -> Tensor:
        """See `SegmentSession.follow`; one part, as there are no stages."""
        return self.recall(written_H, torch.empty(0, self.example, dtype=torch.float64))

    def recall(self, written_H: Tensor, examples_EX: Tensor) -> Tensor:
        """See `ExampleSession.recall`. Each example has the scale of its own question."""
        assert examples_EX.shape[1:] == (self.example,), tuple(examples_EX.shape)
        y_T, known_T = window_of(self.series_CT, written_H, self.lookback)
        location, spread = moments(y_T, known_T)
        shown = [asked_in_its_scale(example_X, self.segment) for example_X in examples_EX]
        values_T = torch.cat((*shown, (y_T - location) / spread))
        known_T = torch.cat((torch.ones(examples_EX.numel(), dtype=torch.float64), known_T))
        net = self._model.net
        values_NP, known_NP = (x.reshape(-1, self.segment).to(net.out.weight) for x in (values_T, known_T))
        with self._meter.call(len(values_NP)), torch.inference_mode():
            found_NP: Tensor = net(values_NP[None], known_NP[None], examples_EX.numel() // self.segment)[0]
        return location + spread * found_NP[-1:].double().cpu()


def asked_in_its_scale(example_X: Tensor, answer: int) -> Tensor:
    """A whole example, in deviations from the mean of all but its last `answer` values."""
    location, spread = moments(example_X[:-answer], torch.ones(len(example_X) - answer))
    return (example_X - location) / spread


class SegmentsModel:
    """Loaded weights. Shared by all sessions, never written."""

    speaks: frozenset[type] = frozenset({SegmentSession, ExampleSession})

    def __init__(self, model_id: str, net: Segments) -> None:
        self.id = model_id
        self.net = net
        self.codec = SeriesCodec(CONTEXT, bent=False)
        self.num_params = net.num_params + net.trunk.num_params
        self.context = 1 << 20  # steps that can be written

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> SegmentsSession:
        """A session on a prompt of the series codec."""
        assert protocol in self.speaks, protocol
        return SegmentsSession(self, prompt, meter)


def read_trunk(path: Path, device: torch.device | str = "cpu") -> Llama:
    """The frozen text model of a file, in float32. Raises UserError where it is missing."""
    trunk = read_own(path, device)
    assert isinstance(trunk, Llama)
    return trunk.eval().requires_grad_(False)


def load_series_segments(model_id: str, path: Path, device: torch.device | str = "cpu") -> SegmentsModel:
    """A model of a file of `house.segments.save_segments`. Raises UserError where the trunk's file is missing."""
    return SegmentsModel(model_id, read_segments(path, read_trunk(path.parent / TRUNK, device), device))
