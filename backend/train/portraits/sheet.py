"""The reference sheet: a few portraits rendered by DiceBear and resvg, which tests hold our own drawing against.

    python -m backend.train.portraits.sheet

Needs node and the packages of package.json (see `atlas.mjs`). Writes tests/data/portraits.png, a row of native 16x16
renders, and tests/data/portraits.json with the options of each. Drawings: Pixel Art by DiceBear, CC0 1.0.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from backend.codecs.atlas import Pixels
from backend.codecs.portraits import bake, draw_rows, recipe

HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent.parent / "tests" / "data"
LICENCE = "Pixel Art by DiceBear, CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/"
COUNT, COLUMNS, SEED, SIDE = 24, 6, 7, 16


def render(options: list[dict[str, Any]]) -> Pixels:
    """Pictures [B, 16, 16, 3] of DiceBear options, by node."""
    with tempfile.TemporaryDirectory() as folder:
        asked, made = Path(folder) / "options.json", Path(folder) / "sheet.bin"
        asked.write_text(json.dumps(options), encoding="utf-8")
        subprocess.run(["node", str(HERE / "atlas.mjs"), "render", str(asked), str(made)], check=True)
        return np.fromfile(made, dtype=np.uint8).reshape(-1, SIDE, SIDE, 3)


def main() -> None:
    """Write the sheet that ships with the tests, after comparing many more renders with our own drawing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--compare", type=int, default=2000, help="portraits to compare, the sheet's included")
    parser.add_argument("--out", type=Path, default=DATA)
    args = parser.parse_args()
    rng = np.random.default_rng(SEED)
    made = recipe(draw_rows(max(COUNT, args.compare), rng, which="all"), rng)
    pictures = bake(made)
    options = [made.options(row) for row in range(len(pictures))]
    references = render(options)
    different = int((references != pictures).any(axis=(1, 2, 3)).sum())
    print(f"{len(pictures)} portraits, {different} different from the rasteriser's")
    sheet = references[:COUNT].reshape(COUNT // COLUMNS, COLUMNS, SIDE, SIDE, 3)
    note = PngInfo()
    note.add_text("Copyright", LICENCE)
    args.out.mkdir(parents=True, exist_ok=True)
    flat = sheet.transpose(0, 2, 1, 3, 4).reshape(-1, COLUMNS * SIDE, 3)
    Image.fromarray(flat).save(args.out / "portraits.png", optimize=True, pnginfo=note)
    told = {"licence": LICENCE, "columns": COLUMNS, "options": options[:COUNT]}
    rows = json.dumps(told).replace('{"accessories"', '\n{"accessories"') + "\n"
    (args.out / "portraits.json").write_text(rows, encoding="utf-8")


if __name__ == "__main__":
    main()
