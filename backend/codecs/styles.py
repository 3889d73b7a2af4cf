"""Styles of portraits: what can be said of a picture, how a prompt is read, and how large it is.

Letters: A attributes, B pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backend.codecs import portraits, thumbs
from backend.codecs.caption_words import PIXEL_WORDS
from backend.codecs.captions import Reading, read
from backend.codecs.thumb_words import THUMB_WORDS


@dataclass(frozen=True)
class Style:
    """What differs between styles of pictures.

    Args:
        vocabulary: values by attribute. read: a prompt's attributes; raises UserError. held_out: whether training never
            saw these attributes together. side: of a picture before it is enlarged. title: for menus. package: of
            @dicebear, "" where node is not needed to draw. draw_rows, options: of a style that node draws.
    """

    vocabulary: Mapping[str, tuple[str, ...]]
    read: Callable[[str], Reading]
    held_out: Callable[[Any], bool]
    side: int
    title: str
    package: str = ""
    draw_rows: Callable[..., Any] = portraits.draw_rows
    options: Callable[..., dict[str, Any]] = thumbs.options

    @property
    def choices(self) -> tuple[int, ...]:
        """By attribute, how many codes it has, "any" included."""
        return tuple(len(values) + 1 for values in self.vocabulary.values())


PIXEL, THUMBS = "pixel", "thumbs"
STYLES: Mapping[str, Style] = {
    PIXEL: Style(
        portraits.VOCABULARY, lambda prompt: read(prompt, PIXEL_WORDS), portraits.held_out, 16, "Pixel portraits"
    ),
    THUMBS: Style(
        thumbs.VOCABULARY,
        lambda prompt: read(prompt, THUMB_WORDS),
        thumbs.held_out,
        thumbs.SIDE,
        "Thumbs",
        "thumbs",
        thumbs.draw_rows,
        thumbs.options,
    ),
}
