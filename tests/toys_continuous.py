"""Exact models of the protocols whose slots hold numbers, not tokens; the rest is in `toys`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backend.meter import Meter
from backend.protocols import Band, ContinuousSession, DenoiserSession, ForecastSession, Prompt
from backend.types import Sampling
from tests.toys import Counting, Toy, ToyCodec, mix


# ------------------------------------------------------------------------------------------------------- continuous
class ToyContinuous(Toy):
    """Vectors in slots. Given what is written, every slot is Gaussian around the mean of all written vectors.

    The head's noise process is x_t = (1 - t) x_0 + t noise, so its best prediction of x_0 has a closed form.
    z is the conditional mean; `spread` is the standard deviation that the head knows.
    """

    def __init__(
        self,
        model_id: str = "toy/continuous",
        num_slots: int = 3,
        dims: int = 2,
        pull: float = 0.7,
        spread: float = 0.5,
    ) -> None:
        super().__init__(model_id, ContinuousSession, ToyCodec("image", "vectors", least=0), num_slots)
        self.num_slots = num_slots
        self.dims = dims
        self.pull = pull
        self.spread = spread

    def mean(self, slots: Sequence[int], known_ND: Tensor) -> Tensor:
        """Conditional means of the slots given the vectors written so far, [len(slots), dims]."""
        base_ND = torch.tensor([[0.3 * slot - 0.1 * d for d in range(self.dims)] for slot in slots]).double()
        pulled_D = known_ND.mean(0) if len(known_ND) else torch.zeros(self.dims, dtype=torch.float64)
        return base_ND + self.pull * pulled_D

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyContinuousSession:
        return ToyContinuousSession(self, meter)


class ToyContinuousSession(Counting):
    """A continuous session. The meter counts backbone and head calls; `head_calls` counts the latter apart."""

    def __init__(self, model: ToyContinuous, meter: Meter) -> None:
        super().__init__(meter)
        self.num_slots = model.num_slots
        self.dims = model.dims
        self.head_calls = 0
        self.written: dict[int, Tensor] = {}
        self._model = model

    def condition(self, slots: Sequence[int]) -> Tensor:
        """See `ContinuousSession.condition`."""
        self.charge(len(slots))
        known = list(self.written.values())
        return self._model.mean(slots, torch.stack(known) if known else torch.empty(0, self.dims))

    def head(self, x_ND: Tensor, t: float, z_NC: Tensor) -> Tensor:
        """See `ContinuousSession.head`."""
        self.charge(len(x_ND))
        self.head_calls += 1
        return clean(x_ND.double(), 1 - t, t, z_NC, self._model.spread)

    def commit(self, slots: Sequence[int], x_ND: Tensor) -> None:
        """See `ContinuousSession.commit`."""
        for slot, x_D in zip(slots, x_ND, strict=True):
            assert slot not in self.written
            self.written[slot] = x_D.double()


# --------------------------------------------------------------------------------------------------------- denoiser
def clean(x: Tensor, alpha: float, sigma: float, mean: Tensor | float, spread: float) -> Tensor:
    """E[x_0 | x_t] for x_0 ~ N(mean, spread^2) and x_t = alpha x_0 + sigma noise."""
    gain = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2)
    return mean + gain * (x - alpha * mean)


@dataclass(frozen=True)
class ToySchedule:
    """Straight lines (alpha = 1 - t) for flow, a quarter circle that keeps the variance for the others."""

    predicts: Literal["eps", "v", "x0", "flow"] = "flow"

    def alpha(self, t: float) -> float:
        """Share of the data at time t."""
        return 1.0 - t if self.predicts == "flow" else math.cos(math.pi / 2 * t)

    def sigma(self, t: float) -> float:
        """Share of the noise at time t."""
        return t if self.predicts == "flow" else math.sin(math.pi / 2 * t)


class ToyDenoiser(Toy):
    """Gaussian data: x_0 ~ N(mean, spread^2) in every coordinate, the best prediction in closed form."""

    def __init__(
        self,
        predicts: Literal["eps", "v", "x0", "flow"] = "flow",
        model_id: str = "toy/denoiser",
        mean: float = 1.5,
        spread: float = 0.5,
        shape: tuple[int, ...] = (2, 2),
    ) -> None:
        super().__init__(model_id, DenoiserSession, ToyCodec("image", "pixels", least=0), math.prod(shape))
        self.schedule = ToySchedule(predicts)
        self.mean = mean
        self.spread = spread
        self.shape = shape

    def prediction(self, x: Tensor, t: float) -> Tensor:
        """The conditional expectation of what `schedule.predicts` names, given x_t = x."""
        a, s = self.schedule.alpha(t), self.schedule.sigma(t)
        x = x.double()
        x0 = clean(x, a, s, self.mean, self.spread)
        eps = s * (x - a * self.mean) / (a**2 * self.spread**2 + s**2)
        return {"x0": x0, "eps": eps, "v": a * eps - s * x0, "flow": eps - x0}[self.schedule.predicts]

    def arrives(self, x: Tensor) -> Tensor:
        """Where the probability flow takes noise x (t = 1) by t = 0: what every exact solver must print."""
        a, s = self.schedule.alpha(1.0), self.schedule.sigma(1.0)
        return self.mean + self.spread * (x.double() - a * self.mean) / math.hypot(a * self.spread, s)

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyDenoiserSession:
        return ToyDenoiserSession(self, meter)


class ToyDenoiserSession(Counting):
    """A denoiser session with the closed form."""

    def __init__(self, model: ToyDenoiser, meter: Meter) -> None:
        super().__init__(meter)
        self.shape = model.shape
        self.schedule = model.schedule
        self._model = model

    def predict(self, x: Tensor, t: float) -> Tensor:
        """See `DenoiserSession.predict`."""
        assert x.shape == self.shape
        self.charge(x.numel())
        return self._model.prediction(x, t)


# ------------------------------------------------------------------------------------------------------- forecaster
class ToyForecaster(Toy):
    """AR(1): x' = level + phi (x - level) + spread noise. Quantiles in closed form, or sample paths.

    Args:
        levels: of the quantiles. paths: if positive, `predict` returns that many sample paths instead, drawn from a
            stream of the model's own (a forecaster is a function of its series).
    """

    def __init__(
        self,
        model_id: str = "toy/forecaster",
        phi: float = 0.8,
        level: float = 2.0,
        spread: float = 0.5,
        levels: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9),
        paths: int = 0,
    ) -> None:
        super().__init__(model_id, ForecastSession, ToyCodec("series", "series", least=0), 512)
        self.phi, self.level, self.spread = phi, level, spread
        self.levels = levels
        self.paths = paths

    def moments(self, last: float, horizon: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the next `horizon` values."""
        steps_H = torch.arange(1, horizon + 1, dtype=torch.float64)
        mean_H = self.level + self.phi**steps_H * (last - self.level)
        variance_H = self.spread**2 * (1 - self.phi ** (2 * steps_H)) / (1 - self.phi**2)
        return mean_H, variance_H.sqrt()

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyForecastSession:
        raw = prompt.extras.get("raw")
        values = [float(x) for x in raw] if raw else [float(x) for x in prompt.tokens] or [self.level]
        return ToyForecastSession(self, torch.tensor([values], dtype=torch.float64), meter)


