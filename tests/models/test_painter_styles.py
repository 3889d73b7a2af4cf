"""Painters of every style and size: one script trains them, and the catalog loads each with the codec of its style."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend import catalog as catalog_module
from backend.catalog import Catalog
from backend.codecs import thumbs
from backend.codecs.of_models import codec_of_model, style_of_model
from backend.codecs.styles import PIXEL, STYLES, THUMBS
from backend.codecs.vq import LearnedTokenizer, learned
from backend.entries import builds, preferred
from backend.errors import UserError
from backend.models.house.portrait_judge import PortraitJudge, save_judge
from backend.models.masked import MaskedModel
from backend.models.raster import RasterModel
from backend.protocols import MaskedSession
from backend.quality import attributes_right
from backend.registry import strategies
from backend.run import record
from backend.train.portraits import masked, raster
from backend.train.portraits.masked import MaskedJob
from backend.train.portraits.raster import RasterJob
from backend.train.portraits.subjects import SHAPES, Subject
from backend.train.smollm2_draft import Recipe
from backend.types import Request, Sampling
from tests.toys_raster import prompt_for

RECIPE = Recipe(tokens=0, writers=0, batch=2, trainers=1, steps=2, batch_tokens=0, rate=0.01)
MADE_UP = {"seen": 12, "fresh": 8, "held_out": 8}
COMBINATIONS = [(style, size) for style in (PIXEL, THUMBS) for size in ("s", "m")]
KINDS = {"": "target", "-masked": "masked"}


@pytest.fixture
def renders(tmp_path: Path) -> Path:
    """Made-up renders of thumbs: a colour each."""
    rng = np.random.default_rng(0)
    for part, count in MADE_UP.items():
        rows = thumbs.draw_rows(count, rng, "held_out" if part == "held_out" else "seen")
        pixels = np.broadcast_to(rng.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8), (count, 64, 64, 3))
        np.save(tmp_path / f"thumbs-{part}-pixels.npy", pixels)
        np.save(tmp_path / f"thumbs-{part}-rows.npy", rows)
    return tmp_path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A catalog of what the scripts write into a folder."""
    (tmp_path / "house").mkdir()
    monkeypatch.setattr(catalog_module, "ASSETS", tmp_path)
    monkeypatch.setattr("backend.entries.ASSETS", tmp_path)
    return Catalog("cpu", "float32")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 24}
    monkeypatch.setattr("backend.train.portraits.subjects.SHAPES", {"s": tiny, "m": {**tiny, "num_layers": 2}})
    monkeypatch.setattr("backend.train.portraits.subjects.NARROWER", {})
    layout = raster.LAYOUT
    monkeypatch.setattr(raster, "SIZES", {"target": layout.config(**tiny)})
    monkeypatch.setattr(masked, "CONFIG", masked.config_of(layout, **tiny))


def trained(kind: str, style: str, size: str, folder: Path) -> str:
    """Train and save a painter; its name in the catalog."""
    if kind == "masked":
        job = MaskedJob(RECIPE, "cpu", folder, kind, folder / "house", style, size)
        net = masked.prepare(job)
        masked.train(job, net, 0)
        masked.save(job, net, 0, held=4)
    else:
        painter = RasterJob(RECIPE, "cpu", folder, kind, folder / "house", style, size)
        net, _ = raster.prepare(painter)
        raster.train(painter, net, None, 0)
        raster.save(painter, net, 0, held=4)
        job = painter  # type: ignore[assignment]
    assert job.checkpoint.is_file()
    return f"house/{job.name}"


