"""What painted portraits are worth, however they were painted: attributes as asked for, the house distance, seconds.

Letters: A attributes, L slots of the canvas, B portraits.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.codecs.atlas import Ints, Pixels
from backend.models.house.portrait_judge import PortraitJudge, accuracy, fd_house, judge_of
from backend.train.portraits.subjects import PIXELS, Subject

FRESH = 30_000_000  # seed of prompts and of real portraits; training draws from streams of more numbers
Paint = Callable[[list[int], int], Pixels]  # conditions of a prompt, seed -> pixels [S, S, 3]


def asked(pictures: int, subject: Subject = PIXELS) -> tuple[Ints, Pixels, Pixels]:
    """Conditions [B, A] with each attribute open or not, the portraits they describe, and as many others."""
    rng = np.random.default_rng([FRESH])
    pixels, rows_BA = subject.fresh(2 * pictures, rng)
    open_BA = rng.random((pictures, rows_BA.shape[1])) < 0.5
    return np.where(open_BA, 0, rows_BA[:pictures]), pixels[:pictures], pixels[pictures:]


def judged(ways: Iterable[tuple[str, Paint]], folder: Path, pictures: int, subject: Subject = PIXELS) -> dict[str, Any]:
    """By name of the way to paint: accuracy by attribute, house distance, median seconds a picture.

    The distance is to the portraits that the prompts describe; beside it stands that of as many other real ones,
    which is what a perfect painter reaches. Empty where there is no judge in the folder, or for less than 2 pictures.
    """
    judge = judge_of(subject.style, folder)
    if judge is None or pictures < 2:
        return {}
    conditions_BA, real, others = asked(pictures, subject)
    reference = judge.features_of(real)
    told: dict[str, Any] = {
        "pictures": pictures,
        "prompts": "of fresh portraits, each attribute named or left open by chance",
        "fd_house_of_as_many_real_portraits": round(fd_house(judge.features_of(others), reference), 4),
    }
    for name, paint in ways:
        painted, seconds = [], []
        for seed, conditions_A in enumerate(conditions_BA.tolist()):
            began = time.perf_counter()
            painted.append(paint(conditions_A, seed))
            seconds.append(time.perf_counter() - began)
        told[name] = told_of(judge, np.stack(painted), conditions_BA, reference) | {
            "median_seconds_a_picture": float(f"{statistics.median(seconds):.3g}")
        }
    return told | {"threads": torch.get_num_threads()}


def told_of(judge: PortraitJudge, pixels: Pixels, conditions_BA: Ints, reference: Any) -> dict[str, Any]:
    """Accuracy by attribute and the distance to pictures with the reference's features."""
    right = {name: round(share, 4) for name, share in accuracy(judge, pixels, conditions_BA).items()}
    return {"accuracy": right, "fd_house": round(fd_house(judge.features_of(pixels), reference), 4)}


def seen(tokenizer: Any, canvas: Tensor | list[int]) -> Pixels:
    """Pixels of one finished canvas."""
    pixels: Pixels = tokenizer.decode(np.asarray(canvas)[None])[0]
    return pixels
