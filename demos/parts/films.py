"""Pictures of a trace, step by step, from the trace alone: decoded by the codec, without a model.

A film gives what the browser needs to draw any moment: the first picture, then for every step only the pixels that
changed, in a few bytes.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from backend.codecs.image import NEUTRAL, UNKNOWN
from backend.codecs.of_models import codec_of_model, style_of_model
from backend.codecs.pyramid import Kind, shipped
from backend.codecs.scales import ScaleCodec
from backend.codecs.styles import PIXEL
from backend.codecs.vq import LearnedTokenizer
from backend.entries import SCALES, card, entries
from backend.errors import UserError
from backend.protocols import CoarseSession, DistilledSession, FlexibleSession, MaskedSession, ScaleSession
from backend.registry import strategies
from backend.trace import Trace
from backend.types import Request, Step

REACH = 2  # cells around a code of a learned tokenizer that change how it looks
RECORD = 5  # bytes of a changed pixel: its number in two, low byte first, then red, green and blue
Filmer = Callable[[Trace], Any]  # a `Film`, or a fan of `demos.parts.fans`


class Film:
    """The pictures of one growing trace.

    A film has a unit, a head that is sent once, a count of units, and a frame for every step.

    Args:
        trace: only its request is read here. codec: of the target's canvas; it also knows what the prompt gave.
    """

    unit = "cell"

    def __init__(self, trace: Trace, codec: Any) -> None:
        self._codec = codec
        tokenizer = tokenizer_of(codec)
        given = given_canvas(codec, trace.request)
        self._canvas = [UNKNOWN] * codec.length
        if len(given) == codec.length:
            self._canvas = list(given)
        self._cells: int = math.prod(tokenizer.grid)
        self._given: int = sum(token != UNKNOWN for token in given)
        self._maps: list[tuple[int, int]] = []  # of a model of scales: height and width of each so far
        found = strategies().get(trace.request.strategy)
        self._in_one = found is not None and found.base is DistilledSession  # steps name no map, but fill several
        self._shown = np.full((tokenizer.side, tokenizer.side, 3), NEUTRAL, dtype=np.uint8)
        self.head: dict[str, Any] = {
            "grid": list(tokenizer.grid),
            "side": tokenizer.side,
            "start": self._change(),
            "given": [slot for slot, token in enumerate(given) if token != UNKNOWN],
            "inks": inks_of(codec),
        }

    @property
    def units(self) -> int:
        """Cells that were painted; of a model of scales, those known of the finest map, less a share for given ones."""
        if self._maps:
            ends = [0, *accumulate(height * width for height, width in self._maps)]
            known = max(sum(token != UNKNOWN for token in self._canvas[a:b]) for a, b in pairwise(ends))
            return round(known * (1 - self._given / self._cells))
        return sum(token != UNKNOWN for token in self._canvas) - self._given

    def frame(self, step: Step) -> str:
        """Take a step and say what it changed in the picture: "" for nothing, else see `pack`. Raises UserError."""
        self.take(step)
        return self._change()

    def take(self, step: Step) -> None:
        """Take a step. Raises UserError where it paints outside of the canvas."""
        self._lay_out(step.figures)
        for mark in step.marks:
            if mark.slot >= len(self._canvas):
                raise UserError(f"This trace paints cell {mark.slot + 1} of a canvas that has {len(self._canvas)}.")
            if mark.fate.commits and mark.token is not None:
                self._canvas[mark.slot] = mark.token
            elif mark.fate.value == "erased":
                self._canvas[mark.slot] = UNKNOWN
        if self._in_one:
            self._maps = self._whole_maps()

    def _whole_maps(self) -> list[tuple[int, int]]:
        """The maps of which every cell is known, up to the first that is not whole."""
        sizes = list(self._codec.pyramid.sizes)
        ends = [0, *accumulate(height * width for height, width in sizes)]
        whole = [UNKNOWN not in self._canvas[a:b] for a, b in pairwise(ends)]
        return sizes[: [*whole, False].index(False)]

    @property
    def picture(self) -> Any:
        """The picture [S, S, 3] now, without enlargement. Raises UserError for tokens that the codec does not know."""
        if any(token >= self._codec.size for token in self._canvas):
            raise UserError("This trace holds tokens that are not of its model's pictures.")
        if hasattr(self._codec, "pyramid"):
            return self._sum()
        picture = np.asarray(self._codec.decode(self._canvas))
        every = picture.shape[0] // self._codec.tokenizer.side
        return np.ascontiguousarray(picture[::every, ::every])

    def _sum(self) -> Any:
        """The picture behind the maps so far, of a model that may have left some out."""
        pyramid = self._codec.pyramid
        if not self._maps:
            return np.full_like(self._shown, NEUTRAL)
        if self._maps != list(pyramid.sizes[: len(self._maps)]):
            pyramid = pyramid.only(list(dict.fromkeys((*self._maps, pyramid.sizes[-1]))))
        return pyramid.decode(np.asarray(self._canvas[: pyramid.length]))

    def _lay_out(self, figures: Mapping[str, float]) -> None:
        """Note the map that a step of a model of scales writes."""
        if figures.get("scale", 0) <= len(self._maps) or not hasattr(self._codec, "pyramid"):
            return
        pyramid, size = self._codec.pyramid, (figures.get("height"), figures.get("width"))
        finer = pyramid.sizes[pyramid.sizes.index(self._maps[-1]) + 1 if self._maps else 0 :]
        offered = finer if pyramid.kind == "flat" else finer[:1]
        if size not in offered:
            raise UserError("This trace holds a map that is not of its model's pictures.")
        self._maps.append(offered[offered.index(size)])

    def _change(self) -> str:
        native = self.picture
        change = pack(self._shown, native)
        self._shown = native
        return change


def pack(before: Any, after: Any) -> str:
    """How a picture [S, S, 3] changed: "" if it did not, "d" and records of its changed pixels, or "f" and all of it.

    Both in base64; a record is described at RECORD.
    """
    changed = np.flatnonzero((before != after).any(axis=2))
    if not len(changed):
        return ""
    if RECORD * len(changed) >= after.size:
        return "f" + base64.b64encode(after.tobytes()).decode()
    records = np.empty((len(changed), RECORD), dtype=np.uint8)
    records[:, 0], records[:, 1] = changed & 255, changed >> 8
    records[:, 2:] = after.reshape(-1, 3)[changed]
    return "d" + base64.b64encode(records.tobytes()).decode()


def given_canvas(codec: Any, request: Request) -> tuple[int, ...]:
    """The cells that the prompt gives, -1 where it leaves them open; all open where it cannot be read."""
    try:
        canvas = codec.encode(request.prompt).extras.get("canvas", ())
    except UserError:
        canvas = ()
    return tuple(canvas) or (UNKNOWN,) * codec.length


def tokenizer_of(codec: Any) -> Any:
    """What tells the size of a codec's pictures: its tokenizer, or the palette of its pyramid."""
    return codec.pyramid.palette if hasattr(codec, "pyramid") else codec.tokenizer


