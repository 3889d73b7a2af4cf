"""Pictures as maps of tokens, coarse to fine: a picture's colours in ever larger grids, and their sum on the way.

A map of h x w cells tells what is still missing when the maps before it are painted (Tian et al. 2024, 2404.02905): the
missing colours are averaged over its cells, each cell takes the nearest code of the map's own codebook, and the codes,
enlarged by cubic interpolation, are added to the sum. Nothing is learned but the codebooks: the latent is the colour.

The last map is as large as the picture, and its codes are told by where they lead: token t is the step from the sum to
colour t of the palette. So it loses nothing of a picture in these colours, and its tokens mean what a
`PaletteTokenizer`'s mean. What is on the way is a sum of codes; its picture shows the palette's nearest colours.

Three kinds differ in what the maps before the last aim at. "area": the picture. "fft": as many of its low
frequencies as the map's cells can hold, as in Ren et al. 2025 (2503.07076), so that each map adds a band. "flat": every
map is the picture at its size in palette colours, with no sum, so that any of them can be left out (Jiao et al. 2025,
2502.20313).

Letters: K maps, V codes, S side of the picture, N cells of a map, L cells of all maps. Colours lie in [-1, 1].
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backend.codecs.atlas import FOLDER, Ints, Pixels
from backend.codecs.palette import PaletteTokenizer

Kind = Literal["area", "fft", "flat"]
Floats = NDArray[np.float32]
SIDE = 16
SIZES = ((1, 1), (2, 2), (3, 3), (4, 4), (6, 6), (10, 10), (16, 16))
UNKNOWN = -1
ROLL = 0.5  # part of a band's radius over which it fades
CUBIC = -0.5  # the free number of cubic interpolation
HALF = 0.5  # a cell is given where more than this share of its pixels is
FILE = FOLDER / "pyramid.npz"


class Pyramid:
    """A codec of pictures [..., 16, 16, 3] into the tokens [..., L] of their maps, one map behind the other.

    Args:
        kind: see above. codes_KVD: [K - 1, V, 3], of all maps but the last; none for "flat".
        sizes: (height, width) of every map, squares that grow to 16. palette: colours of the last map, V of them.
    """

    def __init__(
        self,
        kind: Kind,
        codes_KVD: Floats | None = None,
        sizes: Sequence[tuple[int, int]] = SIZES,
        palette: PaletteTokenizer | None = None,
    ) -> None:
        self.kind = kind
        self.sizes = tuple(sizes)
        self.palette = palette or PaletteTokenizer()
        assert self.sizes[-1] == (SIDE, SIDE), self.sizes
        assert all(height == width for height, width in self.sizes), self.sizes
        self.vocab_size = self.palette.vocab_size
        self.colours_VD = coloured(self.palette.colours_VC)
        before = np.broadcast_to(self.colours_VD, (len(self.sizes) - 1, self.vocab_size, 3))
        told = before if codes_KVD is None else codes_KVD
        assert told.shape == before.shape, f"codes {told.shape} where {before.shape} are wanted"
        self.codes_KVD: Floats = np.concatenate((told, self.colours_VD[None])).astype(np.float32)
        areas = [height * width for height, width in self.sizes]
        self.starts = tuple(sum(areas[:k]) for k in range(len(areas) + 1))
        meaning = f"{kind} {self.sizes} {self.palette.fingerprint}".encode() + self.codes_KVD.tobytes()
        self.fingerprint = hashlib.sha256(meaning).hexdigest()[:12]

    @property
    def length(self) -> int:
        """L."""
        return self.starts[-1]

    def replaces(self, at: int) -> bool:
        """Whether the codes of this map are colours that take the place of the sum."""
        return self.kind == "flat" or at == len(self.sizes) - 1

    def encode(self, pixels: Pixels) -> Ints:
        """Tokens [..., L] of pictures [..., 16, 16, 3], whose colours are rounded to the palette first."""
        picture = self.colours_VD[self.palette.encode(pixels)].reshape(*pixels.shape)
        total, tokens = np.zeros_like(picture), []
        for at in range(len(self.sizes)):
            tokens.append(self.told(self.aim(picture, at), total, at))
            total = self.add(total, tokens[-1], at)
        return np.concatenate(tokens, axis=-1)

    def aim(self, picture: Floats, at: int) -> Floats:
        """What the sum of the maps up to this one is to be like."""
        return low_pass(picture, self.sizes[at][0] / 2) if self.kind == "fft" and not self.replaces(at) else picture

    def told(self, picture: Floats, total: Floats, at: int, given: NDArray[np.bool_] | None = None) -> Ints:
        """Tokens [..., N] of a map that bring the sum of the maps before it as near to a picture as they can.

        given: pixels [16, 16] of the picture that are known; only these are looked at, and cells of which no more
            than half is known are -1.
        """
        if given is None:
            return self.nearest(self.missing(picture, total, at), at)
        down, known = shrinking(self.sizes[at][0]), given.astype(np.float32)
        share = down @ known @ down.T
        mean = self.missing(picture * known[..., None], total * known[..., None], at)
        tokens = self.nearest((mean / np.maximum(share, 1e-6)[..., None]).astype(np.float32), at)
        return np.where(share.reshape(-1) > HALF, tokens, UNKNOWN)

    def missing(self, picture: Floats, total: Floats, at: int) -> Floats:
        """What a map is to tell, [..., h, w, 3]: the mean over every cell of what the sum lacks of the picture."""
        return resized(picture if self.replaces(at) else picture - total, shrinking(self.sizes[at][0]))

    def nearest(self, cells: Floats, at: int) -> Ints:
        """Tokens [..., N] of the codes nearest to numbers [..., h, w, 3]; of codes equally near, the first."""
        codes_VD, flat = self.codes_KVD[at], cells.reshape(-1, 3)
        far = (codes_VD**2).sum(axis=1) - 2 * (flat @ codes_VD.T)
        found: Ints = far.argmin(axis=1).reshape(*cells.shape[:-3], -1)
        return found

    def add(self, total: Floats, tokens: Ints, at: int) -> Floats:
        """The sum [..., 16, 16, 3] with one more map, tokens [..., N]; cells that are -1 leave it as it is."""
        size = self.sizes[at]
        known = (tokens != UNKNOWN).reshape(*tokens.shape[:-1], *size, 1)
        code = self.codes_KVD[at][np.maximum(tokens, 0)].reshape(*tokens.shape[:-1], *size, 3)
        before = resized(total, shrinking(size[0])) if self.replaces(at) else np.float32(0)
        grown = resized(np.where(known, code, before), enlarging(size[0]))
        if not self.replaces(at):
            return total + grown
        return np.where(known.any(axis=(-3, -2), keepdims=True), grown, total)

    def sums(self, tokens: Ints) -> list[Floats]:
        """The sum [..., 16, 16, 3] behind every map of canvases [..., L]."""
        total, found = np.zeros((*tokens.shape[:-1], SIDE, SIDE, 3), dtype=np.float32), []
        for at in range(len(self.sizes)):
            total = self.add(total, tokens[..., self.starts[at] : self.starts[at + 1]], at)
            found.append(total)
        return found

    def shown(self, total: Floats) -> Pixels:
        """The picture of a sum: of every pixel the palette's nearest colour."""
        squared = (self.colours_VD**2).sum(axis=1)
        nearest = (squared - 2 * (total.reshape(-1, 3) @ self.colours_VD.T)).argmin(axis=1)
        pixels: Pixels = self.palette.colours_VC[nearest].reshape(total.shape)
        return pixels

    def decode(self, tokens: Ints) -> Pixels:
        """Pictures [..., 16, 16, 3] of canvases [..., L]; what is unknown (-1) is as coarser maps have it."""
        return self.shown(self.sums(tokens)[-1])

    def film(self, tokens: Ints) -> list[Pixels]:
        """The picture behind every map, one after the other."""
        return [self.shown(total) for total in self.sums(tokens)]

    def only(self, sizes: Sequence[tuple[int, int]]) -> Pyramid:
        """The pyramid with these maps alone; for the kind "flat", whose maps do not need each other."""
        assert self.kind == "flat", "the maps of a sum cannot be left out"
        return Pyramid("flat", sizes=sizes, palette=self.palette)


