"""Tolerant: drafts of a point forecaster stay while they lie within a tolerance of what the target says.

For models without a density, where no ratio can be formed. Of a patch that is near enough the target's own values are
written and not the drafted ones: they are there already. What is written differs from `recursive_point` because a value
was computed behind a draft that was off by up to the tolerance: by at most tolerance (L + L^2 + ...) where the target
moves its forecast by at most L when its input moves by 1, and not at all at tolerance 0.
Show: the tolerance as a tube around the point forecast; calls and difference from `recursive_point` as it grows.
"""

from collections.abc import Iterator
from typing import Annotated

import torch

from backend.chance import Ask
from backend.protocols import PathSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Fate, Guarantee, Knob, Step
from backend.unrolling import LEVELS, band_marks, level_figures, listener, progress, refused_curve, widths


@strategy(paper="2511.18191", guarantee=Guarantee.LOSSY, family="draft model")
def tolerant(
    target: PathSession,
    draft: PathSession,
    ask: Ask,
    *,
    tolerance: Annotated[float, Knob(0.0, 1.0, "how far a draft may lie off, in units of the context's scale")] = 0.1,
    gamma: Annotated[int, Knob(1, 8, "patches drafted before each target call")] = 3,
) -> Iterator[Step]:
    """Yield one step per target call. figures: `gap`, the largest difference that was let through; `width`."""
    horizon, start, patch = ask.left, 0, target.patch
    target.fork(1)
    draft.fork(1)
    tell = listener(target, draft)
    z_L1 = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))[:, None]
    while start < horizon:
        length = min(gamma, -(-(horizon - start) // patch) - 1)
        x_1KP = torch.empty(1, 0, patch, dtype=torch.float64)
        for _ in range(length):
            x_1KP = torch.cat((x_1KP, draft.score(x_1KP).mean_NP[:, -1:].double()), 1)
        law = target.score(x_1KP)[0]
        gap_K = (x_1KP[0] - law.mean_NP[:length]).abs().amax(-1)
        n = int((gap_K <= tolerance).long().cumprod(0).sum())
        curve = (law.mean_NP[: n + 1].flatten(), widths(law)[: n + 1].flatten())
        marks = band_marks(curve[0] + z_L1 * curve[1], start, horizon, Fate.KEPT, n * patch if n < length else None)
        marks += refused_curve(x_1KP[0, n:], start + n * patch, horizon, len(LEVELS) // 2)
        kept_1KP = law.mean_NP[None, : n + 1]
        for session in (target, draft):
            session.commit(kept_1KP, [n + 1])
        tell([0])
        progress(ask, min((n + 1) * patch, horizon - start))
        start += (n + 1) * patch
        figures = {"gap": shorten(gap_K[:n].max()) if n else 0.0, "width": shorten(curve[1].mean())}
        yield Step(marks, f"{n} of {length} patches near enough", figures=figures | level_figures(LEVELS))
