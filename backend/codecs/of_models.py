"""Codecs of models that paint row by row or in any order, by model id; needs no torch.

A model's name begins with the name of its style, such as house/thumbs-masked; all others paint pixel portraits.
"""

from __future__ import annotations

from functools import cache

from backend.codecs.image import ImageCodec
from backend.codecs.palette import PaletteTokenizer, Tokenizer
from backend.codecs.styles import PIXEL, STYLES
from backend.codecs.vq import learned

SOURCE = "house/"


def style_of_model(model_id: str) -> str:
    """The style of the pictures that a model paints; variants, such as house/thumbs@cfg=3, paint the same."""
    name = model_id.partition("@")[0].removeprefix(SOURCE)
    named = (style for style in STYLES if style != PIXEL and (name == style or name.startswith(f"{style}-")))
    return next(named, PIXEL)


def codec_of_model(model_id: str) -> ImageCodec:
    """The codec of a model's canvases. Raises UserError where the tokenizer of its style is not built."""
    return codec_of_style(style_of_model(model_id))


@cache
def codec_of_style(style: str) -> ImageCodec:
    """The codec of all models of a style. Raises UserError where its tokenizer is not built."""
    tokenizer: Tokenizer = PaletteTokenizer() if style == PIXEL else learned(style)
    return ImageCodec(tokenizer, style=style)