@pytest.mark.parametrize(("style", "size"), COMBINATIONS)
@pytest.mark.parametrize("ending", KINDS)
def test_a_painter_of_every_style_and_size_is_trained_saved_and_loaded(
    ending: str, style: str, size: str, renders: Path, shelf: Catalog
) -> None:
    name = ("portraits" if style == PIXEL else style) + ending + ("-m" if size == "m" else "")
    model_id = trained(KINDS[ending], style, size, renders)
    assert model_id == f"house/{name}"
    card = json.loads((renders / f"{model_id}.json").read_text())
    assert (card["id"], card["vocabulary"]) == (model_id, codec_of_model(model_id).vocabulary)
    assert STYLES[style].author in card["license"]
    entry = next(entry for entry in shelf.entries() if entry.id == model_id)
    assert (entry.available, entry.num_params, entry.modality) == (True, card["num_params"], "image")
    model = shelf.get(f"{model_id}@cfg=2")
    assert isinstance(model, MaskedModel if ending else RasterModel)
    assert model.codec.vocabulary == codec_of_model(model_id).vocabulary
    strategy = "confidence" if ending else "autoregressive"
    request = Request(strategy, prompt_for(model_id), {"target": model.id}, {}, Sampling(1.0), 256 if ending else 9)
    picture = model.codec.decode(record(request, shelf).replay())
    assert picture.shape == (64, 64, 3)


def test_every_masked_strategy_for_one_model_paints_thumbs(renders: Path, shelf: Catalog) -> None:
    model_id = trained("masked", THUMBS, "s", renders)
    for strategy in strategies().values():
        if strategy.base is MaskedSession and len(strategy.roles) == 1:
            knobs = {name: value for name, value in {"steps": 4, "bound": 64.0}.items() if name in strategy.knobs}
            request = Request(strategy.id, prompt_for(model_id), {"target": model_id}, knobs, Sampling(1.0), 256)
            assert -1 not in record(request, shelf).replay(), strategy.id


def test_the_larger_model_is_preferred_where_it_is_here(renders: Path, shelf: Catalog) -> None:
    ids = [entry.id for entry in shelf.entries() if entry.modality == "image"]
    assert ids.index("house/thumbs") < ids.index("house/thumbs-m")
    assert preferred("house/portraits-masked") == "house/portraits-masked" == shelf.default_target(MaskedSession)
    for name in ("thumbs-m", "portraits-masked-m"):
        (renders / "house" / f"{name}.safetensors").touch()
    ids = [entry.id for entry in shelf.entries() if entry.modality == "image"]
    assert ids.index("house/thumbs-m") == ids.index("house/thumbs") - 1
    assert len(ids) == len(set(ids))
    assert shelf.default_target(MaskedSession) == "house/portraits-masked-m"


def test_partners_are_of_the_same_style(shelf: Catalog) -> None:
    assert shelf.default("draft", "house/thumbs-m@cfg=2") == "house/thumbs-draft"
    assert shelf.default("draft", "house/portraits-m") == "house/portraits-draft"
    with pytest.raises(UserError, match="no verifier model for house/thumbs-masked"):
        shelf.default("verifier", "house/thumbs-masked")
    with pytest.raises(UserError, match="no feature draft model for house/thumbs"):
        shelf.default("feature_draft", "house/thumbs")


@pytest.mark.parametrize(
    ("model_id", "told"),
    [
        ("house/thumbs", "raster --model target --style thumbs"),
        ("house/thumbs-draft", "raster --model draft --style thumbs"),
        ("house/thumbs-masked", "masked --style thumbs"),
        ("house/portraits-m", "raster --model target --size m --device cuda"),
        ("house/thumbs-masked-m", "masked --style thumbs --size m --device cuda"),
    ],
)
def test_one_that_is_not_here_says_how_to_build_it(shelf: Catalog, model_id: str, told: str) -> None:
    assert builds(model_id) == f"python -m backend.train.portraits.{told}"
    with pytest.raises(UserError, match=f"build it with: python -m backend.train.portraits.{told}"):
        shelf.get(model_id)


def test_the_style_is_read_off_the_name() -> None:
    assert {style_of_model(f"house/{name}") for name in ("thumbs", "thumbs-masked-m@cfg=2", "thumbs-draft")} == {THUMBS}
    assert {style_of_model(name) for name in ("house/portraits", "house/thumbsup", "toy/painter")} == {PIXEL}
    assert codec_of_model("house/thumbs@cfg=3") is codec_of_model("house/thumbs-masked")
    assert isinstance(codec_of_model("house/thumbs").tokenizer, LearnedTokenizer)
    assert codec_of_model("house/thumbs").grid == codec_of_model("house/portraits").grid == (16, 16)


