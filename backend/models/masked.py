"""A masked model of described pictures: sessions that tell the law of every open cell, in whatever order it is filled.

Known cells are one-hot: the model reads them and never changes them. Under guidance both sequences, what is asked and
nothing asked, are two rows of one batch, so a denoising is one call either way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.codecs.image import UNKNOWN, ImageCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.models.guided import check_scale
from backend.models.house.masked import Mural
from backend.models.session import check_numbers
from backend.protocols import GridSession, MaskedSession, Prompt
from backend.sampling import distribution
from backend.types import Sampling


class MuralSession:
    """A `GridSession` on a `MaskedModel`. It remembers nothing between calls: every canvas is read anew."""

    def __init__(self, model: MaskedModel, prompt: Prompt, sampling: Sampling, meter: Meter) -> None:
        self.grid = model.layout.grid
        self.canvas_L: tuple[int, ...] = tuple(prompt.extras.get("canvas", (UNKNOWN,) * model.context))
        self._model, self._sampling, self._meter = model, sampling, meter
        asked = [prompt.extras["conditions"]]
        if model.scale is not None:
            asked.append([0] * model.layout.hidden)
        self._asked_BA = torch.tensor(asked, device=model.mural.device)

    def denoise(self, canvas_L: Sequence[int]) -> Tensor:
        """See `MaskedSession.denoise`; float32 at least. Raises UserError if the model returns no numbers."""
        assert len(canvas_L) == self._model.context, len(canvas_L)
        told_L = torch.tensor(canvas_L, device=self._model.mural.device)
        raw_LV = self._guided(told_L)
        open_N = (told_L < 0).nonzero().flatten()
        p_LV = torch.zeros_like(raw_LV)
        p_LV.scatter_(1, told_L.clamp_min(0)[:, None], (told_L >= 0).to(p_LV.dtype)[:, None])
        if len(open_N):
            p_LV[open_N] = laws_of_open(raw_LV[open_N], canvas_L, self._sampling, self._model.id)
        return p_LV

    def _guided(self, told_L: Tensor) -> Tensor:
        """Logits [L, V], by one call."""
        batch = len(self._asked_BA)
        with self._meter.call(batch * len(told_L)):
            raw_BLV = self._model.mural.logits(self._asked_BA, told_L.expand(batch, -1))
        return raw_BLV[0] if self._model.scale is None else torch.lerp(raw_BLV[1], raw_BLV[0], self._model.scale)


def laws_of_open(raw_NV: Tensor, canvas_L: Sequence[int], sampling: Sampling, model_id: str) -> Tensor:
    """Laws [N, V] of open slots; a repetition penalty is for the tokens on the canvas, where -1 is none.

    Raises UserError if the model returned no numbers.
    """
    check_numbers(raw_NV, model_id)
    known = [token for token in canvas_L if token >= 0]
    seen = [known] * len(raw_NV) if sampling.repetition_penalty != 1.0 else ()
    return distribution(raw_NV, sampling, seen)


class MaskedModel:
    """Loaded weights of a masked model. Shared by all sessions, never written.

    Args:
        mural: what it runs. scale: of guidance, s of convention A; None runs one sequence alone.
    """

    speaks: frozenset[type] = frozenset({MaskedSession, GridSession})

    def __init__(
        self, model_id: str, mural: Mural, codec: ImageCodec, num_params: int, scale: float | None = None
    ) -> None:
        self.id = model_id
        self.mural = mural
        self.codec = codec
        self.num_params = num_params
        self.scale = scale
        self.layout = mural.layout
        self.context = mural.layout.length

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> MuralSession:
        """A session on a prompt of the image codec; cells that are given stay.

        Raises UserError where more than the open cells is to be painted.
        """
        assert protocol in self.speaks, protocol
        session = MuralSession(self, prompt, sampling, meter)
        left = session.canvas_L.count(UNKNOWN)
        if room > left:
            raise UserError(
                f"{left} of the {self.context} cells are to be painted, but the budget is {room}; "
                f"ask for {left} tokens or fewer."
            )
        return session


def guided(model: MaskedModel, scale: float) -> MaskedModel:
    """The model under classifier-free guidance, l = l_u + s (l_c - l_u); see `guided.Guided`.

    Args:
        scale: s, from 0 (conditions left open) over 1 (the model itself, at twice the rows) to 20.

    Raises UserError for another scale, and for a model that is guided already.
    """
    check_scale(scale, model.id, model.scale is not None)
    return MaskedModel(f"{model.id}@cfg={scale:g}", model.mural, model.codec, model.num_params, scale)
