"""Pictures of further styles, rendered by node once and drawn from while models train.

    python -m backend.train.portraits.renders --style thumbs

Needs node and the packages of package.json (see `styles.mjs`). Of lorelei, notionists and open-peeps 1,000 pictures
take about 3 seconds on a free core, of thumbs up to 10. They go into the folder of training data, never into the
repository, but for a sheet of held-out thumbs, `assets/portraits/thumbs.png`, with its licence line; sheets of other
styles stay beside their renders. Training sees none of the pairs that a style holds out.

Letters: A attributes, B pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from backend.codecs.atlas import FOLDER, Ints, Pixels
from backend.codecs.styles import STYLES, THUMBS
from backend.errors import UserError
from backend.train.smollm2_corpus import ROOT

HERE = Path(__file__).resolve().parent
PARTS = {"seen": 20_000, "fresh": 1000, "held_out": 500}  # pictures; fresh ones have no held-out pair either
SHEET, COLUMNS = 12, 6  # held-out pictures on a sheet
AT_ONCE = 500
SEED = 5
LICENCE = "{title} by {author}, CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/"


def render(style: str, rows_BA: Ints, rng: np.random.Generator) -> Pixels:
    """Pictures [B, 64, 64, 3] of rows of codes with nothing left open, by node. Raises UserError where it is absent."""
    if shutil.which("node") is None:
        raise UserError(f"Pictures of the style {style} are drawn by node, which is not installed; install Node.js 20.")
    kind, asked = STYLES[style], [STYLES[style].options(row, rng) for row in rows_BA]
    with tempfile.TemporaryDirectory() as folder:
        told, made = Path(folder) / "options.json", Path(folder) / "sheet.bin"
        told.write_text(json.dumps(asked), encoding="utf-8")
        subprocess.run(["node", str(HERE / "styles.mjs"), kind.package, str(told), str(made)], check=True)
        return np.fromfile(made, dtype=np.uint8).reshape(-1, kind.side, kind.side, 3)


def build(style: str, folder: Path, part: str, count: int) -> None:
    """Render a part of the data that is not there yet."""
    pixels_path, rows_path = (folder / f"{style}-{part}-{name}.npy" for name in ("pixels", "rows"))
    if rows_path.exists():
        return
    rng = np.random.default_rng([SEED, list(PARTS).index(part)])
    rows_BA = STYLES[style].draw_rows(count, rng, "held_out" if part == "held_out" else "seen")
    side = STYLES[style].side
    pixels = np.lib.format.open_memmap(pixels_path, mode="w+", dtype=np.uint8, shape=(count, side, side, 3))
    for start in range(0, count, AT_ONCE):
        pixels[start : start + AT_ONCE] = render(style, rows_BA[start : start + AT_ONCE], rng)
        print(f"{style} {part}: {min(count, start + AT_ONCE)}/{count}", flush=True)
    pixels.flush()
    np.save(rows_path, rows_BA.astype(np.int64))  # last: it says that the pictures are whole


@cache
def read(style: str, folder: Path, part: str = "seen") -> tuple[Pixels, Ints]:
    """Pictures [B, 64, 64, 3] and their rows of codes [B, A]. Raises UserError where they are not rendered."""
    pixels_path, rows_path = (folder / f"{style}-{part}-{name}.npy" for name in ("pixels", "rows"))
    if not rows_path.exists():
        raise UserError(
            f"There are no renders of the style {style} in {folder}; make them with: "
            f"python -m backend.train.portraits.renders --style {style}"
        )
    return np.load(pixels_path, mmap_mode="r"), np.load(rows_path)


def draw(style: str, folder: Path, count: int, rng: np.random.Generator, part: str = "seen") -> tuple[Pixels, Ints]:
    """So many pictures of a part, and their rows, drawn with replacement."""
    pixels, rows_BA = read(style, folder, part)
    picked_B = rng.integers(0, len(rows_BA), count)
    return np.ascontiguousarray(pixels[picked_B]), rows_BA[picked_B]


def write_sheet(style: str, folder: Path, out: Path) -> None:
    """A sheet of the first held-out pictures, and their rows."""
    pixels, rows_BA = read(style, folder, "held_out")
    note, kind = PngInfo(), STYLES[style]
    licence, side = LICENCE.format(title=kind.title, author=kind.author), kind.side
    note.add_text("Copyright", licence)
    sheet = np.asarray(pixels[:SHEET]).reshape(-1, COLUMNS, side, side, 3).transpose(0, 2, 1, 3, 4)
    flat = Image.fromarray(np.ascontiguousarray(sheet.reshape(-1, COLUMNS * side, 3)))
    flat.save(out / f"{style}.png", optimize=True, pnginfo=note)
    told = {"licence": licence, "columns": COLUMNS, "rows": rows_BA[:SHEET].tolist()}
    (out / f"{style}-sheet.json").write_text(json.dumps(told) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: render what is missing, and write the sheet."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.portraits.renders", description=__doc__)
    parser.add_argument("--style", choices=sorted(name for name in STYLES if STYLES[name].package), default="thumbs")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "portraits", help="folder of renders")
    parser.add_argument("--count", type=int, default=PARTS["seen"], help="pictures to train on")
    parser.add_argument("--sheet", type=Path, help="folder of the sheet of held-out pictures")
    args = parser.parse_args(argv)
    args.data.mkdir(parents=True, exist_ok=True)
    for part, count in (PARTS | {"seen": args.count}).items():
        build(args.style, args.data, part, count)
    write_sheet(args.style, args.data, args.sheet or (FOLDER if args.style == THUMBS else args.data))


if __name__ == "__main__":
    main()
