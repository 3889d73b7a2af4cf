"""The masked painter in training: which cells are masked, what the loss is, that it learns, resumes, is measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from backend.errors import UserError
from backend.models.house.llama import Llama
from backend.models.house.masked import config_of, features_of, logits_of, mask_of
from backend.models.house.portrait_judge import PortraitJudge, save_judge
from backend.train.portraits import judged, loop, masked
from backend.train.portraits.masked import MaskedDraws, MaskedJob, masked_cells, nats_of
from backend.train.portraits.raster import LAYOUT, Draws
from backend.train.smollm2_draft import Recipe

RECIPE = Recipe(tokens=0, writers=0, batch=4, trainers=1, steps=10, batch_tokens=0, rate=0.1)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked, "CONFIG", config_of(LAYOUT, 16, 1, 2, 24))


def job(tmp_path: Path, **changes: Any) -> MaskedJob:
    return MaskedJob(replace(RECIPE, **changes), "cpu", tmp_path, "masked", tmp_path)


def net(tmp_path: Path, seed: int = 1) -> Llama:
    return masked.prepare(job(tmp_path, seed=seed))


# ------------------------------------------------------------------------------------------------------ what is masked
def test_the_masked_share_is_the_cosine_of_an_even_number() -> None:
    rng = np.random.default_rng(0)
    masked_BL = masked_cells(4000, rng)
    share_B = masked_BL.double().mean(dim=1)
    assert share_B.mean() == pytest.approx(2 / math.pi, abs=0.02)  # of cos(pi/2 u)
    assert float((share_B < 0.5).double().mean()) == pytest.approx(
        1 / 3, abs=0.03
    )  # arccos(1/2) is 2/3 of a right angle
    assert masked_BL.any(dim=1).all()
    assert masked_BL.double().mean(dim=0).std() < 0.01  # every cell as often
    assert (masked_cells(50, rng, 0.25).sum(dim=1) == 64).all()
    assert masked_cells(3, rng, 1.0).all()


def test_batches_are_those_of_raster_with_masks_of_their_own() -> None:
    whole = list(islice(MaskedDraws(RECIPE, 0, 0).batches(), 4))
    later = list(islice(MaskedDraws(RECIPE, 0, 2).batches(), 2))
    for ours, theirs in zip(whole, islice(Draws(RECIPE, 0, 0), 4), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours[:2], theirs, strict=True))
    for ours, theirs in zip(whole[2:], later, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    other = next(MaskedDraws(RECIPE, 1, 0).batches())
    assert not torch.equal(whole[0][2], whole[1][2])
    assert not torch.equal(whole[0][2], other[2])


# ----------------------------------------------------------------------------------------------------- what is learned
def test_the_loss_is_of_masked_cells_and_does_not_see_them(tmp_path: Path) -> None:
    model = net(tmp_path)
    conditions, canvas, gone = next(MaskedDraws(RECIPE, 0, 0).batches())
    got = nats_of(model, conditions, canvas, gone)
    read = torch.where(gone, mask_of(LAYOUT), canvas)
    logits = logits_of(model, features_of(model, LAYOUT, conditions, read))
    wanted = F.cross_entropy(logits[gone], canvas[gone], reduction="none")
    torch.testing.assert_close(got, wanted, atol=0.05, rtol=0.02)  # products in bfloat16
    hidden = torch.where(gone, (canvas + 1) % 128, canvas)
    told = F.cross_entropy(logits[gone], hidden[gone], reduction="none")
    torch.testing.assert_close(nats_of(model, conditions, hidden, gone), told, atol=0.05, rtol=0.02)


def test_training_learns_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after four steps of ten and gone on with, it ends as if it had never stopped."""
    monkeypatch.setattr(loop, "SAVED_EVERY", 2)
    (tmp_path / "halves").mkdir()
    batch = next(MaskedDraws(RECIPE, 5, 0).batches())
    once, again, resumed = net(tmp_path), net(tmp_path), net(tmp_path, seed=9)
    before = nats_of(once, *batch).mean().item()
    masked.train(job(tmp_path), once, 0)
    assert nats_of(once, *batch).mean().item() < before - 0.3
    whole = MaskedDraws.batches

    def four(self: MaskedDraws) -> Any:
        yield from islice(whole(self), 4)
        raise KeyboardInterrupt

    monkeypatch.setattr(MaskedDraws, "batches", four)
    with pytest.raises(KeyboardInterrupt):
        masked.train(job(tmp_path / "halves"), again, 0)
    monkeypatch.setattr(MaskedDraws, "batches", whole)
    masked.train(job(tmp_path / "halves"), resumed, 0)
    for name, weight in resumed.state_dict().items():
        torch.testing.assert_close(weight, once.state_dict()[name])


# ---------------------------------------------------------------------------------------------- what is measured, saved
def test_the_card_says_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked, "SCALES", (1.0, 2.0))
    monkeypatch.setattr(masked, "STEPS", 2)
    save_judge(tmp_path / "portrait-judge.safetensors", PortraitJudge((4, 4, 4, 8)))
    masked.save(job(tmp_path), net(tmp_path), pictures=2, held=4)
    card = json.loads((tmp_path / "portraits-masked.json").read_text())
    assert card["id"] == "house/portraits-masked"
    assert card["num_params"] == net(tmp_path).num_params
    assert card["portraits"] == 40
    assert "CC0" in card["license"]
    saved = masked.read_masked(tmp_path / "portraits-masked.safetensors", "cpu")
    assert card["held_out"] == masked.held_out(saved, 4)
    kinds = [value for name, value in card["held_out"].items() if name.startswith("nats_per_masked_cell")]
    assert [set(kind) for kind in kinds] == [{"0.25", "0.5", "0.75", "1"}] * 4
    told = card["painted"]
    assert told["strategy"] == "confidence"
    assert told["knobs"]["steps"] == 2
    for name in ("cfg_1", "cfg_2"):
        assert 0 <= told[name]["accuracy"]["all"] <= 1
        assert told[name]["fd_house"] >= 0
        assert told[name]["median_seconds_a_picture"] > 0
    assert told["cfg_1"] != told["cfg_2"]


def test_the_distance_of_what_was_asked_for_is_smallest(tmp_path: Path) -> None:
    """Real portraits of the prompts are right and at distance 0; grey ones are neither."""
    judge = PortraitJudge((4, 4, 4, 8))
    save_judge(tmp_path / "portrait-judge.safetensors", judge)
    _, real, _ = judged.asked(6)
    grey = np.full((16, 16, 3), 128, dtype=np.uint8)
    ways = [("real", lambda asked, seed: real[seed]), ("grey", lambda asked, seed: grey)]
    told = judged.judged(ways, tmp_path, 6)
    assert told["real"]["fd_house"] == pytest.approx(0, abs=0.05)
    assert told["grey"]["fd_house"] > told["fd_house_of_as_many_real_portraits"] > told["real"]["fd_house"]
    assert judged.judged(ways, tmp_path / "nowhere", 6) == {}


def test_a_model_that_is_not_trained_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train it with: python -m backend\.train\.portraits\.masked"):
        masked.read_masked(tmp_path / "portraits-masked.safetensors", "cpu")
