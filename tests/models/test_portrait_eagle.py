"""EAGLE's layer on a raster painter: decoding is what was trained, pictures are the painter's, training, catalog."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from backend import catalog as catalog_module
from backend.catalog import EAGLE, Catalog
from backend.chance import Ask, Seeded
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.heads import EagleLayer, save_heads
from backend.models.house.own import save_own
from backend.models.house.raster import features_of
from backend.models.house.raster_heads import RasterEagle
from backend.models.raster import RasterModel, guided
from backend.models.raster_heads import PainterHeads
from backend.protocols import CausalSession, HeadsSession, Prompt
from backend.registry import find
from backend.train.portraits import eagle
from backend.train.portraits.eagle import Base, EagleJob
from backend.train.smollm2_draft import Recipe
from backend.train.smollm2_heads_states import HeadBatch, eagle_states
from backend.types import Sampling
from tests.toys_raster import CELLS, CODEC, LAYOUT, PROMPT, painter_net

CONFIG = replace(eagle.CONFIG, dim=16, num_heads=2, num_kv_heads=2, head_dim=8, ffn_dim=24)
ODDS = [[0.5, 0.2]] * CONFIG.reach
CANVAS = torch.randint(128, (1, CELLS), generator=torch.Generator().manual_seed(4))


def layer(seed: int = 0) -> EagleLayer:
    torch.manual_seed(seed)
    return EagleLayer(CONFIG, torch.rand(16) + 0.5, torch.rand(16) + 0.5)


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.of(painter_net())


@pytest.fixture(scope="module")
def painter(base: Base) -> RasterModel:
    return eagle.painter(base.painter, "toy/painter")


@pytest.fixture(scope="module")
def heads(base: Base) -> PainterHeads:
    packed = RasterEagle(layer(), base.painter, LAYOUT, torch.float32)
    return PainterHeads("toy/eagle", packed, ODDS, CODEC, 5)


def drawn(target: RasterModel, heads: PainterHeads | None, raw: Any, temperature: float, budget: int) -> list[int]:
    """What a strategy paints: `eagle`, or plain decoding without heads."""
    prompt, sampling = CODEC.encode(raw), Sampling(temperature)
    session = target.open(CausalSession, prompt, sampling, Meter(), budget)
    ask = Ask(budget, Seeded(2))
    if heads is None:
        steps = find("autoregressive").run(session, ask)
    else:
        steps = find("eagle").run(session, heads.open(HeadsSession, prompt, sampling, Meter(), budget), ask, least=0.0)
    assert sum(1 for _ in steps)
    return list(session.tokens)


def test_decoding_is_what_was_trained(base: Base, painter: RasterModel, heads: PainterHeads) -> None:
    """Place 0 behind some text, and two more places behind guesses of its own."""
    prompt = CODEC.encode(PROMPT)
    target = painter.open(CausalSession, prompt, Sampling(1.0), Meter(), CELLS)
    told = heads.open(HeadsSession, prompt, Sampling(1.0), Meter(), CELLS)
    text = CANVAS[0, :20].tolist()
    scores = target.score(text)
    target.commit(text)
    told.commit(text, scores.trail(range(len(text)), len(text)))
    guesses = CANVAS[0, 20:22].tolist()
    raw_NV = told.score(guesses).raw_NV
    assert raw_NV is not None
    conditions = torch.tensor([prompt.extras["conditions"]])
    with torch.no_grad():
        feature_BLC = features_of(base.painter, LAYOUT, conditions, CANVAS)
        every = torch.ones_like(CANVAS)
        batch = HeadBatch(CANVAS, feature_BLC, every.bool(), *[every[..., None]] * 2, every, feature_BLC, every, every)
        embed_BLC = base.words.embed_VC[CANVAS] + base.place_LC
        states = eagle_states(layer(), base.words, batch, 3, embed_BLC)
    for place, state_BLC in enumerate(states):
        wanted_V = F.linear(state_BLC[0, 19 + place], base.words.head_KC)
        torch.testing.assert_close(raw_NV[place], wanted_V, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("scale", [None, 2.0])
def test_greedy_pictures_are_the_painters(painter: RasterModel, heads: PainterHeads, scale: float | None) -> None:
    target = painter if scale is None else guided(painter, scale)
    assert drawn(target, heads, PROMPT, 0.0, 40) == drawn(target, None, PROMPT, 0.0, 40)


def test_cells_that_are_given_are_text(painter: RasterModel, heads: PainterHeads) -> None:
    raw = {
        "prompt": PROMPT,
        "image": Image.fromarray(CODEC.tokenizer.decode(CANVAS[0].numpy())),
        "mask": np.repeat(np.arange(16)[:, None] >= 8, 16, axis=1).astype(np.uint8) * 255,
    }
    canvas = drawn(painter, heads, raw, 0.0, 12)
    assert canvas[:128] == CANVAS[0, :128].tolist()
    assert canvas == drawn(painter, None, raw, 0.0, 12)


def test_states_of_another_width_are_one_sentence(heads: PainterHeads) -> None:
    session = heads.open(HeadsSession, Prompt((), {"conditions": [0] * 13}), Sampling(), Meter(), 9)
    with pytest.raises(UserError, match="reads hidden states of 16 numbers, but this target's have 20"):
        session.commit([1], torch.zeros(1, 20))


# ------------------------------------------------------------------------------------------------------------ training
@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EagleJob:
    monkeypatch.setattr(eagle, "CONFIG", CONFIG)
    monkeypatch.setattr(eagle, "FITTED", 4)
    save_own(tmp_path / "portraits.safetensors", painter_net())
    recipe = Recipe(tokens=0, writers=0, batch=2, trainers=1, steps=4, batch_tokens=0, rate=0.02)
    return EagleJob(recipe, "cpu", tmp_path, "eagle", tmp_path)


def test_training_lowers_the_loss_and_the_card_tells_it(job: EagleJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eagle, "drafted", lambda *args: {})
    base = eagle.base_of(job)
    made = eagle.begun(job, base)
    before, odds = eagle.held_out(made, base, 2)
    assert len(odds) == eagle.REACH
    assert all(0 <= chance <= 1 for row in odds for chance in row)
    eagle.train(job, made, base, 0)
    assert job.checkpoint.exists()
    assert eagle.held_out(made, base, 2)[0] < before
    eagle.save(job, made, base, pictures=0, held=2)
    told = json.loads((job.out / "portraits-eagle.json").read_text())
    assert told["id"] == EAGLE
    assert len(told["held_out"]["agreement_per_place"]) == eagle.REACH
    assert told["num_params"] == made.num_params


def test_the_catalog_pairs_it_with_its_painter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "ASSETS", tmp_path)
    (tmp_path / "house").mkdir()
    shelf = Catalog("cpu", "float32")
    with pytest.raises(UserError, match=r"build it with: python -m backend\.train\.portraits\.eagle"):
        shelf.get(EAGLE)
    save_own(tmp_path / "house" / "portraits.safetensors", painter_net())
    save_heads(tmp_path / f"{EAGLE}.safetensors", layer(), torch.arange(128), ODDS, 6)
    loaded = shelf.get(EAGLE)
    assert isinstance(loaded, PainterHeads)
    assert loaded.codec.vocabulary == CODEC.vocabulary
    assert shelf.default("feature_draft", "house/portraits@cfg=2") == EAGLE
    with pytest.raises(UserError, match="no feature draft model for house/portraits-free"):
        shelf.default("feature_draft", "house/portraits-free")
