"""The palette of the portraits: the colours of many draws, merged until few enough are left.

    python -m backend.train.portraits.palette

Merging joins the two groups of colours whose farthest members are nearest (complete linkage, largest difference of a
channel), so that rare colours such as an iris keep a code of their own; a group's code is its most frequent colour.
Takes half a minute. The drawings are CC0 1.0 (Pixel Art by DiceBear), and so is what is counted from them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from backend.codecs.atlas import FOLDER, Ints
from backend.codecs.portraits import draw_many

CODES, DRAWS, SEED = 128, 80_000, 0


def count(draws: int, seed: int) -> tuple[Ints, Ints]:
    """Colours [C, 3] of many portraits, held-out ones included, and how many pixels have each [C]."""
    rng = np.random.default_rng(seed)
    packed = np.zeros(1 << 24, dtype=np.int64)
    for start in range(0, draws, 4000):
        pixels, _ = draw_many(min(4000, draws - start), rng, which="all")
        packed += np.bincount(pixels.reshape(-1, 3) @ np.asarray([65536, 256, 1]), minlength=1 << 24)
    found = np.flatnonzero(packed)
    return np.stack([found >> 16, (found >> 8) & 255, found & 255], axis=1), packed[found]


def merge(colours_CD: Ints, counts_C: Ints, codes: int) -> Ints:
    """For every colour the colour, as an index, whose code it gets; `codes` different ones."""
    apart = np.abs(colours_CD[:, None] - colours_CD[None]).max(axis=2).astype(np.float64)
    np.fill_diagonal(apart, np.inf)
    groups = {index: [index] for index in range(len(colours_CD))}
    while len(groups) > codes:
        one, other = np.unravel_index(int(apart.argmin()), apart.shape)
        groups[int(one)] += groups.pop(int(other))
        apart[one] = apart[:, one] = np.maximum(apart[one], apart[other])
        apart[other] = apart[:, other] = np.inf
        apart[one, one] = np.inf
    code = np.empty(len(colours_CD), dtype=np.int64)
    for members in groups.values():
        code[members] = members[int(counts_C[members].argmax())]
    return code


def build(codes: int = CODES, draws: int = DRAWS, seed: int = SEED) -> dict[str, Any]:
    """The palette with its provenance and what it loses."""
    colours, counts = count(draws, seed)
    code = merge(colours, counts, codes)
    wrong = np.abs(colours - colours[code])
    kept = np.unique(code)
    squared = float((counts[:, None] * wrong**2).sum() / counts.sum() / 3)
    return {
        "what": "Palette of the portraits of backend.codecs.portraits, by python -m backend.train.portraits.palette",
        "licence": "CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/ (drawings: Pixel Art by DiceBear)",
        "draws": draws,
        "seed": seed,
        "distinct_colours": len(colours),
        "largest_channel_error": int(wrong.max()),
        "pixels_changed": round(float(counts[code != np.arange(len(code))].sum() / counts.sum()), 4),
        "psnr_db": round(10 * float(np.log10(255**2 / squared)), 2),
        "colours": [bytes(colour).hex() for colour in colours[kept].astype(np.uint8)],
    }


def main() -> None:
    """Write the file that ships."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--codes", type=int, default=CODES)
    parser.add_argument("--out", type=Path, default=FOLDER / "palette.json")
    args = parser.parse_args()
    args.out.write_text(json.dumps(build(args.codes), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
