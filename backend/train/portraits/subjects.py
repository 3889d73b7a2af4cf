"""What painters learn to paint, as data: the style of their pictures, their codec, and how large the nets are.

A style is drawn without end (pixel portraits) or rendered beforehand (`renders`); of rendered pictures training shows
some mirrored, where the style says how that changes what they are called.

Letters: A attributes, L slots of the canvas, B pictures.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.codecs.atlas import Ints, Pixels
from backend.codecs.image import ImageCodec
from backend.codecs.of_models import codec_of_style
from backend.codecs.palette import PaletteTokenizer
from backend.codecs.portraits import Which, draw_many
from backend.codecs.styles import PIXEL, STYLES, Style
from backend.codecs.vq import file_of
from backend.errors import UserError
from backend.models.house.raster import Layout
from backend.train.portraits import renders
from backend.train.portraits.script import DRAWN, LICENSE
from backend.train.tales import TaleJob

SHAPES = {  # sizes of nets
    "s": {"dim": 160, "num_layers": 4, "num_heads": 5, "ffn_dim": 400},
    "m": {"dim": 192, "num_layers": 8, "num_heads": 6, "ffn_dim": 576},
    "draft": {"dim": 96, "num_layers": 1, "num_heads": 3, "ffn_dim": 288},
}
NARROWER = {"s": {"ffn_dim": 352}}  # where a learned tokenizer has many codes, whose vectors are weights, too


@dataclass(frozen=True)
class Subject:
    """A style to be learned. folder: of its renders, where it is not drawn on the way."""

    style: str = PIXEL
    folder: Path = Path()

    @cached_property
    def codec(self) -> ImageCodec:
        """Raises UserError where the tokenizer of the style is not built."""
        if self.style == PIXEL:
            return ImageCodec(PaletteTokenizer())
        return codec_of_style(self.style)

    @cached_property
    def layout(self) -> Layout:
        """Of its sequences."""
        return Layout.of(self.codec)

    def shape(self, size: str) -> dict[str, int]:
        """Sizes of a net, as `Layout.config` and `masked.config_of` take them."""
        return SHAPES[size] | ({} if self.style == PIXEL else NARROWER.get(size, {}))

    @property
    def about(self) -> Style:
        """What is known of the style."""
        return STYLES[self.style]

    @property
    def license(self) -> str:
        """What a card says of what was learned from."""
        if self.style == PIXEL:
            return LICENSE
        return f"Apache-2.0; the drawings it has learned from are CC0 1.0 ({self.about.title} by {self.about.author})."

    @property
    def pictures(self) -> str:
        """What a card calls what is painted."""
        return "described portraits" if self.style == PIXEL else f"described pictures of the style {self.about.title}"

    @property
    def drawn(self) -> str:
        """What a card says of the data."""
        if self.style == PIXEL:
            return DRAWN
        rows_BA = renders.read(self.style, self.folder)[1]
        turned = ", as they are or mirrored" if self.about.mirrored else ""
        return f"{len(rows_BA)} renders of the style {self.style}{turned}, never with a held-out pair of attributes"

    def batch(self, pictures: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """What training sees: conditions [B, A] with nothing left open, and canvases [B, L]. Raises UserError."""
        if self.style == PIXEL:
            return self.draw(pictures, rng)
        pixels, rows_BA = renders.draw(self.style, self.folder, pictures, rng)
        if self.about.mirrored:
            turned_BA, may_B = self.about.mirrored(rows_BA)
            turn_B = may_B & (rng.random(pictures) < 0.5)
            pixels[turn_B], rows_BA = pixels[turn_B, :, ::-1], np.where(turn_B[:, None], turned_BA, rows_BA)
        return self._told(pixels, rows_BA)

    def draw(self, pictures: int, rng: np.random.Generator, which: Which = "seen") -> tuple[Tensor, Tensor]:
        """The same of pictures that measures are taken on. Raises UserError."""
        return self._told(*self.fresh(pictures, rng, which))

    def fresh(self, pictures: int, rng: np.random.Generator, which: Which = "seen") -> tuple[Pixels, Ints]:
        """Pictures [B, S, S, 3] that training has not seen, but by chance, and their rows [B, A]. Raises UserError."""
        if self.style == PIXEL:
            return draw_many(pictures, rng, which=which)
        part = "held_out" if which == "held_out" else "fresh"
        pixels, rows_BA = renders.read(self.style, self.folder, part)
        if pictures > len(rows_BA):
            raise UserError(f"{pictures} {part} renders of {self.style} are asked for, but there are {len(rows_BA)}.")
        picked_B = rng.permutation(len(rows_BA))[:pictures]
        return np.ascontiguousarray(pixels[picked_B]), rows_BA[picked_B]

    def _told(self, pixels: Pixels, rows_BA: Ints) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(rows_BA), torch.from_numpy(self.codec.tokenizer.encode(pixels))


PIXELS = Subject()


@dataclass(frozen=True)
class PainterJob(TaleJob):
    """What every process of a run needs to know.

    Args:
        model: "target", or what its name ends in. out: folder of the house models. size: "s" or "m".
    """

    style: str = PIXEL
    size: str = "s"

    @property
    def subject(self) -> Subject:
        """What is learned; renders lie beside the checkpoints."""
        return PIXELS if self.style == PIXEL else Subject(self.style, self.data)

    @property
    def name(self) -> str:
        """Of the model, as the catalog and its files know it."""
        return self.name_of(self.model)

    def name_of(self, model: str) -> str:
        """Of another model of the same style and size."""
        kind, size = "" if model == "target" else model, "" if self.size == "s" else self.size
        return "-".join(part for part in ("portraits" if self.style == PIXEL else self.style, kind, size) if part)

    @property
    def told(self) -> str:
        """Style and size as options of a command; empty for the usual ones."""
        style = "" if self.style == PIXEL else f" --style {self.style}"
        return style + ("" if self.size == "s" else f" --size {self.size} --device cuda")

    @property
    def checkpoint(self) -> Path:
        """Where training is saved."""
        plain = self.style == PIXEL and self.size == "s"
        return self.data / f"checkpoint-{self.model if plain else self.name}.pt"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is painted, and how large the net is."""
    styles = [style for style in STYLES if style == PIXEL or file_of(style).is_file()]
    parser.add_argument("--style", choices=styles, default=PIXEL, help="whose tokenizer is built")
    parser.add_argument("--size", choices=("s", "m"), default="s", help="s: 1.2 million weights, m: 4 million")


def chosen(args: argparse.Namespace) -> dict[str, Any]:
    """The same as a `PainterJob` takes it."""
    return {"style": args.style, "size": args.size}
