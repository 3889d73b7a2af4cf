"""The hierarchy of series as the catalog offers it: sessions that scale a sliding window anew for every segment."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from backend.codecs.forecast import SeriesCodec
from backend.meter import Meter
from backend.models.house.hierarchy import Hierarchy, read_hierarchy
from backend.protocols import Prompt, SegmentSession
from backend.types import Sampling
from backend.unrolling import filled

LEAST_SPREAD = 1e-6  # of a window, in units of the series


def window_of(series_CT: Tensor, written_H: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The last values [length] of a series and what was written behind it, and 1 where a value was observed or written.

    Gaps hold the value before them; in front of a short series its first value stands.
    """
    y_T = torch.cat((filled(series_CT), written_H.double().cpu()))
    known_T = torch.cat((torch.isfinite(series_CT[0]).double(), torch.ones(len(written_H), dtype=torch.float64)))
    missing = max(0, length - len(y_T))
    y_T, known_T = torch.cat((y_T[:1].expand(missing), y_T)), torch.cat((known_T.new_zeros(missing), known_T))
    return y_T[-length:], known_T[-length:]


def moments(y_T: Tensor, known_T: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of what is known in a window."""
    some = y_T[known_T > 0]
    return float(some.mean()), max(float((some - some.mean()).square().mean().sqrt()), LEAST_SPREAD)


class HierarchySession:
    """A `SegmentSession`. It keeps nothing between calls: the scale of a window changes with what was written."""

    def __init__(self, model: HierarchyModel, prompt: Prompt, meter: Meter) -> None:
        config = model.net.config
        self.series_CT = torch.tensor([prompt.extras["context"]], dtype=torch.float64)
        self.season: int = prompt.extras["season"]
        self.segment, self.lookback = config.segment, config.segment * config.segments
        self._model, self._meter = model, meter

    def follow(self, written_H: Tensor) -> Tensor:
        """See `SegmentSession.follow`. The window's location is in the part of the first stage, the coarsest."""
        y_T, known_T = window_of(self.series_CT, written_H, self.lookback)
        location, spread = moments(y_T, known_T)
        with self._meter.call(self.lookback // self.segment), torch.inference_mode():
            weight = next(self._model.net.parameters())
            parts_KNP: Tensor = self._model.net(((y_T - location) / spread)[None].to(weight), known_T[None].to(weight))[
                0
            ]
        parts_KP = spread * parts_KNP[:, -1].double().cpu()
        parts_KP[0] += location
        return parts_KP


class HierarchyModel:
    """Loaded weights. Shared by all sessions, never written."""

    speaks: frozenset[type] = frozenset({SegmentSession})

    def __init__(self, model_id: str, net: Hierarchy) -> None:
        self.id = model_id
        self.net = net
        self.codec = SeriesCodec(net.config.segment * net.config.segments, bent=False)
        self.num_params = net.num_params
        self.context = 1 << 20  # steps that can be written

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> HierarchySession:
        """A session on a prompt of the series codec."""
        assert protocol in self.speaks, protocol
        return HierarchySession(self, prompt, meter)


def load_series_hierarchy(model_id: str, path: Path, device: torch.device | str = "cpu") -> HierarchyModel:
    """A model of a file of `house.hierarchy.save_hierarchy`."""
    return HierarchyModel(model_id, read_hierarchy(path, device))
