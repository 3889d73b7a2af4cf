"""Painters of portraits in training: what they are shown, that it is learned, resumed, measured and saved."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from backend.codecs.portraits import VOCABULARY, held_out_rows
from backend.errors import UserError
from backend.models.house.llama import Llama
from backend.models.house.portrait_judge import PortraitJudge, save_judge
from backend.models.house.raster import logits_of
from backend.train.portraits import loop, raster, raster_measure
from backend.train.portraits.raster import LAYOUT, Draws, RasterJob, draw_batch, laws_of, left_open, loss_of
from backend.train.portraits.subjects import PIXELS
from backend.train.smollm2_draft import Recipe
from backend.train.tales import new_model

RECIPE = Recipe(tokens=0, writers=0, batch=8, trainers=1, steps=10, batch_tokens=0, rate=0.1)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"target": LAYOUT.config(32, 2, 2, 48), "draft": LAYOUT.config(16, 1, 1, 24)}
    monkeypatch.setattr(raster, "SIZES", sizes)


def net(which: str = "target", seed: int = 0) -> Llama:
    torch.manual_seed(seed)
    model = new_model(raster.SIZES[which])
    assert isinstance(model, Llama)
    return model


def job(tmp_path: Path, model: str = "target", **changes: Any) -> RasterJob:
    return RasterJob(replace(RECIPE, **changes), "cpu", tmp_path, model, tmp_path)


# ------------------------------------------------------------------------------------------------------ what is shown
def test_trainers_see_different_portraits_without_held_out_pairs_and_go_on_where_they_were() -> None:
    def batches(rank: int, step: int, number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(islice(Draws(RECIPE, rank, step), number))

    first, other = batches(0, 0, 6), batches(1, 0, 6)
    assert not any(torch.equal(a[1], b[1]) for a, b in zip(first, other, strict=True))
    for late, early in zip(batches(0, 4, 2), first[4:], strict=True):
        assert torch.equal(late[0], early[0])
        assert torch.equal(late[1], early[1])
    assert not any(held_out_rows(conditions.numpy()).any() for conditions, _ in first + other)
    rows, canvases = draw_batch(200, np.random.default_rng(0))
    assert not held_out_rows(rows.numpy()).any()
    assert canvases.shape == (200, 256)
    assert 0 <= int(canvases.min()) <= int(canvases.max()) < 128


def test_processes_that_draw_give_the_same_batches() -> None:
    alone = list(islice(Draws(RECIPE, 0, 3), 5))
    together = list(islice(Draws(replace(RECIPE, writers=2), 0, 3).loaded(), 5))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_conditions_are_left_open_in_every_degree() -> None:
    rng = np.random.default_rng(1)
    rows, _ = draw_batch(4000, rng)
    open_B = (left_open(rows.numpy(), rng) == 0).sum(axis=1)
    shares = np.bincount(open_B, minlength=14) / len(open_B)
    assert shares[13] == pytest.approx(0.1 + 0.6 / 14, abs=0.02)  # a uniform share leaves each number as often
    assert shares[0] == pytest.approx(0.3 + 0.6 / 14, abs=0.02)
    assert shares[1:13] == pytest.approx(np.full(12, 0.6 / 14), abs=0.015)
    kept = left_open(rows.numpy(), rng)
    assert ((kept == 0) | (kept == rows.numpy())).all()


def test_the_sizes_are_those_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    params = {which: Llama(config).num_params for which, config in raster.SIZES.items()}
    assert params == {"target": pytest.approx(1.2e6, rel=0.05), "draft": pytest.approx(0.15e6, rel=0.05)}
    assert LAYOUT.choices == tuple(len(values) + 1 for values in VOCABULARY.values())


# ----------------------------------------------------------------------------------------------------- what is learned
def test_the_loss_is_of_every_pixel_and_half_of_it_the_teachers() -> None:
    conditions, canvas = next(iter(Draws(RECIPE, 0, 0)))
    model, teacher = net(), net("draft", 1)
    logits = logits_of(model, LAYOUT, conditions, canvas)
    plain = F.cross_entropy(logits.flatten(0, 1), canvas.flatten())
    assert loss_of(model, conditions, canvas, None).item() == pytest.approx(plain.item(), abs=0.01)
    taught = loss_of(model, conditions, canvas, teacher)
    p = laws_of(teacher, conditions, canvas).softmax(-1)
    against = -(p * logits.log_softmax(-1)).sum(-1).mean()
    assert taught.item() == pytest.approx((plain.item() + against.item()) / 2, abs=0.01)
    taught.backward()
    assert all(weight.grad is None for weight in teacher.parameters())


def test_training_learns_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after four steps of ten and gone on with, it ends as if it had never stopped."""
    (tmp_path / "halves").mkdir()
    held = raster_measure.fresh(draw_batch, 32)
    once, again = net(), net()
    before = raster_measure.nats(once, laws_of, *held)
    raster.train(job(tmp_path), once, None, 0)
    assert raster_measure.nats(once, laws_of, *held) < before - 1
    monkeypatch.setattr(loop, "SAVED_EVERY", 2)
    whole = Draws.__iter__

    def four(self: Draws) -> Any:
        yield from islice(whole(self), 4)
        raise KeyboardInterrupt

    monkeypatch.setattr(Draws, "__iter__", four)
    with pytest.raises(KeyboardInterrupt):
        raster.train(job(tmp_path / "halves"), again, None, 0)
    monkeypatch.setattr(Draws, "__iter__", whole)
    resumed = net(seed=9)
    raster.train(job(tmp_path / "halves"), resumed, None, 0)
    for name, weight in resumed.state_dict().items():
        torch.testing.assert_close(weight, once.state_dict()[name])


