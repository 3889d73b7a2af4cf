"""Recursive point: the middle of every law is fed back as if it had been observed.

One path, no sampling: the way of many one-step forecasters. Bands are those of the laws along this path, so they hold
the uncertainty of a single patch and none of what came before it: too narrow from the second patch on.
Show: bands that stay as narrow as the first patch beside those of sampled paths; the point is the same without noise.
"""

from collections.abc import Iterator

import torch

from backend.chance import Ask
from backend.protocols import PathSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Guarantee, Step
from backend.unrolling import LEVELS, band_marks, level_figures, progress, widths


@strategy(paper="1704.04110", guarantee=Guarantee.LOSSY, family="feedback")
def recursive_point(target: PathSession, ask: Ask) -> Iterator[Step]:
    """Yield one step per target call: the bands of one patch. figures: `width`, and the `level` of every row."""
    horizon = ask.left
    target.fork(1)
    z_L1 = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))[:, None]
    for start in range(0, horizon, target.patch):
        law = target.score()[0, 0]
        width_P = widths(law)
        marks = band_marks(law.mean_NP.cpu().double() + z_L1 * width_P.cpu().double(), start, horizon)
        target.commit(law.mean_NP[None, None], [1])
        progress(ask, min(target.patch, horizon - start))
        note = f"steps {start + 1} to {min(start + target.patch, horizon)}"
        yield Step(marks, note, figures={"width": shorten(width_P.mean()), **level_figures(LEVELS)})
