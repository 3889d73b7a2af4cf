"""Published forecasters whose one call gives quantiles of coming steps: Chronos-Bolt, Chronos-2, TimesFM 2.5, Fracast.

A call is what a forward of the published network gives, for series in units that the context alone has set and that
stay. Inside, each of them normalises whatever it reads, as it was trained to: Chronos and Fracast all of its window,
TimesFM patch by patch. What their packages do around it is not done here: strategies roll blocks, and nothing is
clamped. Weights run in float32.

Shape letters: R rows, T steps that are read, Q levels, H steps of an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.codecs.forecast import SeriesCodec
from backend.entries import FRACAST, OUTSIDE, installed
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import BandSession, Prompt
from backend.types import Sampling

ROOM = 1 << 20  # steps that can be written; only the context is limited
CHRONOS = "hub/amazon/chronos-bolt-tiny"  # whose package reads all of the family
BOLT, TWO = "ChronosBoltModelForForecasting", "Chronos2Model"


@dataclass(frozen=True, eq=False)
class Published:
    """A network, and how it is asked.

    Args:
        ask: series [R, T], NaN where missing, and a size to quantiles [R, Q, size]. levels: of those, ascending.
        sizes: steps that it can be asked for, ascending. context: most steps that it reads. num_params: its weights.
        rows: positions that one row takes in a forward, from T and the size. forwards: of the network for an answer.
    """

    ask: Callable[[Tensor, int], Tensor]
    levels: tuple[float, ...]
    sizes: tuple[int, ...]
    context: int
    num_params: int
    rows: Callable[[int, int], int]
    forwards: int = 1


class OutsideSession:
    """A `BandSession` on a published forecaster. Temperature means nothing to quantiles."""

    def __init__(self, model: OutsideModel, prompt: Prompt, meter: Meter) -> None:
        self.series_CT = torch.tensor([prompt.extras["context"]], dtype=torch.float64)
        self.season: int = prompt.extras["season"]
        self.levels: Sequence[float] = model.net.levels
        self.sizes: Sequence[int] = model.net.sizes
        self._model, self._meter = model, meter

    def predict(self, size: int, futures_RH: Tensor | None = None) -> Tensor:
        """See `BandSession.predict`. Raises UserError if the model returns no numbers."""
        assert size in self.sizes, size
        net, series_RT = self._model.net, self.series_CT[:1]
        if futures_RH is not None:
            futures_RH = futures_RH.detach().cpu().double()
            series_RT = torch.cat((series_RT.expand(len(futures_RH), -1), futures_RH), 1)
        series_RT = series_RT[:, -net.context :]
        with self._meter.call(net.forwards * len(series_RT) * net.rows(series_RT.shape[1], size)):
            out_RQH = net.ask(series_RT, size).cpu().double()
        self._meter.calls += net.forwards - 1
        if not bool(torch.isfinite(out_RQH).all()):
            raise UserError(
                f"{self._model.id} returned numbers that are no forecast (NaN or infinity); pick another model, or a "
                "longer context."
            )
        return out_RQH


class OutsideModel:
    """A published forecaster as the catalog offers it. Shared by all sessions, never written."""

    speaks: frozenset[type] = frozenset({BandSession})
    context = ROOM

    def __init__(self, model_id: str, net: Published) -> None:
        self.id = model_id
        self.net = net
        self.codec = SeriesCodec(net.context, bent=False)  # straight units, which the networks undo
        self.num_params = net.num_params

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> OutsideSession:
        """A session on a prompt of the series codec."""
        assert protocol in self.speaks, protocol
        return OutsideSession(self, prompt, meter)


# ------------------------------------------------------------------------------------------------------------- loading
def is_forecaster(folder: Path) -> bool:
    """Whether a folder in the hub's layout holds a forecaster and no language model."""
    config = _config(folder)
    return "chronos_config" in config or config.get("model_type") == "timesfm2_5"


def load_forecaster_folder(model_id: str, folder: Path, device: torch.device | str = "cpu") -> OutsideModel:
    """The forecaster in a folder of the hub's layout.

    Raises UserError if it is of a kind that is not read here, its package is missing, or it cannot be loaded.
    """
    config = _config(folder)
    kind = (config.get("architectures") or [""])[0]
    if "chronos_config" in config and kind not in (BOLT, TWO):
        raise UserError(
            f"{model_id} is of the kind {kind or 'unknown'}, and of Chronos only Chronos-Bolt and Chronos-2 are read "
            "here; pick one of these."
        )
    if "chronos_config" in config:
        installed(CHRONOS)
    options = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    try:
        if kind == BOLT:
            from chronos.chronos_bolt import ChronosBoltModelForForecasting

            options.pop("trust_remote_code")  # these two are no auto classes
            net = chronos_bolt(ChronosBoltModelForForecasting.from_pretrained(folder, **options).to(device).eval())
        elif kind == TWO:
            from chronos.chronos2 import Chronos2Model

            options.pop("trust_remote_code")
            net = chronos_2(Chronos2Model.from_pretrained(folder, **options).to(device).eval())
        else:
            from transformers import TimesFm2_5ModelForPrediction

            net = timesfm(TimesFm2_5ModelForPrediction.from_pretrained(folder, **options).to(device).eval())
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise UserError(f"{model_id} cannot be loaded as a forecaster ({reason}); pick another.") from error
    return OutsideModel(model_id, net)


