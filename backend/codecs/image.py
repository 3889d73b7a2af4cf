"""Images: a described portrait, or a part of a given picture to paint again, as a canvas of tokens, row by row."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from backend.codecs.atlas import Bools, Pixels
from backend.codecs.palette import Tokenizer
from backend.codecs.portraits import SIDE, enlarge
from backend.codecs.styles import PIXEL, STYLES
from backend.errors import UserError
from backend.protocols import Prompt

UNKNOWN = -1
NEUTRAL = 128  # the grey of cells that nobody has painted
LARGEST = 1024  # side of a picture or mask that is read
LIT = 128  # from here on a pixel of a mask counts as painted over
FIELDS = ("prompt", "image", "mask", "size")
URL_START = "data:image/png;base64,"
FORMATS = ("PNG", "JPEG", "WEBP")
LONGEST_URL = 8_000_000  # characters


class ImageCodec:
    """Prompts and pictures to a canvas of grid tokens and back.

    A prompt becomes conditions: `Prompt.extras` holds "attributes" (such as `portraits.Attributes`), "conditions" (its
    row of codes, 0 where the prompt leaves an attribute open), "canvas" (the tokens to start from, -1 where unknown),
    "ignored" (words about people that no attribute holds) and "size" (side of the decoded picture). It has no tokens.

    Args:
        tokenizer: of pictures. sizes: sides of decoded pictures that the model offers, the first by default.
        style: of the pictures, and of what prompts say about them.
    """

    modality = "image"
    end: frozenset[int] = frozenset()

    def __init__(self, tokenizer: Tokenizer, sizes: Sequence[int] = (SIDE,), style: str = PIXEL) -> None:
        self.tokenizer, self.style = tokenizer, STYLES[style]
        self.sizes = tuple(sizes)
        self.grid = tokenizer.grid
        self.length = tokenizer.grid[0] * tokenizer.grid[1]
        self.size = tokenizer.vocab_size  # V: ids from here on belong to no token
        meaning = f"{tokenizer.fingerprint} {tokenizer.grid} {dict(self.style.vocabulary)}"
        self.vocabulary = hashlib.sha256(meaning.encode()).hexdigest()[:12]

    def encode(self, raw: Any) -> Prompt:
        """Conditions of a prompt, or of {"prompt": ..., "image": ..., "mask": ..., "size": ...}.

        image, mask: pictures as PIL images, arrays [H, W] or [H, W, C], or data URLs, which alone can be saved with a
        trace; what the mask paints white is painted again.
        Raises UserError for a prompt that cannot be read, pictures that do not fit and sizes that are not offered.
        """
        asked = {"prompt": raw} if isinstance(raw, str) else raw
        if not isinstance(asked, dict) or not isinstance(asked.get("prompt"), str):
            raise UserError("An image prompt must be a string, or a mapping with a string under 'prompt'.")
        strange = [name for name in asked if name not in FIELDS]
        if strange:
            raise UserError(f"An image prompt has no field '{strange[0]}'; it has {', '.join(FIELDS)}.")
        size = asked.get("size", self.sizes[0])
        if type(size) is not int or size not in self.sizes:
            offered = ", ".join(f"{side}x{side}" for side in self.sizes)
            raise UserError(f"Pictures of size {size!r} are not offered by this model; it paints {offered}.")
        reading = self.style.read(asked["prompt"])
        return Prompt(
            extras={
                "attributes": reading.attributes,
                "conditions": reading.attributes.row(),
                "canvas": self._canvas(asked.get("image"), asked.get("mask")),
                "ignored": reading.ignored,
                "size": size,
            }
        )

    def decode(self, canvas: Sequence[int]) -> Pixels:
        """The picture [S, S, 3] of a canvas, S the first size; tokens that are -1 or missing are grey cells.

        Raises ValueError for a canvas that is too long or holds a token outside the vocabulary.
        """
        tokens = np.full(self.length, UNKNOWN, dtype=np.int64)
        if len(canvas) > self.length or any(not UNKNOWN <= token < self.size for token in canvas):
            raise ValueError(f"a canvas holds {self.length} tokens below {self.size}, not {list(canvas)[:8]} ...")
        tokens[: len(canvas)] = canvas
        known = tokens != UNKNOWN
        if not known.any():
            return np.full((self.sizes[0], self.sizes[0], 3), NEUTRAL, dtype=np.uint8)
        side = self.sizes[0]
        picture = enlarge(self.tokenizer.decode(np.where(known, tokens, tokens[known][0])), side)
        rows, columns = np.arange(side) * self.grid[0] // side, np.arange(side) * self.grid[1] // side
        shown = known.reshape(self.grid)[rows][:, columns]
        return np.where(shown[..., None], picture, np.uint8(NEUTRAL))

    def piece(self, token: int) -> str:
        """The token as a person may read it."""
        return self.tokenizer.piece(token)

    def _canvas(self, image: Any, mask: Any) -> tuple[int, ...]:
        """The tokens of a given picture, -1 where its mask paints; all -1 without one."""
        if image is None and mask is None:
            return (UNKNOWN,) * self.length
        if image is None or mask is None:
            there, missing = ("a mask", "image") if image is None else ("an image", "mask")
            raise UserError(f"The prompt comes with {there} but no {missing}; painting a part again needs both.")
        picture, painted = _picture(image, "image"), _mask(mask)
        height, width = picture.shape[:2]
        if painted.shape != (height, width):
            found = f"{painted.shape[1]}x{painted.shape[0]}"
            raise UserError(
                f"The mask is {found} pixels but the image is {width}x{height}; paint it on the image itself."
            )
        if height != width or height % self.tokenizer.side:
            raise UserError(
                f"The image is {width}x{height} pixels; it must be square, with a side that is a multiple of "
                f"{self.tokenizer.side}, such as {self.sizes[0]}x{self.sizes[0]}."
            )
        if not painted.any():
            raise UserError("The mask marks nothing; paint over the part of the image that is to be painted again.")
        step = height // self.tokenizer.side
        tokens = self.tokenizer.encode(picture[step // 2 :: step, step // 2 :: step])
        rows, columns = np.nonzero(painted)
        cells = (rows * self.grid[0] // height) * self.grid[1] + columns * self.grid[1] // width
        tokens[cells] = UNKNOWN
        return tuple(tokens.tolist())


def data_url(picture: Image.Image) -> str:
    """A picture as text, which `encode` reads."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return URL_START + base64.b64encode(stream.getvalue()).decode()


