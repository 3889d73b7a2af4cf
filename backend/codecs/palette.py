"""Tokenizers of pictures: what the image codec asks of one, and one that needs no training, a palette of colours."""

from __future__ import annotations

import hashlib
import json
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.codecs.atlas import FOLDER, Ints, Pixels, rgb


class Tokenizer(Protocol):
    """Pictures of one size to a grid of tokens and back. Shape letters: h, w the grid, S the side in pixels."""

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the token grid; a canvas holds its h * w tokens row by row."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of codes; tokens lie below it."""
        ...

    @property
    def side(self) -> int:
        """S: pictures are [S, S, 3], 8 bits a channel."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal if and only if two tokenizers give every token the same meaning."""
        ...

    def encode(self, pixels: Pixels) -> Ints:
        """Tokens [..., h * w] of pictures [..., S, S, 3]."""
        ...

    def decode(self, tokens: Ints) -> Pixels:
        """Pictures [..., S, S, 3] of tokens [..., h * w], all of them known."""
        ...

    def piece(self, token: int) -> str:
        """One token as a person may read it."""
        ...


class PaletteTokenizer:
    """One token a pixel of the native 16x16 grid: the nearest colour of a palette.

    Args:
        colours_VC: the palette [V, 3]; without it, the shipped one, made of the colours that portraits have
            (`assets/portraits/palette.json`, built and measured by `python -m backend.train.portraits.palette`).
    """

    grid = (16, 16)
    side = 16

    def __init__(self, colours_VC: NDArray[np.uint8] | None = None) -> None:
        self.colours_VC = _shipped() if colours_VC is None else colours_VC
        self.vocab_size = len(self.colours_VC)
        self.fingerprint = hashlib.sha256(self.colours_VC.tobytes()).hexdigest()[:12]

    def encode(self, pixels: Pixels) -> Ints:
        """Tokens [..., 256] of pictures [..., 16, 16, 3]; of colours equally near, the first."""
        assert pixels.shape[-3:] == (self.side, self.side, 3), f"pictures of {pixels.shape[-3:]}"
        flat = pixels.reshape(-1, 3).astype(np.int64)
        packed, inverse = np.unique(flat @ np.asarray([65536, 256, 1]), return_inverse=True)
        channels = np.stack([packed >> 16, (packed >> 8) & 255, packed & 255], axis=1)
        far = ((channels[:, None] - self.colours_VC[None].astype(np.int64)) ** 2).sum(axis=2)
        nearest: Ints = far.argmin(axis=1)[inverse]
        return nearest.reshape(*pixels.shape[:-3], self.side * self.side)

    def decode(self, tokens: Ints) -> Pixels:
        """Pictures [..., 16, 16, 3]: the colours of the tokens."""
        colours: Pixels = self.colours_VC[tokens]
        return colours.reshape(*np.shape(tokens)[:-1], self.side, self.side, 3)

    def piece(self, token: int) -> str:
        """The colour as #rrggbb."""
        return f"#{self.colours_VC[token].tobytes().hex()}"


def _shipped() -> NDArray[np.uint8]:
    read = json.loads((FOLDER / "palette.json").read_text(encoding="utf-8"))
    return np.asarray([rgb(colour) for colour in read["colours"]], dtype=np.uint8)
