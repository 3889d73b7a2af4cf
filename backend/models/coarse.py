"""A model of described pictures in two nets: one writes groups of alike colours, one tells all colours within them.

Under guidance both nets are guided, by the same scale; the second one's two sequences are two rows of a batch, so that
refining is one call either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from backend.codecs.image import UNKNOWN, ImageCodec
from backend.codecs.palette import PaletteTokenizer
from backend.meter import Meter
from backend.models.guided import Guided, PairMeter, check_scale
from backend.models.house.coarse import CoarseNets, Refiner, medoids, painter_layout, read_coarse, within
from backend.models.house.raster import Layout, Raster
from backend.models.raster import Canvas, HiddenTrie, given_codes
from backend.models.session import check_numbers
from backend.protocols import CoarseSession, Prompt, Scores
from backend.sampling import distribution
from backend.types import Sampling

FINE = "fine"  # the part of a meter that calls of the second net are counted under


class CoarseCanvas:
    """A `CoarseSession` on a `CoarseModel`."""

    def __init__(
        self, model: CoarseModel, prompt: Prompt, given: Sequence[int], sampling: Sampling, meter: Meter, room: int
    ) -> None:
        self.given: Sequence[int] = tuple(given)
        self.members: Sequence[int] = model.members
        self.medoids: Sequence[int] = model.medoids
        layout, asked = model.layout, prompt.extras["conditions"]
        tokens = [*layout.rows(asked), *(model.members[code] for code in given)]
        guided = isinstance(model.painter, Guided)
        counted = PairMeter(meter) if guided else meter
        self._trie = HiddenTrie(model.painter, model.id, layout.num_codes, tokens, sampling, counted, room)
        self._trie.hidden = layout.hidden
        self.groups = Canvas(self._trie.tokens, layout.hidden)
        self._model, self._sampling, self._meter = model, sampling, meter.part(FINE)
        nothing = [[0] * layout.hidden] if guided else []
        self._asked_BA = torch.tensor([asked, *nothing], device=model.refiner.device)

    def score(self, draft: Sequence[int] = ()) -> Scores:
        """See `CoarseSession.score`."""
        return self._trie.score(draft)

    def commit(self, groups: Sequence[int]) -> None:
        """See `CoarseSession.commit`."""
        self._trie.commit(groups)

    def refine(self, known_N: Sequence[int]) -> Tensor:
        """See `CoarseSession.refine`; float32 at least. Raises UserError if the model returns no numbers."""
        count = len(self.groups)
        assert len(known_N) == count, (len(known_N), count)
        refiner = self._model.refiner
        behind = [UNKNOWN] * (self._model.context - count)
        groups_L = torch.tensor([*self.groups[:], *behind], device=refiner.device)
        known_L = torch.tensor([*known_N, *behind], device=refiner.device)
        raw_NV = within(self._told(groups_L, known_L)[:count], groups_L[:count], refiner.group_V)
        known_N1 = known_L[:count, None]
        p_NV = torch.zeros_like(raw_NV).scatter_(1, known_N1.clamp_min(0), (known_N1 >= 0).to(raw_NV.dtype))
        open_M = (known_L[:count] < 0).nonzero().flatten()
        if len(open_M):
            known = [code for code in known_N if code >= 0]
            seen = [known] * len(open_M) if self._sampling.repetition_penalty != 1.0 else ()
            p_NV[open_M] = distribution(raw_NV[open_M], self._sampling, seen)
        return p_NV

    def _told(self, groups_L: Tensor, known_L: Tensor) -> Tensor:
        """Logits [L, V], by one call."""
        batch, painter = len(self._asked_BA), self._model.painter
        with self._meter.call(batch * len(groups_L)):
            raw_BLV = self._model.refiner.refined(self._asked_BA, groups_L.expand(batch, -1), known_L.expand(batch, -1))
        raw_LV = torch.lerp(raw_BLV[1], raw_BLV[0], painter.scale) if isinstance(painter, Guided) else raw_BLV[0]
        check_numbers(raw_LV, self._model.id)
        return raw_LV


class CoarseModel:
    """Loaded weights of both nets. Shared by all sessions, never written.

    Args:
        painter: of groups, a `Raster`, or one that is `Guided`. refiner: of codes. num_params: of both.
    """

    speaks: frozenset[type] = frozenset({CoarseSession})

    def __init__(
        self,
        model_id: str,
        painter: Raster | Guided,
        refiner: Refiner,
        codec: ImageCodec,
        num_params: int,
    ) -> None:
        assert isinstance(codec.tokenizer, PaletteTokenizer), "groups are of colours"
        self.id = model_id
        self.painter = painter
        self.refiner = refiner
        self.codec = codec
        self.num_params = num_params
        self.members: tuple[int, ...] = tuple(refiner.group_V.tolist())
        self.medoids = medoids(codec.tokenizer.colours_VC, self.members)
        self.layout = painter_layout(refiner.layout, len(self.medoids))
        self.context = self.layout.length

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> CoarseCanvas:
        """A session on a prompt of the image codec; a canvas that is given up to some slot is gone on with there.

        Raises UserError where cells are given behind an open one, and where more than the rest is to be painted.
        """
        assert protocol in self.speaks, protocol
        given = given_codes(prompt, self.id, self.layout.grid, room)
        return CoarseCanvas(self, prompt, given, sampling, meter, room)


def guided(model: CoarseModel, scale: float) -> CoarseModel:
    """The model with both nets under classifier-free guidance, l = l_u + s (l_c - l_u); see `guided.Guided`.

    Args:
        scale: s, from 0 (conditions left open) over 1 (the model itself, at twice the rows) to 20.

    Raises UserError for another scale, and for a model that is guided already.
    """
    check_scale(scale, model.id, isinstance(model.painter, Guided))
    painter = Guided(model.painter, model.layout.opened(), scale)
    return CoarseModel(f"{model.id}@cfg={scale:g}", painter, model.refiner, model.codec, model.num_params)


def coarse_model(model_id: str, nets: CoarseNets, dtype: torch.dtype) -> CoarseModel:
    """The model of both nets, packed in dtype."""
    codec = ImageCodec(PaletteTokenizer())
    layout = Layout.of(codec)
    painter = Raster(nets.painter.pack(dtype), painter_layout(layout, nets.num_groups))
    refiner = Refiner(nets.refiner.pack(dtype), layout, nets.group_V)
    return CoarseModel(model_id, painter, refiner, codec, nets.num_params)


def load_coarse(model_id: str, path: Path, dtype: torch.dtype, device: torch.device | str = "cpu") -> CoarseModel:
    """A model of a file of `house.coarse.save_coarse`. Raises UserError if there is no such file."""
    return coarse_model(model_id, read_coarse(path, device), dtype)