# ---------------------------------------------------------------------------------------------------- what is measured
def test_measures_hold_held_out_pairs_apart() -> None:
    for which, all_held in (("seen", False), ("held_out", True)):
        rows, _ = raster_measure.fresh(draw_batch, 50, which)  # type: ignore[arg-type]
        assert held_out_rows(rows.numpy()).all() == all_held
        assert held_out_rows(rows.numpy()).any() == all_held
    told = raster_measure.held_out(net(), laws_of, draw_batch, 40)
    assert told["nats_per_pixel_named"] != told["nats_per_pixel_open"] != told["nats_per_pixel_held_out_pairs"]
    conditions, canvas = raster_measure.fresh(draw_batch, 40)
    logits = laws_of(net(), conditions, canvas)
    assert told["nats_per_pixel_named"] == pytest.approx(
        F.cross_entropy(logits.flatten(0, 1), canvas.flatten()).item(), abs=2e-3
    )


def test_a_draft_that_is_its_target_is_always_kept() -> None:
    """52 calls of 4 guesses and one pixel more paint 256."""
    told = raster_measure.agreement(net(), net(), laws_of, PIXELS, 8, 1)
    assert told["agreement"] == 1.0
    assert told["overlap_temperature_1"] == pytest.approx(1.0, abs=1e-3)
    assert told["mean_acceptance_length_gamma4_temperature_0"] == round(256 / 52, 3)
    assert told["mean_acceptance_length_gamma4_temperature_1"] == round(256 / 52, 3)
    other = raster_measure.agreement(net("draft"), net(), laws_of, PIXELS, 8, 1)
    assert other["mean_acceptance_length_gamma4_temperature_0"] < 256 / 52


# ------------------------------------------------------------------------------------------------------- what is saved
def test_target_and_draft_are_saved_with_cards_that_say_what_was_measured(tmp_path: Path) -> None:
    save_judge(tmp_path / "portrait-judge.safetensors", PortraitJudge((4, 4, 4, 8)))
    raster.save(job(tmp_path), net(), pictures=1, held=8)
    card = json.loads((tmp_path / "portraits.json").read_text())
    assert card["id"] == "house/portraits"
    assert card["num_params"] == net().num_params
    assert card["portraits"] == 80
    assert set(card["painted"]) == {"pictures", "temperature", "best", *(f"accuracy_cfg_{s}" for s in (1, 2, 3))}
    saved = raster.read_painter(job(tmp_path), "target")
    told = raster_measure.held_out(saved, laws_of, draw_batch, 8)
    assert card["held_out"] == told
    raster.save(job(tmp_path, "draft"), net("draft"), pictures=1, held=8)
    card = json.loads((tmp_path / "portraits-draft.json").read_text())
    assert 0 <= card["beside_portraits"]["agreement"] <= 1
    assert card["beside_portraits"]["mean_acceptance_length_gamma4_temperature_1"] >= 1


def test_a_draft_without_its_target_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train it with: python -m backend\.train\.portraits\.raster --model target"):
        raster.prepare(job(tmp_path, "draft"))