def _read_url(url: str, name: str) -> Image.Image:
    """The picture of a data URL. Raises UserError for any other text."""
    start, _, packed = url.partition(",")
    try:
        if not start.startswith("data:image/") or not start.endswith(";base64") or len(packed) > LONGEST_URL:
            raise ValueError
        picture = Image.open(io.BytesIO(base64.b64decode(packed, validate=True)), formats=FORMATS)
        _refuse_large(name, *picture.size)
        picture.load()
    except (ValueError, OSError, SyntaxError) as error:
        raise UserError(f"The {name} cannot be read; give a PNG, JPEG or WebP picture as a data URL.") from error
    return picture


def _picture(raw: Any, name: str) -> Pixels:
    """Channels [H, W, 3] of a picture; a transparent one is laid on white."""
    if isinstance(raw, str) and raw.startswith("data:"):
        raw = _read_url(raw, name)
    if isinstance(raw, Image.Image):
        _refuse_large(name, *raw.size)
        seen = raw.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB"))
    good = isinstance(raw, np.ndarray) and raw.dtype in (np.uint8, np.bool_) and raw.size > 0
    if not good or not (raw.ndim == 2 or (raw.ndim == 3 and raw.shape[2] in (1, 3, 4))):
        found = f"an array of {raw.dtype} {raw.shape}" if isinstance(raw, np.ndarray) else f"a {type(raw).__name__}"
        raise UserError(f"The {name} must be a picture, with 8 bits a channel, but {found} was given.")
    _refuse_large(name, raw.shape[1], raw.shape[0])
    flat = raw.astype(np.uint8) * (255 if raw.dtype == np.bool_ else 1)
    flat = flat[..., 0] if flat.ndim == 3 and flat.shape[2] == 1 else flat
    return _picture(Image.fromarray(flat), name)


def _mask(raw: Any) -> Bools:
    """Pixels [H, W] that a mask paints: the light ones, or, in a picture with transparency, those that are there."""
    if isinstance(raw, str) and raw.startswith("data:"):
        raw = _read_url(raw, "mask")
    if isinstance(raw, Image.Image):
        _refuse_large("mask", *raw.size)
        raw = np.asarray(raw.convert("RGBA"))
    seen = _picture(raw, "mask")  # refuses what is no picture
    if isinstance(raw, np.ndarray) and raw.shape[2:] == (4,) and (raw[..., 3] < 255).any():
        return np.asarray(raw[..., 3] >= LIT)
    return np.asarray(seen.max(axis=2) >= LIT)


def _refuse_large(name: str, width: int, height: int) -> None:
    if max(width, height) > LARGEST:
        raise UserError(f"The {name} is {width}x{height} pixels; the largest that is read is {LARGEST}x{LARGEST}.")
