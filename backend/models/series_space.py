"""The state space model of series as the catalog offers it: its sessions read the past once, then run by powers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from backend.codecs.forecast import SeriesCodec
from backend.meter import Meter
from backend.models.house.state_space import StateSpace, read_space
from backend.protocols import LoopSession, Prompt
from backend.types import Sampling
from backend.unrolling import filled


class SpaceSession:
    """A `LoopSession`. A state is that of all channels, one behind the other."""

    def __init__(self, model: SpaceModel, prompt: Prompt, meter: Meter) -> None:
        self.series_CT = torch.tensor([prompt.extras["context"]], dtype=torch.float64)
        self.season: int = prompt.extras["season"]
        self.poles_Z = model.poles_Z
        self._model, self._meter = model, meter
        self._level = float(self.series_CT.nanmean())

    def listen(self) -> Tensor:
        """See `LoopSession.listen`."""
        net = self._model.net
        with self._meter.call(net.config.lag), torch.inference_mode():
            y_L, known_L = past_of(self.series_CT, net.config.lag)
            inputs = ((y_L - self._level)[None].to(net.out.weight), known_L[None].to(net.out.weight))
            return net.state(net.inputs(*inputs)).flatten().cpu()

    def advance(self, states_ND: Tensor, steps: int) -> Tensor:
        """See `LoopSession.advance`."""
        with self._meter.call(len(states_ND)), torch.inference_mode():
            power_CDD = self._model.power(steps)
            x_CND = states_ND.reshape(-1, *power_CDD.shape[:2]).transpose(0, 1).to(power_CDD)
            return (x_CND @ power_CDD.mT).transpose(0, 1).flatten(1).cpu()

    def read(self, states_ND: Tensor) -> Tensor:
        """See `LoopSession.read`."""
        net = self._model.net
        with torch.inference_mode():
            x_NCD = states_ND.reshape(-1, net.config.channels, net.config.state).to(net.out.weight)
            return net.read(x_NCD).cpu() + self._level


def past_of(series_CT: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The last values [L] and whether they were observed; in front of a short series and in gaps a value is held."""
    y_T, known_T = filled(series_CT), torch.isfinite(series_CT[0]).double()
    missing = max(0, length - len(y_T))
    y_T = torch.cat((y_T[:1].expand(missing), y_T))
    return y_T[-length:], torch.cat((known_T.new_zeros(missing), known_T))[-length:]


class SpaceModel:
    """Loaded weights, and the powers of the closed loop that were asked for. Shared by all sessions."""

    speaks: frozenset[type] = frozenset({LoopSession})

    def __init__(self, model_id: str, net: StateSpace) -> None:
        self.id = model_id
        self.net = net
        self.codec = SeriesCodec(net.config.lag, bent=False)
        self.num_params = net.num_params
        self.context = 1 << 20  # steps that can be written
        with torch.inference_mode():
            self._powers = {1: net.closed()}
            poles_Z = torch.linalg.eigvals(self._powers[1].cpu()).flatten()
        self.poles_Z = poles_Z[poles_Z.abs().argsort(descending=True)]

    def power(self, steps: int) -> Tensor:
        """The matrices of the closed loop to a power of 2, [C, D, D]."""
        assert steps > 0
        assert steps & (steps - 1) == 0, f"{steps} is no power of 2"
        if steps not in self._powers:
            half_CDD = self.power(steps // 2)
            with torch.inference_mode():
                self._powers[steps] = half_CDD @ half_CDD
        return self._powers[steps]

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> SpaceSession:
        """A session on a prompt of the series codec."""
        assert protocol in self.speaks, protocol
        return SpaceSession(self, prompt, meter)


def load_series_space(model_id: str, path: Path, device: torch.device | str = "cpu") -> SpaceModel:
    """A model of a file of `house.state_space.save_space`, in float64."""
    return SpaceModel(model_id, read_space(path, device))
