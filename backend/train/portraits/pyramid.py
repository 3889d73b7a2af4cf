"""Codes of the pyramids of portraits: `python -m backend.train.portraits.pyramid`.

Writes assets/portraits/pyramid.npz, the codebooks of both residual pyramids (`backend.codecs.pyramid`), map by map:
what the maps so far leave of many portraits is averaged over the cells of the next one, and k-means finds its codes,
in which every different residual weighs by the root of how often it comes, so that rare ones keep a code. Beside it
stands pyramid.json with what was measured on fresh portraits. Takes about a minute on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backend.codecs.atlas import FOLDER
from backend.codecs.palette import PaletteTokenizer
from backend.codecs.portraits import draw_many
from backend.codecs.pyramid import SIZES, Floats, Pyramid, coloured

DRAWS, FRESH, SEED = 1500, 400, 0  # portraits for the codes and for the measures
MOST = 12_000  # different residuals that k-means looks at
ROUNDS = 12
PALETTE = PaletteTokenizer()


def k_means(points_ND: Floats, codes: int, rng: np.random.Generator) -> Floats:
    """Codes [codes, D] near to the points; rarer ones weigh by the root of how often they come.

    Starts from points drawn by their weighted squared distance to those drawn before (k-means++). Where there are fewer
    different points than codes, every one is a code and the rest repeat them.
    """
    found_ND, counts_N = np.unique(points_ND.round(3), axis=0, return_counts=True)
    if len(found_ND) <= codes:
        return found_ND[np.arange(codes) % len(found_ND)].astype(np.float32)
    weight_N = np.sqrt(counts_N)
    if len(found_ND) > MOST:
        picked = rng.choice(len(found_ND), MOST, replace=False, p=weight_N / weight_N.sum())
        found_ND, weight_N = found_ND[picked], np.ones(MOST)
    codes_VD = found_ND[rng.choice(len(found_ND), 1, p=weight_N / weight_N.sum())]
    far_N = ((found_ND - codes_VD[0]) ** 2).sum(axis=1)
    while len(codes_VD) < codes:
        p_N = far_N * weight_N
        codes_VD = np.concatenate((codes_VD, found_ND[rng.choice(len(found_ND), 1, p=p_N / p_N.sum())]))
        far_N = np.minimum(far_N, ((found_ND - codes_VD[-1]) ** 2).sum(axis=1))
    for _ in range(ROUNDS):
        nearest_N = ((codes_VD**2).sum(axis=1) - 2 * found_ND @ codes_VD.T).argmin(axis=1)
        mass_V = np.bincount(nearest_N, weight_N, codes)
        for channel in range(codes_VD.shape[1]):
            total_V = np.bincount(nearest_N, weight_N * found_ND[:, channel], codes)
            codes_VD[:, channel] = np.where(mass_V > 0, total_V / np.maximum(mass_V, 1e-9), codes_VD[:, channel])
    return codes_VD.astype(np.float32)


def fit(kind: Literal["area", "fft"], picture: Floats, rng: np.random.Generator) -> Pyramid:
    """A pyramid with codes for pictures [B, 16, 16, 3] of palette colours."""
    codes_KVD = np.zeros((len(SIZES) - 1, PALETTE.vocab_size, 3), dtype=np.float32)
    total, pyramid = np.zeros_like(picture), Pyramid(kind, codes_KVD)
    for at in range(len(SIZES) - 1):
        lacking = pyramid.missing(pyramid.aim(picture, at), total, at)
        codes_KVD[at] = k_means(lacking.reshape(-1, 3), PALETTE.vocab_size, rng)
        pyramid = Pyramid(kind, codes_KVD)
        total = pyramid.add(total, pyramid.told(pyramid.aim(picture, at), total, at), at)
    return pyramid


def portraits(number: int, seed: int) -> Floats:
    """Fresh portraits [B, 16, 16, 3] in the colours of the palette."""
    pixels, _ = draw_many(number, np.random.default_rng([SEED, seed]))
    return coloured(PALETTE.decode(PALETTE.encode(pixels)))


def measured(pyramid: Pyramid, number: int) -> dict[str, Any]:
    """What is left of fresh portraits behind every map: exact pixels, peak signal-to-noise ratio, codes in use."""
    pixels, _ = draw_many(number, np.random.default_rng([SEED, 1]))
    pixels = PALETTE.decode(PALETTE.encode(pixels))
    tokens = pyramid.encode(pixels)
    maps = []
    for at, (size, total) in enumerate(zip(pyramid.sizes, pyramid.sums(tokens), strict=True)):
        squared = float(((total - coloured(pixels)) ** 2).mean())
        used = np.unique(tokens[:, pyramid.starts[at] : pyramid.starts[at + 1]])
        maps.append(
            {
                "size": list(size),
                "pixels_exact": round(float((pyramid.shown(total) == pixels).all(axis=-1).mean()), 4),
                "psnr_db": None if squared < 1e-12 else round(10 * float(np.log10(4 / squared)), 2),
                "codes_in_use": len(used),
            }
        )
    return {"portraits": number, "fingerprint": pyramid.fingerprint, "maps": maps}


def main() -> None:
    """Write the file that ships and its card."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.portraits.pyramid", description=__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS, help="portraits for the codes")
    parser.add_argument("--fresh", type=int, default=FRESH, help="portraits for the measures")
    parser.add_argument("--out", type=Path, default=FOLDER / "pyramid.npz")
    args = parser.parse_args()
    picture, rng = portraits(args.draws, 0), np.random.default_rng(SEED)
    made = {"area": fit("area", picture, rng), "fft": fit("fft", picture, rng)}
    area, fft = (pyramid.codes_KVD[:-1] for pyramid in made.values())
    np.savez_compressed(args.out, sizes=np.asarray(SIZES), area=area, fft=fft)
    card = {
        "what": "Codebooks of the residual pyramids of portraits, by python -m backend.train.portraits.pyramid",
        "licence": "CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/ (drawings: Pixel Art by DiceBear)",
        "portraits": args.draws,
        "seed": SEED,
        "about": "Measured on fresh portraits in palette colours, behind every map; psnr_db is null where nothing is "
        "lost. The last map tells palette colours, so what the maps before it lose is mended there.",
        **{kind: measured(pyramid, args.fresh) for kind, pyramid in (*made.items(), ("flat", Pyramid("flat")))},
    }
    args.out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