def shipped(kind: Kind) -> Pyramid:
    """The pyramid that models are trained on (`python -m backend.train.portraits.pyramid` makes its codes)."""
    if kind == "flat":
        return Pyramid(kind)
    with np.load(FILE) as read:
        return Pyramid(kind, read[kind].astype(np.float32), [(int(h), int(w)) for h, w in read["sizes"]])


def coloured(pixels: Pixels) -> Floats:
    """Channels from 0 to 255 as numbers in [-1, 1]."""
    return (pixels.astype(np.float32) / 127.5 - 1).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------- resizing
def resized(picture: Floats, matrix: Floats) -> Floats:
    """A picture [..., a, a, 3] whose rows and columns go through a matrix [b, a]."""
    wide = np.moveaxis(picture, -1, -3)
    return np.ascontiguousarray(np.moveaxis(matrix @ wide @ matrix.T, -3, -1), dtype=np.float32)


@cache
def shrinking(side: int) -> Floats:
    """[side, 16]: means over areas, parts of pixels by their share."""
    edges, pixels = np.arange(side + 1) * SIDE / side, np.arange(SIDE)
    inside = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (inside.clip(0) * side / SIDE).astype(np.float32)


@cache
def enlarging(side: int) -> Floats:
    """[16, side]: cubic interpolation between the middles of cells, the outermost ones going on forever."""
    out = np.zeros((SIDE, side), dtype=np.float32)
    for pixel in range(SIDE):
        place = (pixel + 0.5) * side / SIDE - 0.5
        for cell in range(math.floor(place) - 1, math.floor(place) + 3):
            out[pixel, min(max(cell, 0), side - 1)] += _cubic(abs(place - cell))
    return out


def _cubic(far: float) -> float:
    """The weight of a cell this far away."""
    if far <= 1:
        return (CUBIC + 2) * far**3 - (CUBIC + 3) * far**2 + 1
    return CUBIC * (far**3 - 5 * far**2 + 8 * far - 4) if far < 2 else 0.0


# ---------------------------------------------------------------------------------------------------------------- bands
def low_pass(picture: Floats, radius: float) -> Floats:
    """The frequencies of pictures [..., S, S, 3] below a radius, in turns a picture, which fade in a raised cosine."""
    side = picture.shape[-2]
    turns = np.fft.fftfreq(side) * side
    far = np.hypot(turns[:, None], turns[None, :])
    kept = 0.5 + 0.5 * np.cos(np.pi * ((far - (1 - ROLL) * radius) / (ROLL * radius)).clip(0, 1))
    passed = np.fft.ifft2(np.fft.fft2(picture, axes=(-3, -2)) * kept[..., None], axes=(-3, -2))
    return np.ascontiguousarray(passed.real, dtype=np.float32)


def bands(picture: Floats, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Floats]:
    """What each map adds where nothing is lost: low frequencies first, then ring by ring; they sum to the picture."""
    passed = [low_pass(picture, height / 2) for height, _ in sizes[:-1]] + [picture]
    return [passed[0], *(after - before for before, after in pairwise(passed))]
