"""Models of series as tokens: a causal one, which every strategy of text continues, and one that fills any steps.

Neither ever writes the token of a missing value: its logit is NEVER, so that its chance is exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend.codecs.bins import MISSING
from backend.codecs.series_tokens import SeriesTokens
from backend.errors import UserError
from backend.meter import Meter
from backend.models.causal import CausalModel
from backend.models.house.llama import Llama
from backend.models.house.own import load_own
from backend.models.house.strip import Strip
from backend.models.masked import laws_of_open
from backend.protocols import GridSession, MaskedSession, Model, Prompt
from backend.types import Sampling

NEVER = -1e4  # a logit whose chance is 0 in every type and at every temperature; finite, so that sums stay numbers
UNKNOWN = -1


class SeriesTokenModel(CausalModel):
    """A causal model of series as tokens; it speaks what any causal model on the lean forward does."""

    def __init__(self, model_id: str, llama: Llama, num_params: int) -> None:
        codec: Any = SeriesTokens()  # it has what the base class asks of a codec of text: a size
        super().__init__(model_id, llama, codec, num_params)

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> Any:
        """A session on a prompt of `SeriesTokens`. Raises UserError where gaps are to be filled: it writes forwards."""
        if prompt.extras.get("fill"):
            raise UserError(
                f"{self.id} writes step after step, so it cannot fill gaps of the past; leave out 'fill', or pick "
                "house/series-masked."
            )
        return super().open(protocol, prompt, sampling, meter, room)


class StripSession:
    """A `GridSession` on a `SeriesMaskedModel`: the context, then the open future, one row of steps.

    It remembers nothing between calls: every canvas is read anew.
    """

    def __init__(self, strip: Strip, model_id: str, canvas_L: Sequence[int], sampling: Sampling, meter: Meter) -> None:
        self.canvas_L = tuple(canvas_L)
        self.grid = (1, len(self.canvas_L))
        self._strip, self._id, self._sampling, self._meter = strip, model_id, sampling, meter

    def denoise(self, canvas_L: Sequence[int]) -> Tensor:
        """See `MaskedSession.denoise`; float32 at least. Raises UserError if the model returns no numbers."""
        assert len(canvas_L) == len(self.canvas_L), len(canvas_L)
        told_L = torch.tensor(canvas_L, device=self._strip.device)
        with self._meter.call(len(told_L)):
            raw_LV = self._strip.logits(told_L[None])[0]
        open_N = (told_L < 0).nonzero().flatten()
        p_LV = torch.zeros_like(raw_LV)
        p_LV.scatter_(1, told_L.clamp_min(0)[:, None], (told_L >= 0).to(p_LV.dtype)[:, None])
        if len(open_N):
            p_LV[open_N] = laws_of_open(raw_LV[open_N], canvas_L, self._sampling, self._id)
        return p_LV


class SeriesMaskedModel:
    """Loaded weights of a masked model of series. Shared by all sessions, never written."""

    speaks: frozenset[type] = frozenset({MaskedSession, GridSession})

    def __init__(self, model_id: str, strip: Strip, num_params: int) -> None:
        self.id = model_id
        self.strip = strip
        self.codec = SeriesTokens()
        self.num_params = num_params
        self.context = strip.context

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> StripSession:
        """A session on a prompt of `SeriesTokens` whose open slots are `room`: gaps to be filled, then the future.

        Raises UserError for several paths, and where there are more gaps to fill than room.
        """
        assert protocol in self.speaks, protocol
        if len(prompt.texts) > 1:
            raise UserError(f"{self.id} fills one canvas, but {len(prompt.texts)} paths were asked for; ask for one.")
        gap = UNKNOWN if prompt.extras.get("fill") else MISSING
        context = [gap if token == MISSING else token for token in prompt.tokens]
        gaps = context.count(UNKNOWN)
        if gaps > room:
            raise UserError(
                f"The context has {gaps} gaps to fill, but the budget is {room}; ask for {gaps} steps, and one more "
                "for each step of the future."
            )
        canvas = [*context, *[UNKNOWN] * (room - gaps)]
        return StripSession(self.strip, self.id, canvas, sampling, meter)


def numbers_only(llama: Llama) -> Llama:
    """The packed model with logits of NEVER for the token of a missing value."""
    assert llama.packed is not None
    head = llama.packed.head

    def known(x: Tensor) -> Tensor:
        logits = head(x)
        logits[..., MISSING] = NEVER
        return logits

    return Llama(llama.config, replace(llama.packed, head=known))


def load_series_tokens(
    model_id: str, path: Path, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> Model:
    """A model of series as tokens from a file of `own.save_own`: masked where its embedding has a row for the mask."""
    llama = load_own(path, dtype, device)
    assert isinstance(llama, Llama)
    num_params = llama.num_params
    if llama.config.extra_inputs:
        return SeriesMaskedModel(model_id, Strip(numbers_only(llama)), num_params)
    return SeriesTokenModel(model_id, numbers_only(llama), num_params)
