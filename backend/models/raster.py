"""A causal model of described pictures: sessions over the canvas alone, whose conditions stand hidden in front of it.

Strategies see a text of codes that starts at the first pixel, so that slot i is pixel i; the session underneath is the
one of every causal model, and the conditions are rows of its first call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import overload

from backend.codecs.image import UNKNOWN, ImageCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.models.guided import Guided, PairMeter
from backend.models.house.raster import Layout
from backend.models.session import Backbone, TrieSession
from backend.protocols import CausalSession, Prompt, Scores
from backend.types import Sampling

BORDER = 0  # the code that an empty canvas shows
STRONGEST = 20.0  # guidance


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


class _Behind(TrieSession):
    """A session of a text whose first tokens are no part of it for the repetition penalty."""

    hidden = 0

    def _seen(self, slots: Sequence[int]) -> list[list[int]]:
        return [tokens[self.hidden :] for tokens in super()._seen(slots)]


class CanvasSession:
    """A `CausalSession` over a canvas."""

    def __init__(self, trie: TrieSession, hidden: int) -> None:
        self._trie = trie
        self.tokens = Canvas(trie.tokens, hidden)

    def score(self, draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> Scores:
        """See `CausalSession.score`."""
        return self._trie.score(draft, parents)

    def commit(self, tokens: Sequence[int]) -> None:
        """See `CausalSession.commit`."""
        self._trie.commit(tokens)


class RasterModel:
    """Loaded weights of a raster model. Shared by all sessions, never written.

    Args:
        backbone: a `Raster`, a twin of one that runs some of its layers, or one of both that is `Guided`.
    """

    speaks: frozenset[type] = frozenset({CausalSession})

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
        given = self._given(prompt.extras.get("canvas", ()))
        left = self.context - len(given)
        if room > left:
            raise UserError(
                f"{left} of the {self.context} cells are to be painted, but the budget is {room}; "
                f"ask for {left} tokens or fewer."
            )
        tokens = [*self.layout.rows(prompt.extras["conditions"]), *given]
        counted = PairMeter(meter) if isinstance(self.backbone, Guided) else meter
        trie = _Behind(self.backbone, self.id, self.layout.num_codes, tokens, sampling, counted, room)
        trie.hidden = self.layout.hidden
        return CanvasSession(trie, trie.hidden)

    def _given(self, canvas: Sequence[int]) -> list[int]:
        """The codes in front of the first open cell."""
        first = next((slot for slot, token in enumerate(canvas) if token == UNKNOWN), len(canvas))
        behind = sum(token != UNKNOWN for token in canvas[first:])
        if behind:
            row, column = divmod(first, self.layout.grid[1])
            raise UserError(
                f"{self.id} paints row by row and keeps only what lies before the first open cell, which is in row "
                f"{row + 1}, column {column + 1}, but {behind} cells behind it are to be kept; "
                "mask everything from there on, or pick a model that fills cells in any order."
            )
        return list(canvas[:first])


def guided(model: RasterModel, scale: float) -> RasterModel:
    """The model under classifier-free guidance, l = l_u + s (l_c - l_u); see `guided.Guided`.

    Args:
        scale: s, from 0 (conditions left open) over 1 (the model itself, at twice the rows) to 20.

    Raises UserError for another scale, and for a model that is guided already.
    """
    if not math.isfinite(scale) or not 0 <= scale <= STRONGEST:
        raise UserError(f"Guidance must lie between 0 and {STRONGEST:g}, with 1 for none, but {scale:g} was asked for.")
    if isinstance(model.backbone, Guided):
        raise UserError(f"{model.id} is guided already; name one scale, such as {model.id.partition('@')[0]}@cfg=3.")
    backbone = Guided(model.backbone, model.layout.opened(), scale)
    return RasterModel(f"{model.id}@cfg={scale:g}", backbone, model.codec, model.num_params)
