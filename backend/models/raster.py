"""A causal model of described pictures: sessions over the canvas alone, whose conditions stand hidden in front of it.

Strategies see a text of codes that starts at the first pixel, so that slot i is pixel i; the session underneath is the
one of every causal model, and the conditions are rows of its first call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import overload

import numpy as np
import torch
from torch import Tensor

from backend.codecs.image import UNKNOWN, ImageCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.models.guided import STRONGEST, Guidance, Guided, PairMeter, Schedule, check_scale
from backend.models.house.raster import Layout, Raster
from backend.models.house.reflected import Refined, Reflected, Reflection
from backend.models.session import Backbone, TrieSession
from backend.protocols import CausalSession, PictureSession, Prompt, Scores
from backend.types import Sampling

BORDER = 0  # the code that an empty canvas shows


class Canvas(Sequence[int]):
    """The codes of a growing canvas, a view of a list behind its first `hidden` tokens.

    Causal strategies start guessing from the text so far, and prompts of texts are never empty. A canvas is, and shows
    them its border then: its length is 0, but `canvas[-1]` is BORDER, and so is what one gets by iterating.
    """

    def __init__(self, whole: list[int], hidden: int) -> None:
        self._whole, self._hidden = whole, hidden

    def __len__(self) -> int:
        return len(self._whole) - self._hidden

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> list[int]: ...

    def __getitem__(self, at: int | slice) -> int | list[int]:
        if isinstance(at, slice):
            return self._whole[self._hidden :][at]
        if at == -1 and not len(self):
            return BORDER
        if not -len(self) <= at < len(self):
            raise IndexError(f"slot {at} of {len(self)}")
        return self._whole[at if at < 0 else self._hidden + at]

    def __iter__(self) -> Iterator[int]:
        return iter(self._whole[self._hidden :] if len(self) else [BORDER])


class HiddenTrie(TrieSession):
    """A session of a text whose first tokens are no part of it for the repetition penalty."""

    hidden = 0

    def _seen(self, slots: Sequence[int]) -> list[list[int]]:
        return [tokens[self.hidden :] for tokens in super()._seen(slots)]


class CanvasSession:
    """A `PictureSession` over a canvas."""

    def __init__(self, trie: TrieSession, hidden: int, model: RasterModel) -> None:
        self._trie = trie
        self._model = model
        self.tokens = Canvas(trie.tokens, hidden)
        self.grid = model.layout.grid

    def score(self, draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> Scores:
        """See `CausalSession.score`."""
        return self._trie.score(draft, parents)

    def commit(self, tokens: Sequence[int]) -> None:
        """See `CausalSession.commit`."""
        self._trie.commit(tokens)

    def neighbours(self, token: int) -> tuple[Tensor, Tensor]:
        """See `PictureSession.neighbours`."""
        codes_VN, far_VN = self._model.likeness
        return codes_VN[token], far_VN[token]


class RasterModel:
    """Loaded weights of a raster model. Shared by all sessions, never written.

    Args:
        backbone: a `Raster`, a twin of one that runs some of its layers, or one of both that is `Guided`.
    """

    speaks: frozenset[type] = frozenset({CausalSession, PictureSession})

    def __init__(self, model_id: str, backbone: Backbone, codec: ImageCodec, num_params: int) -> None:
        self.id = model_id
        self.backbone = backbone
        self.codec = codec
        self.num_params = num_params
        self.layout = Layout.of(codec)
        self.context = self.layout.length

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> CanvasSession:
        """A session on a prompt of the image codec; a canvas that is given up to some slot is gone on with there.

        Raises UserError where cells are given behind an open one, and where more than the rest is to be painted.
        """
        assert protocol in self.speaks, protocol
        given = given_codes(prompt, self.id, self.layout.grid, room)
        tokens = [*self.layout.rows(prompt.extras["conditions"]), *given]
        counted = PairMeter(meter) if isinstance(self.backbone, Guided | Refined) else meter
        trie = HiddenTrie(self.backbone, self.id, self.layout.num_codes, tokens, sampling, counted, room)
        trie.hidden = self.layout.hidden
        return CanvasSession(trie, trie.hidden, self)

    @cached_property
    def likeness(self) -> tuple[Tensor, Tensor]:
        """By code, the others in the order of their distance, and the distances, [V, V - 1] each.

        Codes are compared by the pixels of a canvas that is full of one; two are 1 apart that differ the most.
        """
        full = np.repeat(np.arange(self.codec.size)[:, None], self.codec.length, axis=1)
        pixels_VD = torch.from_numpy(self.codec.tokenizer.decode(full)).flatten(1).double()
        far_VV = torch.cdist(pixels_VD, pixels_VD, compute_mode="donot_use_mm_for_euclid_dist")
        far_VV = (far_VV / far_VV.max()).fill_diagonal_(-1.0)  # a code comes before the others in its own row
        far_VV, codes_VV = far_VV.sort(dim=1, stable=True)
        return codes_VV[:, 1:], far_VV[:, 1:]


def given_codes(prompt: Prompt, model_id: str, grid: tuple[int, int], room: int) -> list[int]:
    """The codes of a prompt's canvas in front of its first open cell, for a model that paints row by row.

    Raises UserError where cells are given behind an open one, and where more than the rest is to be painted.
    """
    canvas, cells = prompt.extras.get("canvas", ()), grid[0] * grid[1]
    first = next((slot for slot, token in enumerate(canvas) if token == UNKNOWN), len(canvas))
    behind = sum(token != UNKNOWN for token in canvas[first:])
    if behind:
        row, column = divmod(first, grid[1])
        raise UserError(
            f"{model_id} paints row by row and keeps only what lies before the first open cell, which is in row "
            f"{row + 1}, column {column + 1}, but {behind} cells behind it are to be kept; "
            "mask everything from there on, or pick a model that fills cells in any order."
        )
    if room > cells - first:
        raise UserError(
            f"{cells - first} of the {cells} cells are to be painted, but the budget is {room}; "
            f"ask for {cells - first} tokens or fewer."
        )
    return list(canvas[:first])


def guided(model: RasterModel, scale: float, schedule: Schedule | None = None) -> RasterModel:
    """The model under classifier-free guidance, l = l_u + s (l_c - l_u); see `guided.Guided`.

    Args:
        scale: S, from 0 (conditions left open) over 1 (the model itself, at twice the rows) to 20.
        schedule: how s gets there from the first cell to the last; "constant", S all over, by default.

    Raises UserError for another scale, and for a model that is guided already.
    """
    check_scale(scale, model.id, isinstance(model.backbone, Guided | Reflected | Refined))
    named = f"-{schedule}" if schedule else ""
    backbone = Guided(model.backbone, model.layout.opened(), scale, by_position(model.layout, scale, schedule))
    return RasterModel(f"{model.id}@cfg={scale:g}{named}", backbone, model.codec, model.num_params)


def by_position(layout: Layout, scale: float, schedule: Schedule | None) -> Tensor | None:
    """The scale s by the position of the row that says the next cell, [T] float64; None where it is S all over."""
    if schedule is None or schedule == "constant":
        return None
    guidance, last = Guidance(scale, schedule), layout.length - 1
    slots = (at + 1 - layout.hidden for at in range(layout.context))
    return torch.tensor([guidance.at(min(max(slot, 0), last) / last) for slot in slots], dtype=torch.float64)


def reflected(model: RasterModel, reflection: Reflection, model_id: str) -> RasterModel:
    """The model with a net that stands for its guidance: one sequence, logits as if guided; see `reflected`."""
    assert isinstance(model.backbone, Raster)
    num_params = model.num_params + sum(weight.numel() for weight in reflection.parameters())
    return RasterModel(model_id, Reflected(model.backbone, reflection), model.codec, num_params)


def refined(model: RasterModel, omega: float) -> RasterModel:
    """A model of `reflected` beside true guidance, l = l_g + omega (l_guided - l_g), at twice the rows.

    Args:
        omega: from 0 (the net alone) over 1 (guidance itself) to 20.

    Raises UserError for another strength, and for a model that has no such net.
    """
    if not math.isfinite(omega) or not 0 <= omega <= STRONGEST:
        raise UserError(f"Refinement must lie between 0 and {STRONGEST:g}, but {omega:g} was asked for.")
    weak = model.backbone
    if not isinstance(weak, Reflected):
        raise UserError(
            f"{model.id} has no net that stands for guidance, which refining starts from; "
            "refine one that has, such as house/portraits-weak@refine=1.5."
        )
    whole = Guided(weak.raster, model.layout.opened(), weak.reflection.scale)
    return RasterModel(f"{model.id}@refine={omega:g}", Refined(whole, weak, omega), model.codec, model.num_params)
