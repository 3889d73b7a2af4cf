"""Training of models of series as tokens: nothing of the future is in the scale, and only the open is to be told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.codecs.bins import BINS, MISSING, SIZE
from backend.codecs.series_tokens import SeriesTokens
from backend.errors import UserError
from backend.models.house import strip
from backend.models.house.llama import Llama
from backend.models.house.own import save_own
from backend.train.forecast import tokens_measure
from backend.train.forecast.held_out import Case
from backend.train.forecast.tokens import (
    GIVEN,
    LAGS,
    LONGEST,
    NAMES,
    RECIPES,
    SETTLED,
    SIZES,
    SMOOTH,
    Rows,
    TokenJob,
    as_tokens,
    look_back,
    loss_of,
    prepare,
    read_tokens,
    smoothed,
    still_masked,
    with_gaps,
)
from backend.train.tales import GONE, new_model

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
    for read_BL, goal_BL, weight_BL in (next(source) for _ in range(12)):
        assert read_BL.shape == goal_BL.shape == weight_BL.shape
        assert set(weight_BL.unique().tolist()) == {np.float32(GIVEN), 1.0}
        told = goal_BL != GONE
        assert (weight_BL[told] == 1).all() or not masked
        assert masked or not told[:, :SETTLED].any() or (weight_BL[:, :SETTLED][told[:, :SETTLED]] == 1).all()
        told = told & (weight_BL == 1)
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
    wanted = -(law_MV * logits_MV.log_softmax(-1)).sum(-1)
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


@pytest.mark.parametrize("model", ["target", "draft", "masked"])
@torch.no_grad()
def test_the_first_heads_look_back_before_any_training(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = model == "masked"
    net = prepare(TokenJob(RECIPE, "cpu", tmp_path, "masked" if masked else "target", tmp_path))[0]
    if model == "draft":
        net = new_model(SIZES["draft"])
        assert isinstance(net, Llama)
        look_back(net)
    seen: list[torch.Tensor] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **more: bool) -> torch.Tensor:
        far_TT = torch.zeros(()) if masked else torch.full((q.shape[-2], q.shape[-2]), -torch.inf).triu(1)
        seen.append((q @ k.mT / q.shape[-1] ** 0.5 + far_TT).softmax(-1))
        return attend(q, k, v, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    read_BL = torch.from_numpy(np.random.default_rng(0).integers(0, BINS, (2, 256)))
    strip.features_of(net, read_BL) if masked else net.features(read_BL)
    for p_BHTT, lags in zip(seen, LAGS[masked], strict=False):
        for head, lag in enumerate(lags[: net.config.num_heads]):
            at_lag = p_BHTT[:, head].diagonal(-lag, 1, 2)
            # whatever the tokens, without any training; what looks both ways has twice as much to look at
            assert at_lag.mean() > (0.25 if masked else 0.4), (lag, at_lag.mean())


def case(name: str, horizon: int, past: int = 60) -> Case:
    y_T = 5 + np.sin(2 * np.pi * np.arange(past + horizon) / 12) + 0.01 * np.arange(past + horizon)
    return Case(name, y_T[:past], y_T[past:], 12, "waves")


@pytest.mark.parametrize("model", ["draft", "masked"])
def test_a_card_tells_what_a_model_does_on_held_out_series(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"waves": [case("a", 6), case("far", LONGEST + 1), case("b", 4)], "none": [case("flat", 5)]}
    held["none"][0].past_T[:] = 1.0
    monkeypatch.setattr(tokens_measure, "groups", lambda data: held)
    for which in {model, "target"} - {"masked"} | {model}:
        path = tmp_path / f"{NAMES[which]}.safetensors"
        save_own(path, prepare(TokenJob(RECIPE, "cpu", tmp_path, "target" if which == "draft" else which, tmp_path))[0])
        path.with_suffix(".json").write_text('{"id": "house/it"}')
    tokens_measure.measure(tmp_path / f"{NAMES[model]}.safetensors", 4, tmp_path)
    card = json.loads((tmp_path / f"{NAMES[model]}.json").read_text())
    assert set(card["held_out"]) == {"waves"}
    told = card["held_out"]["waves"]
    assert told["sampled"]["n"] == told["seasonal naive"]["n"] == 2, "not beyond what models of tokens reach"
    assert told["seasonal naive"]["MASE"] == pytest.approx(1, abs=1e-3), "a wave and a line: as in the past"
    ratio = told["sampled"]["WQL"] / told["seasonal naive"]["WQL"]
    assert card["skill_on_wql"] == pytest.approx(1 - min(ratio, 100), rel=1e-2)
    assert told["nats_per_step"] > 1
    if model == "draft":
        assert 0.9 < card["beside_series-tokens"]["alpha_at_temperature_1"] <= 1, "it is the target itself"


def test_a_draft_needs_its_target(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train it with"):
        read_tokens(TokenJob(RECIPE, "cpu", tmp_path, "draft", tmp_path), "target")
