"""A model of windows of series that tells the noise in them: its sessions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from backend.codecs.forecast import SeriesCodec
from backend.codecs.series import LONGEST_HORIZON
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.series_diffusion import SeriesDiffusion, read_series_diffusion
from backend.protocols import Prompt, Schedule, SeriesDiffusionSession
from backend.types import Sampling

SHORTEST = 8  # steps of a horizon for which a whole window is still used


class NoiseTelling:
    """A `SeriesDiffusionSession` on a `SeriesDiffusionModel`. It keeps nothing between calls."""

    def __init__(self, model: SeriesDiffusionModel, prompt: Prompt, sampling: Sampling, meter: Meter) -> None:
        self.series_CT = torch.tensor([prompt.extras["context"]], dtype=torch.float64)
        self.season: int = prompt.extras["season"]
        self.temperature = sampling.temperature
        self.shape: tuple[int, ...] = (model.net.config.window,)
        self.schedule: Schedule = model.net.schedule
        self.noise_levels = model.net.config.noise_levels
        self._model, self._meter = model, meter

    def predict(self, x_SL: Tensor, t: float) -> Tensor:
        """See `SeriesDiffusionSession.predict`; float64 on the CPU."""
        with self._meter.call(len(x_SL)), torch.inference_mode():
            return self._told(x_SL.to(self._model.net.device, torch.float32), t).cpu().double()

    def guided(self, x_SL: Tensor, t: float, force: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """See `SeriesDiffusionSession.guided`; float64 on the CPU."""
        with torch.enable_grad():
            leaf_SL = x_SL.to(self._model.net.device, torch.float32).detach().requires_grad_(True)
            with self._meter.call(len(x_SL)):
                noise_SL = self._told(leaf_SL, t)
            told_SL = noise_SL.detach().cpu().double()
            with self._meter.call(len(x_SL)):
                (pulled_SL,) = torch.autograd.grad(noise_SL, leaf_SL, force(told_SL).to(noise_SL))
        return told_SL, pulled_SL.cpu().double()

    def _told(self, x_SL: Tensor, t: float) -> Tensor:
        """The noise in windows of any length. Raises UserError where the model returns no numbers."""
        net = self._model.net
        alpha_1, sigma_1 = (x_SL.new_tensor([y]) for y in (self.schedule.alpha(t), self.schedule.sigma(t)))
        noise_SL: Tensor = net(x_SL, alpha_1, sigma_1, [self.season])
        if not math.isfinite(float(noise_SL.detach().abs().amax())):
            raise UserError(
                f"{self._model.id} returned numbers that are no noise (NaN or infinity); guide it less, "
                "or in smaller steps."
            )
        return noise_SL


class SeriesDiffusionModel:
    """Loaded weights. Shared by all sessions, never written."""

    speaks: frozenset[type] = frozenset({SeriesDiffusionSession})

    def __init__(self, model_id: str, net: SeriesDiffusion) -> None:
        self.id = model_id
        self.net = net.requires_grad_(False)
        self.codec = SeriesCodec(net.config.window - SHORTEST)
        self.num_params = net.num_params
        self.context = LONGEST_HORIZON

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> NoiseTelling:
        """A session on a prompt of the codec of series."""
        assert protocol in self.speaks, protocol
        return NoiseTelling(self, prompt, sampling, meter)


def load_series_diffusion(model_id: str, path: Path, device: torch.device | str = "cpu") -> SeriesDiffusionModel:
    """The model of a file of `house.series_diffusion.save_series_diffusion`, float32.

    Raises UserError if there is no such file.
    """
    return SeriesDiffusionModel(model_id, read_series_diffusion(path, device))
