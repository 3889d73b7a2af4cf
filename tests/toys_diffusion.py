"""An exact diffusion model of series in float64: windows of an AR(1), whose noise can be told in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from backend.meter import Meter
from backend.protocols import Prompt, SeriesDiffusionSession
from backend.types import Sampling
from tests.toys import Counting, Toy, ToyCodec


class Cosine:
    """alpha falls from 1 to nearly 0 as a quarter of a cosine."""

    predicts: Literal["eps"] = "eps"

    def alpha(self, t: float) -> float:
        return math.cos(0.49 * math.pi * t)

    def sigma(self, t: float) -> float:
        return math.sin(0.49 * math.pi * t)


class ToyWindows(Toy):
    """Windows of up to `longest` steps of x' = level + phi (x - level) + spread noise, in its stationary law."""

    def __init__(
        self,
        model_id: str,
        series: Sequence[float],
        phi: float = 0.8,
        spread: float = 0.5,
        level: float = 0.5,
        longest: int = 24,
        noise_levels: int = 40,
    ) -> None:
        super().__init__(model_id, SeriesDiffusionSession, ToyCodec("series", "series", least=0), 512)
        self.series, self.phi, self.spread, self.level = tuple(series), phi, spread, level
        self.longest, self.noise_levels = longest, noise_levels

    def covariance(self, length: int) -> Tensor:
        """Of a window, [L, L]."""
        at_L = torch.arange(length, dtype=torch.float64)
        return self.spread**2 / (1 - self.phi**2) * self.phi ** (at_L[:, None] - at_L).abs()

    def moments(self, horizon: int) -> tuple[Tensor, Tensor]:
        """Means [H] and deviations [H] of the steps behind the series: what no sampler of windows hits exactly."""
        steps_H = torch.arange(1, horizon + 1, dtype=torch.float64)
        mean_H = self.level + (self.series[-1] - self.level) * self.phi**steps_H
        return mean_H, self.spread * ((1 - self.phi ** (2 * steps_H)) / (1 - self.phi**2)).sqrt()

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyWindowsSession:
        return ToyWindowsSession(self, sampling.temperature, meter)


class ToyWindowsSession(Counting):
    """A session of windows."""

    def __init__(self, model: ToyWindows, temperature: float, meter: Meter) -> None:
        super().__init__(meter)
        self.series_CT = torch.tensor([model.series], dtype=torch.float64)
        self.season, self.temperature = 4, temperature
        self.shape, self.noise_levels, self.schedule = (model.longest,), model.noise_levels, Cosine()
        self._model = model
        self._slopes: dict[tuple[int, float], Tensor] = {}

    def predict(self, x_SL: Tensor, t: float) -> Tensor:
        """See `SeriesDiffusionSession.predict`."""
        self.charge(len(x_SL))
        return (x_SL - self.schedule.alpha(t) * self._model.level) @ self._slope(x_SL.shape[1], t)

    def guided(self, x_SL: Tensor, t: float, force: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """See `SeriesDiffusionSession.guided`."""
        noise_SL = self.predict(x_SL, t)
        self.charge(len(x_SL))
        return noise_SL, force(noise_SL) @ self._slope(x_SL.shape[1], t)

    def _slope(self, length: int, t: float) -> Tensor:
        """d noise / d x, symmetric: sigma over the variance of x_t."""
        if (length, t) not in self._slopes:
            alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
            eye_LL = torch.eye(length, dtype=torch.float64)
            total_LL = alpha**2 * self._model.covariance(length) + sigma**2 * eye_LL
            self._slopes[length, t] = sigma * torch.linalg.inv(total_LL)
        return self._slopes[length, t]
