"""A learned tokenizer of pictures: 4x4 pixels a token, read and drawn by small convolutional nets over the token grid.

A vector-quantised autoencoder (van den Oord et al. 2017, 1711.00937; codes as a learned linear map of fixed random
ones, SimVQ, Zhu et al. 2024, 2411.02038). Every net works at the resolution of the grid: pixels of a cell are channels,
so that a whole picture is four small matrix products and needs no torch. How a code looks depends on the codes around
it, two cells far: edges are told once for all colours. Trained by `python -m backend.train.portraits.vq`.

Letters: B pictures, h, w the grid, P = 48 numbers of a cell, C channels, V codes, D numbers of a code.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.codecs.atlas import FOLDER, Ints, Pixels
from backend.errors import UserError

CELL = 4  # pixels a side
Floats = NDArray[np.float32]


def in_cells(pixels_BHWC: Pixels) -> Floats:
    """Pictures [B, H, W, 3] as numbers from -1 to 1 by cell: [B, h, w, P]."""
    batch, height, width, _ = pixels_BHWC.shape
    cells = pixels_BHWC.reshape(batch, height // CELL, CELL, width // CELL, CELL, 3).transpose(0, 1, 3, 2, 4, 5)
    scaled: Floats = cells.reshape(batch, height // CELL, width // CELL, -1).astype(np.float32) / np.float32(127.5) - 1
    return scaled


def in_pixels(cells_BhwP: Floats) -> Pixels:
    """The inverse of `in_cells`, rounded and cut to what a channel can be."""
    batch, height, width, _ = cells_BhwP.shape
    parts = cells_BhwP.reshape(batch, height, width, CELL, CELL, 3).transpose(0, 1, 3, 2, 4, 5)
    whole = parts.reshape(batch, height * CELL, width * CELL, 3)
    pixels: Pixels = np.rint((whole + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return pixels


def gelu(x: Floats) -> Floats:
    """Hendrycks and Gimpel 2016 (1606.08415), by the tanh that torch calls approximate."""
    bent: Floats = 0.5 * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)))
    return bent


def neighbours(x_BhwC: Floats) -> Floats:
    """Each cell beside its eight neighbours, 0 beyond the border: [B, h, w, 9 C], row by row."""
    height, width = x_BhwC.shape[1:3]
    padded = np.pad(x_BhwC, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.concatenate([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=-1)


class LearnedTokenizer:
    """Tokens of a trained file of `vq.save`; a `palette.Tokenizer`.

    Args:
        path: a file of weights: for each net three matrices, [in, out], rounded to bytes with a step a column.

    Raises UserError if there is no such file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"There is no {path.name}; build it with: python -m backend.train.portraits.vq")
        with np.load(path) as read:
            stored = {name: read[name] for name in read.files}
        self.fingerprint = hashlib.sha256(b"".join(stored[name].tobytes() for name in sorted(stored))).hexdigest()[:12]
        self._w = {name: _weight(stored, name) for name in stored if not name.endswith(".step")}
        self.codes_VD: Floats = self._w["codes"]
        self.vocab_size = len(self.codes_VD)
        side = int(stored["side"])
        self.side, self.grid = side, (side // CELL, side // CELL)

    def encode(self, pixels: Pixels) -> Ints:
        """Tokens [..., h * w] of pictures [..., S, S, 3]."""
        assert pixels.shape[-3:] == (self.side, self.side, 3), f"pictures of {pixels.shape[-3:]}"
        z_BhwD = self._net("encoder", in_cells(pixels.reshape(-1, *pixels.shape[-3:])))
        far = (self.codes_VD**2).sum(1) - 2 * z_BhwD.reshape(-1, z_BhwD.shape[-1]) @ self.codes_VD.T
        nearest: Ints = far.argmin(axis=1).astype(np.int64).reshape(*pixels.shape[:-3], -1)
        return nearest

    def decode(self, tokens: Ints) -> Pixels:
        """Pictures [..., S, S, 3] of tokens [..., h * w]."""
        flat = np.asarray(tokens).reshape(-1, *self.grid)
        pixels = in_pixels(self._net("decoder", self.codes_VD[flat]))
        return pixels.reshape(*np.shape(tokens)[:-1], self.side, self.side, 3)

    def piece(self, token: int) -> str:
        """The code's number; what it looks like depends on its neighbours."""
        return f"code {token}"

    def _net(self, name: str, x_BhwC: Floats) -> Floats:
        """Two convolutions of three cells, the second added to what it reads, and a linear map."""
        first, second, last = (self._w[f"{name}.{part}"] for part in ("first", "second", "last"))
        x_BhwC = gelu(neighbours(x_BhwC) @ first + self._w[f"{name}.first_bias"])
        x_BhwC = x_BhwC + gelu(neighbours(x_BhwC) @ second + self._w[f"{name}.second_bias"])
        out: Floats = x_BhwC @ last + self._w[f"{name}.last_bias"]
        return out


def _weight(stored: dict[str, NDArray[np.generic]], name: str) -> Floats:
    whole = stored[name].astype(np.float32)
    step = stored.get(f"{name}.step")
    return whole if step is None else whole * step.astype(np.float32)


def file_of(style: str, folder: Path = FOLDER) -> Path:
    """Where the weights of a style's tokenizer are."""
    return folder / f"{style}-vq.npz"


@cache
def learned(style: str) -> LearnedTokenizer:
    """The shipped tokenizer of a style. Raises UserError where it is not built."""
    return LearnedTokenizer(file_of(style))
