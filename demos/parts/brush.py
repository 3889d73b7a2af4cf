"""The brush of the image tab: a picture of which some cells are painted again, as text between browser and handlers."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from backend.codecs.image import LARGEST, LONGEST_URL, UNKNOWN, URL_START, data_url
from backend.codecs.of_models import codec_of_style
from backend.codecs.styles import PIXEL
from backend.errors import UserError
from backend.types import Request
from demos.parts.films import given_canvas

FORMATS = ("PNG", "JPEG", "WEBP")
MOST = 64  # pixels a side of a picture that the brush holds


def emptied() -> str:
    """What takes the picture out of a brush; no two are the same, see `_packed`."""
    return json.dumps({"stamp": time.time_ns()})


def loaded(path: str, style: str = PIXEL) -> str:
    """An uploaded picture for the brush. Raises UserError where it is none, too large, not square or no multiple.

    style: of the painters, whose pictures have a side in pixels and a grid of cells.
    """
    codec = codec_of_style(style)
    side = codec.tokenizer.side
    try:
        with Image.open(path, formats=FORMATS) as opened:
            if max(opened.size) > LARGEST:
                found = "x".join(map(str, opened.size))
                raise UserError(f"The picture is {found} pixels; the largest that is read is {LARGEST}x{LARGEST}.")
            seen = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError("This file is no picture that can be read; give a PNG, JPEG or WebP.") from error
    width, height = seen.size
    if width != height or width % side:
        raise UserError(
            f"The picture is {width}x{height} pixels; it must be square, with a side that is a multiple of {side}, "
            f"such as {4 * side}x{4 * side}."
        )
    return _packed(_shrunk(seen, side), np.zeros(codec.grid, dtype=np.uint8))


def brushed(brush: str) -> dict[str, str]:
    """Fields of a prompt for what the brush holds: {} for nothing. Raises UserError where it cannot be read."""
    if not brush:
        return {}
    try:
        held = json.loads(brush)
        if held is None or ("picture" not in held and "stamp" in held):
            return {}
        side = int(held["side"])
        cells = int(held.get("cells", side))
        if not 1 <= side <= MOST or not 1 <= cells <= side or side % cells:
            raise ValueError
        picture = np.frombuffer(base64.b64decode(held["picture"]), np.uint8).reshape(side, side, 3)
        mask = np.frombuffer(base64.b64decode(held["mask"]), np.uint8).reshape(cells, cells)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError("The picture to paint over cannot be read; remove it and load it again.") from error
    every = side // cells
    whole = (mask != 0).repeat(every, axis=0).repeat(every, axis=1)
    return {"image": data_url(Image.fromarray(picture)), "mask": data_url(Image.fromarray(whole * np.uint8(255)))}


def brush_of(raw: Mapping[str, Any], codec: Any) -> str:
    """What the brush held for this prompt, cells as the codec's canvas has them; empty where it held nothing."""
    if not raw.get("image") or not raw.get("mask"):
        return emptied()
    canvas = np.asarray(given_canvas(codec, Request("", dict(raw))))
    if not (canvas != UNKNOWN).any():
        return emptied()
    side, mask = codec.tokenizer.side, (canvas == UNKNOWN).reshape(codec.grid)
    every = codec.sizes[0] // side
    drawn = codec.decode(canvas.tolist())[::every, ::every]
    whole = _given(raw["image"], side)
    return _packed(drawn if whole is None else whole, mask.astype(np.uint8))


def _given(image: Any, side: int) -> Any:
    """The picture [side, side, 3] of a data URL as it was given: what a learned tokenizer draws again is not the same.

    None where it is anything else; the codec has read it before, so that it is a picture that fits.
    """
    if not isinstance(image, str) or not image.startswith(URL_START) or len(image) > LONGEST_URL:
        return None
    with Image.open(io.BytesIO(base64.b64decode(image.removeprefix(URL_START))), formats=FORMATS) as opened:
        return _shrunk(opened.convert("RGBA"), side)


def _shrunk(seen: Image.Image, side: int) -> Any:
    """A square picture, laid on white, by the middle of each of its side x side blocks."""
    flat = np.asarray(Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB"))
    step = seen.size[0] // side
    return flat[step // 2 :: step, step // 2 :: step]


def _packed(picture: Any, mask: Any) -> str:
    """A picture [S, S, 3] and a mask [h, h] as text with a stamp, by which the browser tells new values from old ones.

    Gradio hands a component the value that the page began with again whenever something is unfolded.
    """
    held = {"picture": picture, "mask": mask}
    packed = {name: base64.b64encode(np.ascontiguousarray(x).tobytes()).decode() for name, x in held.items()}
    told = {"side": len(picture), "cells": len(mask), "stamp": time.time_ns(), **packed}
    return json.dumps(told, separators=(",", ":"))