def test_the_shipped_sizes_are_those_that_the_scripts_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert set(SHAPES) == {"s", "m", "draft"}
    for style in (PIXEL, THUMBS):
        subject = Subject(style)
        for size, wanted in (("s", 1.2e6), ("m", 4e6)):
            with torch.device("meta"):
                net = raster.Llama(subject.layout.config(**subject.shape(size)))
            assert sum(weight.numel() for weight in net.parameters()) == pytest.approx(wanted, rel=0.05)


# -------------------------------------------------------------------------------------------------------- what is shown
def test_mirrored_pictures_are_called_what_they_show(renders: Path) -> None:
    """Of made-up ones whose left half tells the tilt: where the row is turned, the picture is, too."""
    pixels, rows = np.zeros((400, 64, 64, 3), dtype=np.uint8), thumbs.draw_rows(400, np.random.default_rng(1))
    tilt, eyes = thumbs.NAMES.index("tilt"), thumbs.NAMES.index("eyes")
    pixels[rows[:, tilt] == 1, :, :32] = 255
    pixels[rows[:, tilt] == 3, :, 32:] = 255
    folder = renders / "half"
    folder.mkdir()
    np.save(folder / "thumbs-seen-pixels.npy", pixels)
    np.save(folder / "thumbs-seen-rows.npy", rows)
    shown, canvas = Subject(THUMBS, folder).batch(300, np.random.default_rng(2))
    wanted = {code: learned(THUMBS).encode(pixels[rows[:, tilt] == code][:1])[0] for code in (1, 2, 3)}
    assert all((canvas[i].numpy() == wanted[int(row[tilt])]).all() for i, row in enumerate(shown))
    turned, may = thumbs.mirrored(rows)
    assert (may == (rows[:, eyes] != 1 + thumbs.VOCABULARY["eyes"].index("winking"))).all()
    assert (thumbs.mirrored(turned)[0] == rows).all()
    assert not thumbs.held_out_rows(turned).any()
    assert (thumbs.mirrored(np.zeros((1, 7), dtype=np.int64))[0] == 0).all()


def test_measures_see_no_render_that_training_sees(renders: Path) -> None:
    subject = Subject(THUMBS, renders)
    rows, canvas = subject.draw(8, np.random.default_rng(0))
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, np.load(renders / "thumbs-fresh-rows.npy").tolist()))
    assert canvas.shape == (8, 256)
    with pytest.raises(UserError, match="9 fresh renders of thumbs are asked for, but there are 8"):
        subject.draw(9, np.random.default_rng(0))
    with pytest.raises(UserError, match=r"make them with: python -m backend\.train\.portraits\.renders --style thumbs"):
        Subject(THUMBS, renders / "nowhere").batch(1, np.random.default_rng(0))


def test_the_judge_of_the_style_reads_what_is_painted(renders: Path, shelf: Catalog) -> None:
    judge = PortraitJudge((4, 4, 4, 8), THUMBS)
    save_judge(renders / "house" / "thumbs-judge.safetensors", judge)
    job = MaskedJob(replace(RECIPE, steps=1), "cpu", renders, "masked", renders / "house", THUMBS)
    masked.save(job, masked.prepare(job), 3, held=4)
    told = json.loads((renders / "house" / "thumbs-masked.json").read_text())["painted"]
    assert told["best"] in {f"@cfg={scale:g}" for scale in masked.SCALES}
    assert set(told["cfg_2"]["accuracy"]) <= {*thumbs.NAMES, "all"}
    painter = RasterJob(replace(RECIPE, steps=1), "cpu", renders, "target", renders / "house", THUMBS)
    raster.save(painter, raster.prepare(painter)[0], 3, held=4)
    told = json.loads((renders / "house" / "thumbs.json").read_text())["painted"]
    assert told["fd_house_cfg_2"] > 0
    model_id = "house/thumbs-masked"
    request = Request("confidence", prompt_for(model_id), {"target": model_id}, {}, Sampling(1.0), 256)
    right = attributes_right(record(request, shelf), shelf, judge)
    assert right in {i / 5 for i in range(6)}
