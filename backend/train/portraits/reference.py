"""What a judge sees in pictures that are drawn for the prompts of the benchmark, for styles that node draws.

    python -m backend.train.portraits.reference --style thumbs

Needs node and the packages of package.json, and the trained judge of the style; takes seconds. FD-house of painted
pictures is told against this file, `assets/house/<style>-reference.safetensors`: see `backend.image_reference`.

Letters: A attributes, P prompts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np

from backend.codecs.atlas import Ints
from backend.codecs.styles import STYLES
from backend.errors import UserError
from backend.image_prompts import WRITERS, file_of
from backend.image_reference import REAL, SEEDS, file_of_reference, save_reference
from backend.models.house.portrait_judge import fd_house
from backend.quality import judge
from backend.train.portraits.renders import render


def filled(style: str, asked_PA: Ints, each: int, rng: np.random.Generator) -> Ints:
    """Rows [P * each, A] of prompts, what they leave open drawn at random."""
    asked = asked_PA.repeat(each, axis=0)
    return np.where(asked > 0, asked, STYLES[style].draw_rows(len(asked), rng, "all"))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: draw, read and save."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.portraits.reference", description=__doc__)
    parser.add_argument("--style", choices=sorted(set(WRITERS) - {"pixel"}), default="thumbs")
    style = parser.parse_args(argv).style
    reader = judge(style)
    if reader is None:
        raise UserError(
            f"There is no judge of {style}; train it with: "
            f"python -m backend.train.portraits.style_judge --style {style}"
        )
    lines = [json.loads(line) for line in file_of(style).read_text(encoding="utf-8").splitlines()]
    asked = [STYLES[style].read(line["prompt"]).attributes.row() for line in lines]
    drawn = []
    for each, seed in zip((REAL, 1), SEEDS, strict=True):
        rng = np.random.default_rng([20_000_000, seed])
        drawn.append(render(style, filled(style, np.array(asked), each, rng), rng))
    save_reference(file_of_reference(style), reader, asked, *drawn)
    apart = fd_house(*(reader.features_of(each) for each in drawn))
    print(f"{file_of_reference(style)}: {len(drawn[0])} pictures; {len(drawn[1])} others are {apart:.2f} away")


if __name__ == "__main__":
    main()
