"""Painters of maps in training: what they are shown, what is learned of it, resumed, measured and saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from backend.codecs.portraits import held_out_rows
from backend.codecs.pyramid import SIZES, shipped
from backend.errors import UserError
from backend.models.house.portrait_judge import PortraitJudge, save_judge
from backend.models.house.scales import CHOICES, Scales, logits_of, new_scales, read_scales, save_scales
from backend.train.portraits import loop, scales, scales_measure
from backend.train.portraits.raster import CODEC, Draws, draw_batch
from backend.train.portraits.raster_measure import fresh
from backend.train.portraits.scales import NAMES, MapDraws, ScaleJob, loss_of, prepare, some_maps
from backend.train.smollm2_draft import Recipe

RECIPE = Recipe(tokens=0, writers=0, batch=4, trainers=1, steps=10, batch_tokens=0, rate=0.1)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {
        name: replace(config, dim=16, num_layers=2, num_heads=2, ffn_dim=24, redraws=min(config.redraws, 1))
        for name, config in scales.SIZES.items()
    }
    monkeypatch.setattr(scales, "SIZES", sizes)


def job(tmp_path: Path, model: str = "target", **changes: Any) -> ScaleJob:
    return ScaleJob(replace(RECIPE, **changes), "cpu", tmp_path, model, tmp_path)


def net(which: str = "target", seed: int = 0) -> Scales:
    torch.manual_seed(seed)
    config = scales.SIZES[which]
    return new_scales(config, shipped(config.kind))


def batches(tmp_path: Path, model: str, number: int, step: int = 0) -> list[tuple[torch.Tensor, ...]]:
    return list(islice(MapDraws(job(tmp_path, model), 0, step), number))


# ------------------------------------------------------------------------------------------------------ what is shown
@pytest.mark.parametrize("model", ["target", "bands", "flex"])
def test_batches_are_the_portraits_of_the_painter_as_maps(tmp_path: Path, model: str) -> None:
    pyramid = shipped(scales.SIZES[model].kind)
    for ours, theirs in zip(batches(tmp_path, model, 3), islice(Draws(RECIPE, 0, 0), 3), strict=True):
        assert torch.equal(ours[0], theirs[0])
        pixels = CODEC.tokenizer.decode(theirs[1].numpy())
        np.testing.assert_array_equal(ours[1].numpy(), pyramid.encode(pixels))
        assert not held_out_rows(ours[0].numpy()).any()
    late, early = batches(tmp_path, model, 1, step=2)[0], batches(tmp_path, model, 3)[2]
    assert all(torch.equal(a, b) for a, b in zip(late, early, strict=True))


def test_lists_of_maps_are_of_every_length_and_end_with_the_picture() -> None:
    rng = np.random.default_rng(0)
    lists = np.stack([some_maps(7, rng) for _ in range(3000)])
    assert lists[:, -1].all()
    lengths = np.bincount(lists.sum(axis=1), minlength=8) / len(lists)
    assert lengths[7] == pytest.approx(1 / 3, abs=0.03)
    assert lengths[1:7] == pytest.approx(np.full(6, 1 / 9), abs=0.02)
    assert lists[:, :-1].mean(axis=0) == pytest.approx(np.full(6, lists[:, :-1].mean()), abs=0.03)


def test_masked_shares_are_even_by_map(tmp_path: Path) -> None:
    draws = MapDraws(job(tmp_path, "mask"), 0, 0)
    masked_BL = draws.masked(2000, np.random.default_rng(1))
    for start, end in zip(draws.pyramid.starts[1:], draws.pyramid.starts[2:], strict=False):
        share_B = masked_BL[:, start:end].mean(axis=1)
        assert share_B.min() > 0
        assert share_B.mean() == pytest.approx(0.5 + 0.5 / (end - start), abs=0.03)
        if end - start > 16:
            assert np.quantile(share_B, [0.25, 0.75]) == pytest.approx([0.25, 0.75], abs=0.06)


# ----------------------------------------------------------------------------------------------------- what is learned
def test_the_loss_is_of_every_token_of_the_maps_that_are_there(tmp_path: Path) -> None:
    model = net("flex")
    conditions, canvas, _ = batches(tmp_path, "flex", 1)[0]
    there = torch.tensor([False, True, False, False, True, False, True])
    spans = [slice(1, 5), slice(30, 66), slice(166, 422)]
    logits = logits_of(model, conditions, canvas, [1, 4, 6])
    wanted = F.cross_entropy(logits.flatten(0, 1), torch.cat([canvas[:, span] for span in spans], dim=1).flatten())
    assert loss_of(model, conditions, canvas, there).item() == pytest.approx(wanted.item(), abs=0.02)
    plain = net()
    conditions, canvas, nothing = batches(tmp_path, "target", 1)[0]
    wanted = F.cross_entropy(logits_of(plain, conditions, canvas).flatten(0, 1), canvas.flatten())
    assert loss_of(plain, conditions, canvas, nothing).item() == pytest.approx(wanted.item(), abs=0.02)


def test_a_model_may_start_from_another(tmp_path: Path) -> None:
    """What both have is the base's; of the flat kind the only head is that of the base's last map."""
    with pytest.raises(UserError, match=r"train it with: python -m backend\.train\.portraits\.scales --model target"):
        prepare(job(tmp_path, "flex-plain"))
    base = net()
    save_scales(tmp_path / "portraits-scales.safetensors", base)
    read = read_scales(tmp_path / "portraits-scales.safetensors")
    for which in ("markov", "flex-plain", "bands"):
        model = prepare(job(tmp_path, which))
        assert model.config == scales.SIZES[which]
        assert torch.equal(model.blocks[1].qkv.weight, read.blocks[1].qkv.weight)
        assert torch.equal(model.heads[-1].weight, read.heads[-1].weight)
        assert all(weight.requires_grad for weight in model.parameters())


def test_attributes_that_speak_to_blocks_say_nothing_at_first(tmp_path: Path) -> None:
    save_scales(tmp_path / "portraits-flex-plain.safetensors", net("flex-plain"))
    base, model = read_scales(tmp_path / "portraits-flex-plain.safetensors"), prepare(job(tmp_path, "flex"))
    conditions_BA, canvas_BL, there_K = MapDraws(job(tmp_path, "flex"), 0, 0).batch(1)
    assert len(there_K) == len(model.pyramid.sizes)
    plain, told = (logits_of(each, conditions_BA, canvas_BL) for each in (base, model))
    torch.testing.assert_close(told, plain)
    scales.train(job(tmp_path, "flex", steps=2), model, 0)
    spoken = model.blocks[0].own, model.ada.weight, model.embed_asked.weight
    assert all(float(weight.detach().abs().max()) > 0 for weight in spoken)
    assert float((logits_of(model, conditions_BA, canvas_BL) - plain).detach().abs().max()) > 1e-3


def test_a_branch_starts_as_its_base_and_leaves_it_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train it with: python -m backend\.train\.portraits\.scales --model markov"):
        prepare(job(tmp_path, "mask"))
    base, model = net("markov"), net("mask", 3)
    scales.graft(model, base)
    for name, weight in base.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    assert torch.equal(model.redraw_blocks[0].qkv.weight, base.blocks[1].qkv.weight)
    assert torch.equal(model.redraw_heads[0].weight, base.heads[0].weight)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    scales.train(job(tmp_path, "mask", steps=2), model, 0)
    moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved
    assert not moved & set(base.state_dict())
    assert {"embed_mask", "embed_told.weight", "redraw_blocks.0.qkv.weight", "redraw_heads.3.weight"} <= moved


@pytest.mark.parametrize("model", ["target", "flex"])
def test_training_learns_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """Stopped after two steps of ten and gone on with, it ends as if it had never stopped."""
    (tmp_path / "halves").mkdir()
    held = batches(tmp_path, model, 1, step=50)[0][:2]
    once, again = net(model), net(model)
    everything = torch.ones(len(SIZES), dtype=torch.bool)
    with torch.no_grad():
        before = loss_of(once, *held, everything).item()
    scales.train(job(tmp_path, model), once, 0)
    with torch.no_grad():
        assert loss_of(once, *held, everything).item() < before - 0.1
    monkeypatch.setattr(loop, "SAVED_EVERY", 2)
    whole = MapDraws.loaded

    def two(self: MapDraws) -> Iterator[Any]:
        yield from islice(whole(self), 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(MapDraws, "loaded", two)
    with pytest.raises(KeyboardInterrupt):
        scales.train(job(tmp_path / "halves", model), again, 0)
    monkeypatch.setattr(MapDraws, "loaded", whole)
    resumed = net(model, seed=9)
    scales.train(job(tmp_path / "halves", model), resumed, 0)
    for name, weight in resumed.state_dict().items():
        torch.testing.assert_close(weight, once.state_dict()[name])


# ------------------------------------------------------------------------------------------------------- what is saved
@pytest.mark.parametrize("model", ["target", "mask", "flex"])
def test_a_model_is_saved_with_a_card_that_says_what_was_measured(tmp_path: Path, model: str) -> None:
    save_judge(tmp_path / "portrait-judge.safetensors", PortraitJudge((4, 4, 4, 8)))
    scales.save(job(tmp_path, model), net(model), pictures=2, held=4)
    card = json.loads((tmp_path / f"{NAMES[model]}.json").read_text())
    assert card["id"] == f"house/{NAMES[model]}"
    assert card["num_params"] == net(model).num_params
    assert card["portraits"] == 40
    assert card["reconstruction"]["maps"][-1]["pixels_exact"] == 1.0
    saved = read_scales(tmp_path / f"{NAMES[model]}.safetensors")
    assert card["held_out"] == scales_measure.held_out(saved, 4)
    ways = {name for name in card["painted"] if name.startswith("cfg_")}
    again = {f"cfg_{s}_masked_scale" for s in (1, 2, 3)} if model == "mask" else set()
    assert ways == {*(f"cfg_{s}" for s in (1, 2, 3)), *again}
    told = card["held_out"]["nats_per_token_named"]
    assert set(told) == {*(f"{h}x{w}" for h, w in SIZES), "all", "picture"}


def test_losses_by_map_are_means_of_what_a_full_pass_tells() -> None:
    model = net()
    conditions, cells = fresh(draw_batch, 4)
    canvas = torch.from_numpy(model.pyramid.encode(CODEC.tokenizer.decode(cells.numpy())))
    nats = F.cross_entropy(logits_of(model, conditions, canvas).transpose(1, 2), canvas, reduction="none")
    told = scales_measure.held_out(model, 4)["nats_per_token_named"]
    assert told["6x6"] == pytest.approx(nats[:, 30:66].mean().item(), abs=1e-3)
    assert told["picture"] == pytest.approx(nats.sum(1).mean().item(), abs=0.1)


def test_the_sizes_are_those_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    params = {which: Scales(config, shipped(config.kind)).num_params for which, config in scales.SIZES.items()}
    assert params["target"] == params["markov"] == params["bands"] == pytest.approx(1.4e6, rel=0.01)
    assert params["flex-plain"] == pytest.approx(1.27e6, rel=0.01)
    asked = (sum(CHOICES) + 8 * 160 + 8 + 4 * 6) * 160  # vectors, the shared map, each block's own
    assert params["flex"] - params["flex-plain"] == asked
    assert params["small"] == pytest.approx(0.25e6, rel=0.02)
    assert params["mask"] - params["markov"] == pytest.approx(0.78e6, rel=0.01)
    assert set(scales.RECIPES["cpu"]) == set(scales.SIZES) == set(NAMES) == set(scales.MINUTES)