class ToyForecastSession(Counting):
    """A forecast session on one channel."""

    def __init__(self, model: ToyForecaster, series_CT: Tensor, meter: Meter) -> None:
        super().__init__(meter)
        self.series_CT = series_CT
        self._model = model

    def predict(self, horizon: int) -> Band:
        """See `ForecastSession.predict`."""
        self.charge(self.series_CT.shape[1])
        last = float(self.series_CT[0, -1])
        if self._model.paths:
            return Band(self._sample(last, horizon))
        mean_H, spread_H = self._model.moments(last, horizon)
        level_S = torch.tensor(self._model.levels, dtype=torch.float64)
        return Band(mean_H + spread_H * torch.special.ndtri(level_S)[:, None], self._model.levels)

    def extend(self, values_CH: Tensor) -> None:
        """See `ForecastSession.extend`."""
        self.series_CT = torch.cat((self.series_CT, values_CH.double()), dim=1)

    def _sample(self, last: float, horizon: int) -> Tensor:
        stream = torch.Generator().manual_seed(mix(7, [self.series_CT.shape[1], horizon]))
        noise_SH = torch.randn(self._model.paths, horizon, generator=stream, dtype=torch.float64)
        x_S, columns = torch.full((self._model.paths,), last, dtype=torch.float64), []
        for noise_S in noise_SH.T:
            x_S = self._model.level + self._model.phi * (x_S - self._model.level) + self._model.spread * noise_S
            columns.append(x_S)
        return torch.stack(columns, dim=1)
