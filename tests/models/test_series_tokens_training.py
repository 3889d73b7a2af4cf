"""Training of models of series as tokens: nothing of the future is in the scale, and only the open is to be told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.codecs.bins import BINS, MISSING, SIZE
from backend.codecs.series_tokens import SeriesTokens
from backend.errors import UserError
from backend.train.forecast.tokens import (
    RECIPES,
    SMOOTH,
    Rows,
    TokenJob,
    as_tokens,
    loss_of,
    prepare,
    read_tokens,
    smoothed,
    still_masked,
    with_gaps,
)
from backend.train.tales import GONE

RECIPE = replace(RECIPES["cpu"]["target"], batch_tokens=1500)


def windows(count: int = 40, width: int = 768) -> np.ndarray:
    """Half of them short, each with a level of its own and a few gaps."""
    rng = np.random.default_rng(0)
    y_NW = rng.normal(size=(count, width)).cumsum(1) + 50 * rng.normal(size=(count, 1))
    y_NW[rng.random((count, width)) < 0.02] = np.nan
    for i in range(0, count, 2):
        y_NW[i, : width - int(rng.integers(30, 150))] = np.nan
    y_NW[:, -1] = 1.0
    return y_NW.astype(np.float32)


def test_a_row_is_what_the_codec_makes_of_its_past() -> None:
    y_BL = windows()[1::2, -300:].astype(np.float64)
    open_BL = np.broadcast_to(np.arange(300) >= 250, y_BL.shape)
    ids_BL, good_B = as_tokens(y_BL, open_BL)
    assert good_B.all()
    for y_L, ids_L in zip(y_BL, ids_BL, strict=True):
        prompt = SeriesTokens().encode({"y": [None if np.isnan(y) else float(y) for y in y_L[:250]]})
        assert tuple(ids_L[:250].tolist()) == prompt.tokens
    other_BL = y_BL.copy()
    other_BL[:, 250:] *= 1e6
    assert (as_tokens(other_BL, open_BL)[0][:, :250] == ids_BL[:, :250]).all()
    flat = np.ones((1, 300))
    assert not as_tokens(flat, open_BL[:1])[1].any()


@pytest.mark.parametrize("masked", [False, True])
def test_batches_tell_only_what_is_open_and_known(masked: bool) -> None:
    rows = Rows(windows(), RECIPE, 0, masked)
    source = rows.batches(0)
    for read_BL, goal_BL in (next(source) for _ in range(12)):
        assert read_BL.shape == goal_BL.shape
        told = goal_BL != GONE
        assert told.any(dim=1).all()
        assert (goal_BL[told] < BINS).all()
        assert (read_BL[told] == (SIZE if masked else goal_BL[told])).all()
        assert read_BL.max() <= (SIZE if masked else MISSING)
    again = next(rows.batches(3))
    assert torch.equal(again[0], rows.batch(np.random.default_rng([RECIPE.seed, 0, 3]))[0])


def test_masks_are_a_share_of_what_is_open() -> None:
    rng = np.random.default_rng(1)
    open_BL = np.broadcast_to(np.arange(80) >= 50, (200, 80))
    gaps_BL = with_gaps(open_BL, rng)
    assert 60 < (gaps_BL == open_BL).all(axis=1).sum() < 140  # half of the rows have no gaps
    masked_BL = still_masked(open_BL, rng)
    assert not (masked_BL & ~open_BL).any()
    counts_B = masked_BL.sum(axis=1)
    assert counts_B.min() >= 3
    assert counts_B.max() == 30
    suffix_B = [masked_BL[b, 80 - n :].all() for b, n in enumerate(counts_B)]
    assert 70 < sum(suffix_B) < 140


def test_the_smoothed_loss_is_that_of_a_law_with_neighbours() -> None:
    logits_MV, goal_M = torch.randn(4, BINS), torch.tensor([0, 7, 300, BINS - 1])
    law_MV = torch.zeros(4, BINS)
    for m, goal in enumerate(goal_M.tolist()):
        law_MV[m, goal] = 1 - SMOOTH
        for beside in (goal - 1, goal + 1):
            law_MV[m, beside if 0 <= beside < BINS else 2 * goal - beside] += SMOOTH / 2
    wanted = -(law_MV * logits_MV.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(smoothed(logits_MV, goal_M), wanted)


@pytest.mark.parametrize("model", ["draft", "masked"])
def test_a_step_of_training_lowers_the_loss(model: str, tmp_path: Path) -> None:
    job = TokenJob(replace(RECIPE, trainers=1), "cpu", tmp_path, "target" if model == "draft" else model, tmp_path)
    net, _ = prepare(job)
    teacher = prepare(job)[0] if model == "draft" else None
    batch = Rows(windows(), job.recipe, 0, model == "masked").batch(np.random.default_rng(0))
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(4):
        loss = loss_of(net, *batch, teacher)
        losses.append(float(loss.detach()))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert losses[-1] < losses[0]


def test_a_draft_needs_its_target(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train it with"):
        read_tokens(TokenJob(RECIPE, "cpu", tmp_path, "draft", tmp_path), "target")
