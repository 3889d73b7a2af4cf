"""The atlas of an avatar style: every variant of every component as flat layers on the native grid, and their blending.

Drawings: Pixel Art by DiceBear, CC0 1.0, in `assets/portraits/pixel_art.json` by `backend/train/portraits/atlas.mjs`.
Laying two layers over each other follows the fixed-point arithmetic of the rasteriser resvg to the last bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent.parent.parent / "assets" / "portraits"
ORDER = ("skin", "clothing", "eyes", "glasses", "beard", "mouth", "hair", "hat")  # as the style draws, bottom first
FULL = 255
PLAIN = {"white": (255, 255, 255), "black": (0, 0, 0)}

Pixels = NDArray[np.uint8]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Operation:
    """One colour on some pixels.

    Args:
        paints: colour slots and their opacities, flattened into one colour; more than one is laid on as a group.
        opacity: of the whole, 0 to 1. where: pixels [h * w] that it covers, as numbers, row by row.
    """

    paints: tuple[tuple[str, float], ...]
    opacity: float
    where: Ints


@dataclass(frozen=True)
class Atlas:
    """Layers of a style: layers[component][variant] are operations, bottom first; grid is (h, w)."""

    grid: tuple[int, int]
    layers: Mapping[str, Mapping[str, tuple[Operation, ...]]]

    def own(self, component: str, variant: str) -> Bools:
        """Pixels [h * w] that end up in the component's own colour, unmixed."""
        found = np.zeros(self.grid[0] * self.grid[1], dtype=bool)
        for made in self.layers[component][variant]:
            found[made.where] = made.paints == ((component, 1.0),) and made.opacity == 1
        return found

    def covers(self, component: str, variant: str) -> Bools:
        """Pixels [h * w] through which nothing below is seen."""
        found = np.zeros(self.grid[0] * self.grid[1], dtype=bool)
        for made in self.layers[component][variant]:
            if made.opacity == 1:
                found[made.where] = True
        return found


@cache
def pixel_art() -> Atlas:
    """The atlas of the style pixel-art, 16x16."""
    read = json.loads((FOLDER / "pixel_art.json").read_text(encoding="utf-8"))
    layers = {
        component: {
            name: tuple(
                Operation(tuple((slot, float(part)) for slot, part in paints), float(opacity), _where(mask))
                for paints, opacity, mask in variant
            )
            for name, variant in variants.items()
        }
        for component, variants in read["layers"].items()
    }
    height, width = read["grid"]
    return Atlas((height, width), layers)


def _where(mask: str) -> Ints:
    return np.flatnonzero(np.unpackbits(np.frombuffer(bytes.fromhex(mask), np.uint8))).astype(np.int64)


def rgb(colour: str) -> tuple[int, int, int]:
    """The channels of a colour written as six hex digits."""
    red, green, blue = bytes.fromhex(colour)
    return red, green, blue


def _part(value: Ints) -> Ints:
    return (value + FULL) >> 8  # the rasteriser's division by 255


def over(below: Ints, colour: Ints, opacity: float) -> Ints:
    """A colour laid over another, both integers 0 to 255 of any shapes that broadcast."""
    cover = int(opacity * FULL + 0.5)
    return (2 * colour * cover + FULL) // (2 * FULL) + _part(below * (FULL - cover))


def over_group(below: Ints, colour: Ints, opacity: float) -> Ints:
    """The same for a group that was flattened first, which the rasteriser rounds in another way."""
    cover = int(opacity * FULL + 0.5)
    return _part(colour * cover) + (2 * below * (FULL - cover) + FULL) // (2 * FULL)


def lay(canvas_BNC: Ints, rows: Ints, made: Operation, colours: Mapping[str, Ints]) -> None:
    """Lay one operation on some pictures of a batch, in place.

    Args:
        canvas_BNC: channels of N pixels, 0 to 255. rows: the pictures, as indices. colours: [B, 3] for every slot.
    """
    parts = [np.asarray([[PLAIN[slot]]]) if slot in PLAIN else colours[slot][rows, None] for slot, _ in made.paints]
    colour = parts[0]
    for part, (_, opacity) in zip(parts[1:], made.paints[1:], strict=True):
        colour = over(colour, part, opacity)
    at = (rows[:, None], made.where[None])
    if made.opacity == 1:
        canvas_BNC[at] = colour
    else:
        canvas_BNC[at] = (over if len(parts) == 1 else over_group)(canvas_BNC[at], colour, made.opacity)


def paint(
    atlas: Atlas, picks: Mapping[str, Ints], names: Mapping[str, tuple[str, ...]], colours: Mapping[str, Ints]
) -> Pixels:
    """Pictures [B, h, w, 3] on the native grid.

    Args:
        picks: for every component but the skin, [B] indices into its `names`, -1 where it is absent.
        colours: [B, 3] for every slot of the atlas and for "background".
    """
    height, width = atlas.grid
    canvas = np.repeat(colours["background"][:, None], height * width, axis=1)
    for component in ORDER:
        if component == "skin":
            for made in atlas.layers["skin"]["base"]:
                lay(canvas, np.arange(len(canvas)), made, colours)
            continue
        for index, name in enumerate(names[component]):
            rows = np.flatnonzero(picks[component] == index)
            if len(rows):
                for made in atlas.layers[component][name]:
                    lay(canvas, rows, made, colours)
    return canvas.reshape(-1, height, width, 3).astype(np.uint8)
