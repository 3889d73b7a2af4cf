"""The model of two nets: groups of colours, what the second net reads and says, sessions, files, training."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend import catalog as catalog_module
from backend.catalog import COARSE, Catalog
from backend.codecs.palette import PaletteTokenizer
from backend.entries import builds, card
from backend.errors import UserError
from backend.meter import Meter
from backend.models.coarse import CoarseCanvas, CoarseModel, coarse_model, guided
from backend.models.house.coarse import (
    CoarseNets,
    grouped,
    lab,
    medoids,
    painter_layout,
    read_as,
    read_coarse,
    refiner_config,
    save_coarse,
    within,
)
from backend.models.house.llama import Llama
from backend.models.house.masked import config_of, features_of, logits_of, mask_of
from backend.models.house.own import save_own
from backend.models.house.raster import logits_of as raster_logits
from backend.protocols import CoarseSession
from backend.run import record
from backend.train.portraits import coarse as training
from backend.train.portraits.coarse import CoarseJob
from backend.train.smollm2_draft import Recipe
from backend.types import Request, Sampling
from tests.toys_raster import CELLS, CODEC, LAYOUT, PROMPT, Painters, painter_net

PLAIN = Sampling(temperature=1.0)
COLOURS = PaletteTokenizer().colours_VC
GROUPS = training.GROUPS
GROUP_V = training.GROUP_V
CANVAS = [int(token) for token in torch.randint(128, (CELLS,), generator=torch.Generator().manual_seed(4))]


def random_net(config: Any, seed: int) -> Llama:
    torch.manual_seed(seed)
    net = Llama(config)
    for name, weight in net.named_parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.5 if "embed" in name else 0.4)
    return net


@pytest.fixture(scope="module")
def nets() -> CoarseNets:
    painter = random_net(painter_layout(LAYOUT, GROUPS).config(dim=16, num_layers=2, num_heads=2, ffn_dim=24), 1)
    refiner = random_net(refiner_config(LAYOUT, GROUPS, dim=16, num_layers=2, num_heads=2, ffn_dim=24), 2)
    return CoarseNets(painter, refiner, tuple(GROUP_V.tolist()))


@pytest.fixture(scope="module")
def model(nets: CoarseNets) -> CoarseModel:
    return coarse_model("toy/coarse", nets, torch.float64)


def opened(model: CoarseModel, raw: Any = PROMPT, meter: Meter | None = None, room: int = CELLS) -> CoarseCanvas:
    return model.open(CoarseSession, CODEC.encode(raw), PLAIN, meter or Meter(), room)


def conditions() -> torch.Tensor:
    return torch.tensor([CODEC.encode(PROMPT).extras["conditions"]])


# -------------------------------------------------------------------------------------------------------------- groups
def test_cielab_of_known_colours() -> None:
    """Values as colour science tables give them, D65."""
    told = lab(np.asarray([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]], dtype=np.uint8))
    wanted = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(told, wanted, atol=0.02)


@pytest.mark.parametrize("count", [1, 7, GROUPS, 128])
def test_every_colour_is_in_the_group_of_the_nearest_mean(count: int) -> None:
    group_V = grouped(COLOURS, count)
    assert sorted({*group_V.tolist()}) == list(range(count))
    assert (group_V == grouped(COLOURS, count)).all()
    x_VD = lab(COLOURS)
    means = np.stack([x_VD[group_V == group].mean(axis=0) for group in range(count)])
    far = ((x_VD[:, None] - means[None]) ** 2).sum(axis=2)
    assert (far.argmin(axis=1) == group_V).all()
    middle = medoids(COLOURS, group_V.tolist())
    assert [group_V[code] for code in middle] == list(range(count))
    for group, code in enumerate(middle):
        assert far[code, group] == far[group_V == group, group].min()


def test_what_a_refiner_reads() -> None:
    groups, known = torch.tensor([[3, 3, -1]]), torch.tensor([[-1, 77, -1]])
    mask = mask_of(LAYOUT)
    assert read_as(LAYOUT, groups, known).tolist() == [[mask + 1 + 3, 77, mask]]
    cut = within(torch.zeros(1, 3, 128), groups, GROUP_V)
    assert ((cut[0, 0] == 0) == (GROUP_V == 3)).all()
    assert (cut[0, 2] == 0).all()


# ------------------------------------------------------------------------------------------------------------ sessions
def test_both_nets_say_what_they_say_in_training(model: CoarseModel, nets: CoarseNets) -> None:
    meter = Meter()
    session = opened(model, meter=meter)
    groups = [model.members[code] for code in CANVAS]
    p_NM = session.score(groups[:5]).p_NV
    painter, refiner = (net.double() for net in (nets.painter, nets.refiner))
    raw = raster_logits(painter, painter_layout(LAYOUT, GROUPS), conditions(), torch.tensor([groups]))[0]
    torch.testing.assert_close(p_NM, raw[:6].softmax(-1))
    session.commit(groups)
    known = [code if slot % 3 == 0 else -1 for slot, code in enumerate(CANVAS)]
    p_NV = session.refine(known)
    told = read_as(LAYOUT, torch.tensor([groups]), torch.tensor([known]))
    raw = within(logits_of(refiner, features_of(refiner, LAYOUT, conditions(), told)), torch.tensor([groups]), GROUP_V)
    wanted = raw[0].softmax(-1)
    for slot, code in enumerate(known):
        if code >= 0:
            wanted[slot] = torch.nn.functional.one_hot(torch.tensor(code), 128)
    torch.testing.assert_close(p_NV, wanted)
    assert (meter.calls, meter.part("fine").calls, meter.part("fine").rows) == (1, 1, CELLS)


def test_codes_never_leave_their_groups_and_cells_behind_are_masked(model: CoarseModel, nets: CoarseNets) -> None:
    session = opened(model)
    groups = [model.members[code] for code in CANVAS[:20]]
    session.commit(groups)
    p_NV = session.refine([-1] * 20)
    assert p_NV.shape == (20, 128)
    torch.testing.assert_close(p_NV.sum(-1), torch.ones(20, dtype=torch.float64))
    assert (p_NV * (torch.tensor(groups)[:, None] != GROUP_V)).max() == 0
    groups_BL = torch.full((1, CELLS), -1)
    groups_BL[0, :20] = torch.tensor(groups)
    raw = model.refiner.refined(conditions(), groups_BL, torch.full((1, CELLS), -1))[0, :20]
    torch.testing.assert_close(p_NV, within(raw, torch.tensor(groups), GROUP_V).softmax(-1))


def test_guidance_is_for_both_nets(model: CoarseModel) -> None:
    meter = Meter()
    strong, asked, nothing = guided(model, 3.0), opened(model), opened(model, "portrait")
    assert strong.id == "toy/coarse@cfg=3"
    session = opened(strong, meter=meter)
    groups = [model.members[code] for code in CANVAS[:9]]
    raws = [each.score(groups).raw_NV for each in (session, asked, nothing)]
    torch.testing.assert_close(raws[0], torch.lerp(raws[2], raws[1], 3.0))  # type: ignore[arg-type]
    for each in (session, asked, nothing):
        each.commit(groups)
    p, a, n = (each.refine([-1] * 9).log() for each in (session, asked, nothing))
    mixed = torch.where(torch.tensor(groups)[:, None] == GROUP_V, torch.lerp(n, a, 3.0), -torch.inf)
    torch.testing.assert_close(p.exp(), mixed.softmax(-1))
    assert meter.part("fine").rows == 2 * CELLS
    with pytest.raises(UserError, match="is guided already"):
        guided(strong, 2.0)


@pytest.mark.parametrize("scale", [None, 2.0])
def test_the_strategy_paints_a_picture(model: CoarseModel, scale: float | None) -> None:
    used = model if scale is None else guided(model, scale)
    request = Request("coarse_to_fine", PROMPT, {"target": used.id}, {"rounds": 2}, PLAIN, 40, seed=2)
    trace, again = (record(request, Painters(used)) for _ in range(2))  # type: ignore[arg-type]
    canvas = trace.replay()
    assert len(canvas) == 40
    assert canvas == again.replay()
    assert sum(step.calls["target.fine"] for step in trace.steps) == 2
    assert trace.summary().num_target_calls == len(trace.steps) - 2


def test_given_cells_stay_and_are_read_as_they_are(model: CoarseModel) -> None:
    raw = {
        "prompt": PROMPT,
        "image": Image.fromarray(CODEC.tokenizer.decode(np.asarray(CANVAS))),
        "mask": np.repeat(np.arange(16)[:, None] >= 8, 16, axis=1).astype(np.uint8) * 255,
    }
    session = opened(model, raw, room=128)
    assert list(session.given) == CANVAS[:128]
    assert list(session.groups[:]) == [model.members[code] for code in CANVAS[:128]]
    request = Request("coarse_to_fine", {"prompt": PROMPT}, {"target": model.id}, {}, PLAIN, CELLS + 1, seed=2)
    with pytest.raises(UserError):
        record(request, Painters(model))  # type: ignore[arg-type]
    raw["mask"] = np.eye(16, dtype=np.uint8) * 255
    with pytest.raises(UserError, match="toy/coarse paints row by row"):
        opened(model, raw, room=1)


def test_broken_weights_are_one_sentence(nets: CoarseNets) -> None:
    broken = random_net(nets.refiner.config, 3)
    broken.embed.weight.data[0] = float("nan")
    session = opened(coarse_model("toy/broken", CoarseNets(nets.painter, broken, nets.group_V), torch.float32))
    session.commit([0, 1])
    with pytest.raises(UserError, match="toy/broken returned numbers that are no probabilities"):
        session.refine([-1, -1])


# ----------------------------------------------------------------------------------------------------- files, catalog
def test_files_and_the_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nets: CoarseNets) -> None:
    monkeypatch.setattr(catalog_module, "ASSETS", tmp_path)
    monkeypatch.setattr("backend.entries.ASSETS", tmp_path)
    (tmp_path / "house").mkdir()
    with pytest.raises(UserError, match=r"train it with: python -m backend\.train\.portraits\.coarse"):
        Catalog("cpu", "float32").get(COARSE)
    save_coarse(tmp_path / f"{COARSE}.safetensors", nets)
    kept = read_coarse(tmp_path / f"{COARSE}.safetensors")
    assert kept.group_V == nets.group_V
    assert (kept.painter.config, kept.refiner.config) == (nets.painter.config, nets.refiner.config)
    for ours, theirs in ((kept.painter, nets.painter), (kept.refiner, nets.refiner)):
        for name, weight in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], weight.float(), atol=0.08, rtol=0.1)
    shelf = Catalog("cpu", "float32")
    loaded = shelf.get(f"{COARSE}@cfg=2")
    assert isinstance(loaded, CoarseModel)
    assert loaded.num_params == nets.painter.num_params + nets.refiner.num_params
    assert shelf.default_target(CoarseSession) == COARSE
    entry = next(entry for entry in shelf.entries() if entry.id == COARSE)
    assert (entry.modality, entry.protocol, entry.why) == (
        *("image", "coarse"),
        "python -m backend.train.portraits.coarse",
    )


def test_the_shipped_model_paints_what_is_asked_for() -> None:
    assert card(COARSE), f"the model ships; build it with: {builds(COARSE)}"
    catalog = Catalog("cpu", "float32")
    loaded = catalog.get(COARSE)
    assert isinstance(loaded, CoarseModel)
    assert loaded.members == tuple(GROUP_V.tolist()), "trained with other groups than the script makes"
    trace = record(Request("coarse_to_fine", PROMPT, {"target": f"{COARSE}@cfg=2"}, {}, PLAIN, CELLS, 1), catalog)
    assert trace.summary().num_target_calls < CELLS / 2
    mint = np.asarray([0xA8, 0xE6, 0xCF])
    corner = loaded.codec.tokenizer.decode(np.asarray(trace.replay()))[0, 0].astype(int)
    assert corner[1] == max(corner), f"the background is {corner}, not like {mint}"


# ------------------------------------------------------------------------------------------------------------ training
@pytest.fixture
def job(tmp_path: Path) -> CoarseJob:
    save_own(tmp_path / "portraits.safetensors", painter_net())
    save_own(tmp_path / "portraits-masked.safetensors", random_net(config_of(LAYOUT, 16, 3, 2, 24), 5))
    recipe = Recipe(tokens=0, writers=0, batch=2, trainers=1, steps=6, batch_tokens=0, rate=0.02)
    return CoarseJob(recipe, "cpu", tmp_path, "groups", tmp_path)


def test_what_is_told_of_a_picture() -> None:
    canvas = torch.tensor([CANVAS] * 64)
    groups, known = training.told(canvas, np.random.default_rng(1))
    assert ((groups == GROUP_V[canvas]) | (groups == -1)).all()
    assert ((known == canvas) | (known == -1)).all()
    assert (known[groups == -1] == -1).all()
    share = (known >= 0).float().mean(1)
    assert 0.2 < float((share == 0).float().mean()) < 0.8
    cut = (groups == -1).any(1)
    assert 0 < cut.sum() < 32
    assert (groups[:, 0] >= 0).all()
    whole, all_known = training.told(canvas, np.random.default_rng(1), share=1.0)
    assert (whole >= 0).all()
    assert (all_known == canvas).all()


def test_nets_begin_with_what_they_go_on_from(job: CoarseJob) -> None:
    painter = training.begun(job)
    before = training.read_painter(training.RasterJob(job.recipe, "cpu", job.data, "target", job.out), "target")
    rows = before.embed.weight
    torch.testing.assert_close(painter.embed.weight[5], rows[:128][GROUP_V == 5].mean(0))
    torch.testing.assert_close(painter.embed.weight[GROUPS:], rows[128:])
    torch.testing.assert_close(painter.blocks[1].qkv.weight, before.blocks[1].qkv.weight)
    refiner = training.begun(replace(job, model="codes"))
    masked = training.read_masked(job.out / "portraits-masked.safetensors", "cpu")
    torch.testing.assert_close(refiner.embed.weight[:128], masked.embed.weight[:128])
    torch.testing.assert_close(refiner.embed.weight[mask_of(LAYOUT)], masked.embed.weight[-1])
    torch.testing.assert_close(refiner.blocks[1].qkv.weight, masked.blocks[2].qkv.weight)
    assert len(refiner.blocks) == 2


@pytest.mark.parametrize("name", training.NETS)
def test_training_lowers_the_loss(job: CoarseJob, name: str) -> None:
    job = replace(job, model=name)
    net = training.begun(job)
    loss = training.group_loss if name == "groups" else training.code_loss
    batch = next(iter(islice(training.CoarseDraws(job.recipe, 0, 0).batches(), 1)))
    before = loss(net, *batch).item()
    training.train(job, net, 0)
    assert loss(net, *batch).item() < before
    assert job.checkpoint.exists()


def test_the_card_tells_what_was_measured(job: CoarseJob, nets: CoarseNets) -> None:
    jobs = [job, replace(job, model="codes")]
    training.save(jobs, nets, pictures=0, held=2)
    told = json.loads((job.out / "portraits-coarse.json").read_text())
    assert told["id"] == COARSE
    assert sum(told["groups"]["codes_in_each"]) == 128
    for kind in ("named", "half_open", "open", "held_out_pairs"):
        losses = told["held_out"][kind]
        assert losses["nats_of_both"] == pytest.approx(losses["nats_of_group"] + losses["nats_of_code"], abs=2e-4)
    assert told["painted"] == {}
