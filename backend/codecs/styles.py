"""Styles of portraits: what can be said of a picture, how a prompt is read, and how large it is.

Letters: A attributes, B pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backend.codecs import lorelei, notionists, peeps, portraits, thumbs
from backend.codecs.caption_words import PIXEL_WORDS, Lexicon
from backend.codecs.captions import Reading, read
from backend.codecs.drawing_words import LORELEI_WORDS, NOTIONIST_WORDS, PEEP_WORDS
from backend.codecs.drawings import SIDE, Kind
from backend.codecs.thumb_words import THUMB_WORDS


@dataclass(frozen=True)
class Style:
    """What differs between styles of pictures.

    Args:
        vocabulary: values by attribute. read: a prompt's attributes; raises UserError. held_out: whether training never
            saw these attributes together. side: of a picture before it is enlarged. title: for menus. package: of
            @dicebear, "" where node is not needed to draw. draw_rows, options: of a style that node draws. author: of
            the style, which is under CC0 1.0. mirrored: rows [B, A] as of mirrored pictures and which of these can be
            drawn, where any can.
    """

    vocabulary: Mapping[str, tuple[str, ...]]
    read: Callable[[str], Reading]
    held_out: Callable[[Any], bool]
    side: int
    title: str
    package: str = ""
    draw_rows: Callable[..., Any] = portraits.draw_rows
    options: Callable[..., dict[str, Any]] = thumbs.options
    author: str = "DiceBear"
    mirrored: Callable[..., Any] | None = None

    @property
    def choices(self) -> tuple[int, ...]:
        """By attribute, how many codes it has, "any" included."""
        return tuple(len(values) + 1 for values in self.vocabulary.values())


def _drawn(kind: Kind, words: Lexicon, title: str, options: Callable[..., dict[str, Any]], author: str) -> Style:
    """A style of drawn people."""
    package = kind.vocabulary["style"][0]
    return Style(
        kind.vocabulary,
        lambda prompt: read(prompt, words),
        kind.is_held_out,
        SIDE,
        title,
        package,
        kind.draw_rows,
        options,
        author,
        kind.mirrored,
    )


PIXEL, THUMBS, LORELEI, NOTIONISTS, PEEPS = "pixel", "thumbs", "lorelei", "notionists", "open-peeps"
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
        mirrored=thumbs.mirrored,
    ),
    LORELEI: _drawn(lorelei.KIND, LORELEI_WORDS, "Lorelei", lorelei.options, "Lisa Wischofsky"),
    NOTIONISTS: _drawn(notionists.KIND, NOTIONIST_WORDS, "Notionists", notionists.options, "Zoish"),
    PEEPS: _drawn(peeps.KIND, PEEP_WORDS, "Open Peeps", peeps.options, "Pablo Stanley"),
}