def film(trace: Trace) -> Film:
    """The film of a trace of our own models."""
    return Film(trace, codec_of(trace.request))


def developed(trace: Trace, filmer: Filmer = film) -> Any:
    """The film of a trace after its last step."""
    made = filmer(trace)
    for step in trace.steps:
        made.take(step)
    return made


def is_picture(trace: Trace) -> bool:
    """Whether a trace paints: its target is a model of pictures, or of a kind that only pictures have."""
    target = trace.request.models.get("target", "").partition("@")[0]
    found = strategies().get(trace.request.strategy)
    painters = {entry.id for entry in entries() if entry.modality == "image"}
    kinds = (MaskedSession, ScaleSession, CoarseSession, DistilledSession)
    named = target in painters or style_of_model(target) != PIXEL
    return named or (found is not None and found.base in kinds)


def codec_of(request: Request) -> Any:
    """The codec of our models for the kind and the style of target that a request paints with. Raises UserError."""
    found, target = strategies().get(request.strategy), request.models.get("target", "")
    if found is None or found.base not in (ScaleSession, DistilledSession):
        return codec_of_model(target)
    usual = "flat" if found.protocol is FlexibleSession else "area"
    ours = target.partition("@")[0] if target.partition("@")[0] in SCALES else ""  # a file may name anything
    return scale_codec(card(ours).get("kind_of_maps", usual) if ours else usual)


@cache
def scale_codec(kind: Kind) -> ScaleCodec:
    """Of painters of maps."""
    return ScaleCodec(shipped(kind))


@cache
def inks_of(codec: Any) -> str:
    """By code of a learned tokenizer, its mean colour among its like, as rrggbb one behind the other.

    "" where a token's name is its colour already. Only cells two steps away matter, so that nine codes fit a picture.
    """
    tokenizer = tokenizer_of(codec)
    if not isinstance(tokenizer, LearnedTokenizer):
        return ""
    (height, width), reach = tokenizer.grid, 2 * REACH + 1
    rows, columns = height // reach, width // reach
    codes = np.arange(-(-tokenizer.vocab_size // (rows * columns)) * rows * columns) % tokenizer.vocab_size
    blocks = codes.reshape(-1, rows, columns).repeat(reach, axis=1).repeat(reach, axis=2)
    canvases = np.pad(blocks, ((0, 0), (0, height - rows * reach), (0, width - columns * reach)))
    pixels = tokenizer.decode(canvases.reshape(len(canvases), -1))
    every = tokenizer.side // height
    cells = pixels.reshape(len(pixels), height, every, width, every, 3).mean(axis=(2, 4))
    middles = cells[:, REACH : rows * reach : reach, REACH : columns * reach : reach].reshape(-1, 3)
    return bytes(np.rint(middles[: tokenizer.vocab_size]).astype(np.uint8)).hex()
