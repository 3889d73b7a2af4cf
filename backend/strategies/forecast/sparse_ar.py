"""Sparse AR: a linear autoregression with few lags, fitted to the series itself, is unrolled in steps or in blocks.

Triebe et al. 2019 (1911.12436), AR-Net: many lags are offered, and a penalty that spares large weights leaves the few
that matter, so the order need not be known. With `ahead` 1 every step feeds the next one; with more, maps of their own
give a block at once. Paths carry the noise that the fit left. A root outside the unit circle makes the recursion grow.
Show: weights by lag as stems, beside those of least squares; roots in the unit circle; one step a call against blocks.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor

from backend.chance import Ask
from backend.gaussian import placed
from backend.protocols import Lags, LagsSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Fate, Guarantee, Knob, Mark, Step
from backend.unrolling import Paths, band_marks, level_figures, progress, widths

SHOWN = 24  # roots

Outcome = Literal["paths", "point"]


@strategy(paper="1911.12436", guarantee=Guarantee.LOSSLESS, family="linear", only={"outcome": "paths"})
def sparse_ar(
    target: LagsSession,
    ask: Ask,
    *,
    lags: Annotated[int, Knob(0, 336, "lags that are offered; 0: a season and one more, at least 24")] = 0,
    share: Annotated[float, Knob(0.01, 1.0, "of the lags, expected to matter; 1 is least squares")] = 0.1,
    ahead: Annotated[int, Knob(1, 48, "steps that maps of their own give at once; 1 feeds back every step")] = 1,
    outcome: Annotated[Outcome, Knob(None, None, "paths with the noise of the fit, or one curve without")] = "paths",
    paths: Annotated[int, Knob(1, 1024, "sample paths")] = 64,
) -> Iterator[Step]:
    """Yield one step per target call: a step or a block of every path.

    figures: `width`, the mean deviation of its law; in the first step `lag i` and `plain i`, weights with and without
    the penalty where that left any, and `root i` and `turn i`, size and angle of the largest roots of the recursion.
    """
    plain = target.fit(lags, 1.0, ahead)
    fitted = target.fit(lags, share, ahead)
    told = stems(fitted, plain) | spokes(roots(fitted.weights_Ap))
    horizon, start = ask.left, 0
    count = int((fitted.weights_Ap != 0).any(0).sum())
    found = f"{count} of {fitted.weights_Ap.shape[1]} lags, largest root {told['root 1']:.3f}"
    under_way = Paths(target, ask, paths) if outcome == "paths" else None
    if under_way is None:
        target.fork(1)
        told |= level_figures((0.5,))
    while start < horizon:
        law = target.score()[:, 0]
        marks: list[Mark] | tuple[Mark, ...]
        if under_way is not None:
            x_S1P = placed(law, under_way.noise(under_way.open, 1)[:, 0])[:, None]
            target.commit(x_S1P, [1] * paths)
            marks = under_way.add(under_way.open, x_S1P, [1] * paths, [Fate.BONUS] * paths)
        else:
            target.commit(law.mean_NP[:, None], [1])
            marks = band_marks(law.mean_NP, start, horizon)
            progress(ask, min(target.patch, horizon - start))
        start += target.patch
        yield Step(tuple(marks), found, figures={"width": shorten(widths(law).mean()), **told})
        told, found = {}, f"step {min(start, horizon)} of {horizon}"


def stems(fitted: Lags, plain: Lags) -> dict[str, float]:
    """Weights of the first map by lag, with the penalty and without."""
    both = zip(fitted.weights_Ap[0].tolist(), plain.weights_Ap[0].tolist(), strict=True)
    kept = [(i, w, w0) for i, (w, w0) in enumerate(both, 1) if w]
    return {f"lag {i}": shorten(w) for i, w, _ in kept} | {f"plain {i}": shorten(w0) for i, _, w0 in kept}


def spokes(root_Z: Tensor) -> dict[str, float]:
    """Size and angle (in half turns) of roots."""
    size = {f"root {i}": shorten(z.abs()) for i, z in enumerate(root_Z[:SHOWN], 1)}
    return size | {f"turn {i}": shorten(z.angle() / torch.pi) for i, z in enumerate(root_Z[:SHOWN], 1)}


def roots(weights_Ap: Tensor) -> Tensor:
    """Eigenvalues of the recursion of the last p values by one step, the largest first. [p] complex

    For a block of A steps: of the map from block to block, each to the power 1 / A.
    """
    ahead, lags = weights_Ap.shape
    shift_pp = torch.eye(lags, dtype=weights_Ap.dtype).roll(ahead, 0)[ahead:] if ahead < lags else weights_Ap[:0]
    root_Z = torch.linalg.eigvals(torch.cat((weights_Ap.flip(0), shift_pp))[:lags])
    root_Z = torch.polar(root_Z.abs() ** (1 / ahead), root_Z.angle() / ahead)
    return root_Z[root_Z.abs().argsort(descending=True)]
