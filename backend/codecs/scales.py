"""Images as maps of tokens, coarse to fine: prompts of the image codec, canvases of a pyramid, pictures on the way.

A canvas is all maps one behind the other, each row by row. What is still unknown is as the coarser maps have it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from backend.codecs.atlas import Pixels
from backend.codecs.image import NEUTRAL, ImageCodec
from backend.codecs.portraits import SIDE, VOCABULARY, enlarge
from backend.codecs.pyramid import UNKNOWN, Pyramid
from backend.protocols import Prompt
from backend.unmasking import spread


class ScaleCodec:
    """Prompts and pictures to a canvas of maps and back.

    Args:
        pyramid: of the maps. sizes: sides of decoded pictures that the model offers, the first by default.
    """

    modality = "image"
    end: frozenset[int] = frozenset()

    def __init__(self, pyramid: Pyramid, sizes: Sequence[int] = (SIDE,)) -> None:
        self.pyramid = pyramid
        self.image = ImageCodec(pyramid.palette, sizes)
        self.sizes = self.image.sizes
        self.length = pyramid.length
        self.size = pyramid.vocab_size  # V: ids from here on belong to no token
        meaning = f"{pyramid.fingerprint} {dict(VOCABULARY)}"
        self.vocabulary = hashlib.sha256(meaning.encode()).hexdigest()[:12]

    def encode(self, raw: Any) -> Prompt:
        """See `ImageCodec.encode`: "canvas" holds the colours of a given picture's 16x16 cells, -1 where it is open.

        Sessions find the tokens of its maps, which depend on what was painted into the coarser ones.
        """
        return self.image.encode(raw)

    def decode(self, canvas: Sequence[int]) -> Pixels:
        """The picture [S, S, 3] behind the maps so far, S the first size; grey where there is none.

        Raises ValueError for a canvas that is too long or holds a token outside the vocabulary.
        """
        if len(canvas) > self.length or any(not UNKNOWN <= token < self.size for token in canvas):
            raise ValueError(f"a canvas holds {self.length} tokens below {self.size}, not {list(canvas)[:8]} ...")
        side = self.sizes[0]
        if all(token == UNKNOWN for token in canvas):
            return np.full((side, side, 3), NEUTRAL, dtype=np.uint8)
        pyramid = self.planned(len(canvas))
        tokens = np.full(pyramid.length, UNKNOWN, dtype=np.int64)
        tokens[: len(canvas)] = canvas
        return enlarge(pyramid.decode(tokens), side)

    def film(self, canvas: Sequence[int]) -> list[Pixels]:
        """The pictures [S, S, 3] behind every map that has a token on the canvas."""
        starts = self.planned(len(canvas)).starts
        ends = [end for start, end in pairwise(starts) if start < len(canvas) and end]
        return [self.decode(canvas[:end]) for end in ends]

    def planned(self, length: int) -> Pyramid:
        """The maps that a canvas so far written is of: all, or, where maps may be left out, those that end there."""
        if self.pyramid.kind != "flat" or length in self.pyramid.starts:
            return self.pyramid
        for count in range(len(self.pyramid.sizes) - 1, 0, -1):
            fewer = self.pyramid.only(spread(self.pyramid.sizes, count))
            if length in fewer.starts:
                return fewer
        return self.pyramid

    def piece(self, token: int) -> str:
        """The token as a person may read it: a colour of a map that tells colours, else a code."""
        colour = self.pyramid.palette.piece(token)
        return colour if self.pyramid.kind == "flat" else f"code {token}, in the last map {colour}"