def load_fracast(device: torch.device | str = "cpu") -> OutsideModel:
    """Fracast-0 with the weights of its package. Raises UserError where that is not installed or cannot be loaded."""
    installed(FRACAST)
    try:
        from fracast import FracastModel

        net = fracast(FracastModel.from_pretrained(weights="fp32", device=device))
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise UserError(
            f"Fracast-0 cannot be loaded ({reason}); install it anew with: {OUTSIDE[FRACAST][2]} --force-reinstall"
        ) from error
    return OutsideModel(FRACAST, net)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        read = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        read = {}
    return read if isinstance(read, dict) else {}


# ------------------------------------------------------------------------------------------------------------ networks
def chronos_bolt(model: Any) -> Published:
    """Chronos-Bolt (2403.07815 and its package): one block of steps; gaps are masked.

    model: a `ChronosBoltModelForForecasting` in eval mode.
    """
    config = model.chronos_config

    def ask(series_RT: Tensor, size: int) -> Tensor:
        with torch.inference_mode():
            out: Tensor = model(context=series_RT.to(model.device, torch.float32)).quantile_preds
        return out[:, :, :size]

    return Published(
        ask=ask,
        levels=tuple(config.quantiles),
        sizes=(config.prediction_length,),
        context=config.context_length,
        num_params=_size(model),
        rows=lambda steps, size: -(-steps // config.input_patch_size) + int(config.use_reg_token) + 1,
    )


def chronos_2(model: Any) -> Published:
    """Chronos-2 (2510.15821): any number of patches in one call, of which the powers of two are offered, and the most.

    Coming patches see each other, so that every size is another forecast. Rows of a call are series of their own, with
    no attention among them. model: a `Chronos2Model` in eval mode.
    """
    config = model.chronos_config
    patch, most = config.output_patch_size, config.max_output_patches

    def ask(series_RT: Tensor, size: int) -> Tensor:
        with torch.inference_mode():
            read_RT = series_RT.to(model.device, torch.float32)
            out: Tensor = model(context=read_RT, num_output_patches=size // patch).quantile_preds
        return out

    return Published(
        ask=ask,
        levels=tuple(config.quantiles),
        sizes=tuple(patch * count for count in sorted({*(2**i for i in range(most.bit_length())), most})),
        context=config.context_length,
        num_params=_size(model),
        rows=lambda steps, size: -(-steps // patch) + int(config.use_reg_token) + size // patch,
    )


def timesfm(model: Any) -> Published:
    """TimesFM 2.5 (2310.10688 and its package): one block of steps; gaps are bridged by straight lines.

    Two forwards an answer where the configuration asks for the mean of f(x) and -f(-x). Forecasts of positive series
    are not cut at 0. model: a `TimesFm2_5ModelForPrediction` in eval mode.
    """
    config = model.config
    patch = config.patch_length

    def ask(series_RT: Tensor, size: int) -> Tensor:
        rows = list(bridged(series_RT).to(model.device, torch.float32))
        length = -(-len(rows[0]) // patch) * patch  # the whole context would be padded to its longest
        with torch.inference_mode():
            told = model(past_values=rows, forecast_context_len=length, truncate_negative=False)
        out: Tensor = told.full_predictions[:, :size, 1:].mT  # the first is the mean
        return out

    return Published(
        ask=ask,
        levels=tuple(config.quantiles),
        sizes=(config.horizon_length,),
        context=config.context_length,
        num_params=_size(model),
        rows=lambda steps, size: -(-steps // patch),
        forwards=2 if config.force_flip_invariance else 1,
    )


def fracast(model: Any) -> Published:
    """Fracast-0: one block of steps from a window that is always full, zeros in front; gaps are masked.

    model: a `FracastModel`.
    """

    def ask(series_RT: Tensor, size: int) -> Tensor:
        out_RHQ = model.forecast_batch(series_RT.numpy(), horizon=size)
        return torch.from_numpy(out_RHQ).mT

    return Published(
        ask=ask,
        levels=tuple(model.quantiles),
        sizes=(model.horizon,),
        context=model.context_length,
        num_params=_size(model.core) + _size(model.head),
        rows=lambda steps, size: int(model.context_length),
    )


def bridged(series_RT: Tensor) -> Tensor:
    """Rows from the first column in which all have a value, gaps on a straight line, and held behind the last value."""
    rows_RT = series_RT.numpy()
    known_RT = np.isfinite(rows_RT)
    first, at_T = int(known_RT.argmax(1).max()), np.arange(rows_RT.shape[1])
    filled = [np.interp(at_T, at_T[known], row[known]) for row, known in zip(rows_RT, known_RT, strict=True)]
    return torch.from_numpy(np.stack(filled)[:, first:])


def _size(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())
