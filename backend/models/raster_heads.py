"""Draft heads of raster painters as the catalog hands them out: they start from a canvas and not from a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from backend.codecs.image import ImageCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.models.heads import ChainedSession, HeadsModel
from backend.models.house.heads import EagleLayer, read_heads
from backend.models.house.raster import Layout, Raster
from backend.models.house.raster_heads import RasterEagle
from backend.models.raster import RasterModel, given_codes
from backend.protocols import HeadsSession, Prompt
from backend.types import Sampling


class PainterHeads(HeadsModel):
    """EAGLE's layer on a raster painter, behind the heads protocol. Shared by all sessions, never written.

    Args:
        heads: packed. odds: measured, see `HeadsSession`. codec: of the painter. num_params: trained weights.
    """

    def __init__(
        self, model_id: str, heads: RasterEagle, odds: Sequence[Sequence[float]], codec: ImageCodec, num_params: int
    ) -> None:
        super().__init__(model_id, heads, odds, codec, num_params)
        self.layout = Layout.of(codec)
        self.eagle = heads

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ChainedSession:
        """A session on the painter's prompt: codes that are given are text, conditions are not."""
        assert protocol is HeadsSession, protocol
        given = given_codes(prompt, self.id, self.layout.grid, room)
        return ChainedSession(self, self.eagle, given, meter, room)

    def check(self, hidden_NC: Tensor) -> None:
        """Raises UserError if hidden states are not of the width that the layer was trained on."""
        if hidden_NC.shape[1] != self.heads.config.dim:
            raise UserError(
                f"{self.id} reads hidden states of {self.heads.config.dim} numbers, but this target's have "
                f"{hidden_NC.shape[1]}; take house/portraits as target, or another drafter."
            )


def load_painter_heads(
    model_id: str, path: Path, painter: RasterModel, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> PainterHeads:
    """The layer of a file of `save_heads` on its painter. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(f"{model_id} is not in assets/house; build it with: python -m backend.train.portraits.eagle")
    heads, _, odds = read_heads(path, device)
    assert isinstance(heads, EagleLayer)
    assert isinstance(painter.backbone, Raster)
    packed = RasterEagle(heads, painter.backbone.llama, painter.layout, dtype)
    return PainterHeads(model_id, packed, odds, painter.codec, heads.num_params)
