"""Pictures as they are drawn for the prompts of the benchmark: what FD-house holds painted ones against.

Portraits are drawn here, when they are needed. Other styles are drawn by node, so what the judge sees in their pictures
ships instead: `python -m backend.train.portraits.reference --style thumbs` makes that file.

Letters: A attributes, P prompts, R = P * REAL pictures, F features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from backend.codecs.atlas import Pixels
from backend.codecs.palette import PaletteTokenizer
from backend.codecs.portraits import Attributes, draw_many
from backend.codecs.styles import PIXEL
from backend.entries import ASSETS
from backend.models.house.portrait_judge import Features, PortraitJudge

REAL = 4  # pictures drawn for a prompt
SEEDS = 7, 8  # of those, and of one more a prompt
FOLDER = ASSETS / "house"


@dataclass(frozen=True)
class Reference:
    """Features of drawn pictures: real_RF for the prompts, and more_PF, others, one a prompt and in their order."""

    real: Features
    more: Features


def reference_of(reader: PortraitJudge, conditions: Sequence[Sequence[int]]) -> Reference | None:
    """The features of what is drawn for prompts [P, A]; None for a style that is not drawn here and has no file.

    A file that was made with another judge, or for other prompts, is none.
    """
    if reader.style == PIXEL:
        real, more = (reader.features_of(portraits_of(conditions, n, s)) for n, s in zip((REAL, 1), SEEDS, strict=True))
        return Reference(real, more)
    path = file_of_reference(reader.style)
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        real_RF, more_PF, asked_PA = (file.get_tensor(name) for name in ("real", "more", "conditions"))
        same_judge = (file.metadata() or {}).get("judge") == fingerprint(reader)
    if not same_judge or asked_PA[: len(conditions)].tolist() != [list(row) for row in conditions]:
        return None
    return Reference(real_RF.double().numpy(), more_PF.double().numpy())


def save_reference(
    path: Path, reader: PortraitJudge, conditions: Sequence[Sequence[int]], real: Pixels, more: Pixels
) -> None:
    """Write what a judge sees in pictures [P * REAL, S, S, 3] and [P, S, S, 3] of prompts [P, A], in half precision."""
    seen = {name: torch.from_numpy(reader.features_of(each)).half() for name, each in (("real", real), ("more", more))}
    save_file({**seen, "conditions": torch.tensor(conditions)}, path, metadata={"judge": fingerprint(reader)})


def file_of_reference(style: str) -> Path:
    """Where the features of a style lie that is not drawn here."""
    return FOLDER / f"{style}-reference.safetensors"


def fingerprint(reader: PortraitJudge) -> str:
    """What tells the weights of a judge from those of another."""
    weights = (weight.detach().float().cpu().numpy().tobytes() for weight in reader.state_dict().values())
    return hashlib.sha256(b"".join(weights)).hexdigest()[:12]


def portraits_of(conditions: Sequence[Sequence[int]], each: int, seed: int) -> Pixels:
    """Portraits [B * each, 16, 16, 3] as the drawer makes them for each prompt, in the colours of the palette."""
    palette, rng = PaletteTokenizer(), np.random.default_rng([20_000_000, seed])
    drawn = [draw_many(each, rng, Attributes.of(asked), "all")[0] for asked in conditions]
    return palette.decode(palette.encode(np.concatenate(drawn)))
