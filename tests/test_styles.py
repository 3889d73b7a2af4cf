"""Further styles: what prompts about thumbs say, held-out pairs, the learned tokenizer, its training and its view."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.codecs import vq
from backend.codecs.atlas import FOLDER
from backend.codecs.image import ImageCodec
from backend.codecs.styles import STYLES, THUMBS
from backend.codecs.thumb_words import caption
from backend.codecs.thumbs import HELD_OUT, NAMES, VOCABULARY, Thumb, draw_rows, held_out, held_out_rows, options
from backend.errors import UserError
from backend.models.house.portrait_judge import PortraitJudge, judge_of, read_judge, save_judge
from backend.models.house.raster import Layout
from backend.train.portraits import renders, style_judge
from backend.train.portraits import vq as training
from demos.parts import tokenizer as view

read = STYLES[THUMBS].read


# -------------------------------------------------------------------------------------------------------------- prompts
@pytest.mark.parametrize("seed", range(4))
def test_captions_are_read_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for row in draw_rows(100, rng, "all"):
        is_open = rng.random(len(NAMES)) < 0.4
        is_open[0] = True  # every thumb has the style, and no caption tells it
        known = Thumb.of(np.where(is_open, 0, row))
        for text in (caption(known), caption(known, rng)):
            assert read(text).attributes == known, text


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("a winking red thumb looking left on a navy background", ("red", "winking", "any", "any", "left", "navy")),
        ("Purple thumb with heart eyes, tilted to the right!", ("purple", "hearts", "any", "right", "any", "any")),
        ("thumb", ("any",) * 6),
        ("sleepy eyes, standing straight, pouting", ("any", "closed", "kiss", "upright", "any", "any")),
    ],
)
def test_free_prompts(prompt: str, told: tuple[str, ...]) -> None:
    found = read(prompt).attributes
    assert tuple(getattr(found, name) for name in NAMES[1:]) == told


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("", "The prompt is empty; describe a thumb"),
        ("orange thumb, green hair", "A thumb cannot be told with 'hair'; say its colour, eyes"),
        ("blue", "write, for example, 'blue thumb' or 'blue background'"),
        ("laughing and smiling", "two things as mouth, 'laugh' and 'smile'; a thumb has one"),
        ("mint thumb", "'mint thumb', which does not exist; 'thumb' can be red, orange"),
        ("no eyes", "'no eyes' cannot be drawn"),
    ],
)
def test_what_cannot_be_read_is_told(prompt: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read(prompt)


def test_held_out_pairs() -> None:
    rng = np.random.default_rng(1)
    assert not held_out_rows(draw_rows(3000, rng)).any()
    paired = draw_rows(300, rng, "held_out")
    assert held_out_rows(paired).all()
    assert all(held_out(Thumb.of(row)) for row in paired)
    assert held_out(read("purple thumb, mint background").attributes)
    assert all(set(pair) <= set(NAMES) for pair in HELD_OUT)


def test_options_follow_the_attributes() -> None:
    rng = np.random.default_rng(2)
    for row in draw_rows(200, rng, "all"):
        thumb, asked = Thumb.of(row), options(row, rng)
        turned = asked["shapeRotation"][0]
        assert {"left": turned < -5, "upright": abs(turned) < 5, "right": turned > 5}[thumb.tilt]
        assert all(isinstance(value, list) for value in asked.values())
    json.dumps(asked)


def test_a_codec_of_the_style() -> None:
    codec = ImageCodec(vq.learned(THUMBS), style=THUMBS)
    prompt = codec.encode("orange thumb, laughing")
    assert prompt.extras["conditions"] == read("orange thumb, laughing").attributes.row()
    layout = Layout.of(codec)
    assert layout.choices == tuple(len(values) + 1 for values in VOCABULARY.values())
    assert codec.vocabulary != ImageCodec(vq.learned(THUMBS)).vocabulary  # the same codes under another style


# ------------------------------------------------------------------------------------------------------------ tokenizer
def test_the_shipped_tokenizer_keeps_the_held_out_sheet() -> None:
    pictures, tokenizer = view.sheet(), vq.learned(THUMBS)
    assert pictures.shape == (renders.SHEET, 64, 64, 3)
    tokens = tokenizer.encode(pictures)
    assert tokens.shape == (renders.SHEET, 256)
    assert tokens.max() < tokenizer.vocab_size
    drawn = tokenizer.decode(tokens)
    assert training.psnr(pictures, drawn) > 28
    assert np.array_equal(tokenizer.decode(tokens[3]), drawn[3])  # a picture does not depend on its neighbours
    told = json.loads((FOLDER / "thumbs-sheet.json").read_text(encoding="utf-8"))
    assert held_out_rows(np.asarray(told["rows"])).all()
    judge = judge_of(THUMBS, FOLDER.parent / "house")
    assert judge is not None
    assert (judge.attributes(pictures) == judge.attributes(drawn)).mean() > 0.9


def test_numpy_runs_what_torch_trains(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = training.Quantised(training.Recipe(batch=2, steps=1, rate=1e-3, channels=8, codes=32, width=4))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    training.save(tmp_path / "net.npz", model, 64)
    tokenizer = vq.LearnedTokenizer(tmp_path / "net.npz")
    cells = torch.from_numpy(vq.in_cells(pixels)).permute(0, 3, 1, 2)
    with torch.no_grad():
        z_BDhw = model.encoder(cells)
        drawn, _ = model(cells)
    mine = tokenizer._net("encoder", vq.in_cells(pixels))
    assert np.abs(mine - z_BDhw.permute(0, 2, 3, 1).numpy()).max() < 0.05  # weights are rounded to bytes
    theirs = vq.in_pixels(drawn.permute(0, 2, 3, 1).contiguous().numpy())
    tokens = tokenizer.encode(pixels)
    close = np.abs(tokenizer.decode(tokens).astype(int) - theirs).mean()
    assert close < 8
    assert np.array_equal(vq.in_pixels(vq.in_cells(pixels)), pixels)


def test_measures_in_known_cases() -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (1, 16, 16, 3), dtype=np.uint8)
    assert training.likeness(pixels, pixels) == pytest.approx(1)
    assert training.likeness(pixels, 200 - pixels) < 0.2
    assert training.psnr(pixels, pixels + np.uint8(5)) == pytest.approx(20 * np.log10(255 / 5))


def test_a_missing_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"build it with: python -m backend\.train\.portraits\.vq"):
        vq.LearnedTokenizer(tmp_path / "none-vq.npz")
    with pytest.raises(UserError, match=r"python -m backend\.train\.portraits\.renders --style thumbs"):
        renders.read(THUMBS, tmp_path)


# ------------------------------------------------------------------------------------------------------------- training
@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """A folder with renders that are plain colours, by the attribute."""
    shades = np.linspace(20, 230, 7).astype(np.uint8)
    for part in renders.PARTS:
        rows = draw_rows(24, np.random.default_rng(3), "held_out" if part == "held_out" else "seen")
        pixels = np.repeat(shades[rows[:, 1]], 64 * 64 * 3).reshape(-1, 64, 64, 3)
        np.save(tmp_path / f"thumbs-{part}-pixels.npy", pixels)
        np.save(tmp_path / f"thumbs-{part}-rows.npy", rows)
    return tmp_path


def test_judge_and_tokenizer_train_measure_and_resume(made_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = made_up / "out"
    style_judge.main(["--data", str(made_up), "--out", str(out), "--steps", "2"])
    asked = ["--data", str(made_up), "--out", str(out), "--judge", str(out), "--held", "4", "--steps"]
    training.main([*asked, "2"])
    card = json.loads((out / "thumbs-vq.json").read_text(encoding="utf-8"))
    assert set(card["measured"]) == {"fresh", "held_out_pairs"}
    assert "judge_reads_the_same" in card["measured"]["fresh"]
    before = vq.LearnedTokenizer(out / "thumbs-vq.npz").fingerprint
    assert card["fingerprint"] == before
    training.main([*asked, "2"])  # nothing is left to train
    assert vq.LearnedTokenizer(out / "thumbs-vq.npz").fingerprint == before


def test_judges_of_styles_come_back_from_files(tmp_path: Path) -> None:
    torch.manual_seed(1)
    judge = PortraitJudge((4, 4, 4, 8), THUMBS)
    save_judge(tmp_path / "thumbs-judge.safetensors", judge, 8)
    back = read_judge(tmp_path / "thumbs-judge.safetensors")
    assert (back.style, back.side) == (THUMBS, 64)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    apart = judge.read(torch.from_numpy(pixels)) - back.read(torch.from_numpy(pixels))
    assert apart.abs().max() < 0.05
    with pytest.raises(ValueError, match=r"\[B, 64, 64, 3\]"):
        back.attributes(pixels[:, :16, :16])


# ----------------------------------------------------------------------------------------------------------------- view
def test_the_view_shows_three_rows_and_what_the_card_tells() -> None:
    strips = view.strips()
    assert strips.shape == (3 * 64 * view.TIMES, view.SHOWN * 64 * view.TIMES, 3)
    assert np.array_equal(strips[: 128 : view.TIMES, : 128 : view.TIMES], view.sheet()[0])
    card = json.loads(view.CARD.read_text(encoding="utf-8"))
    assert f"{card['measured']['held_out_pairs']['psnr_db']:.1f} dB" in view.text()
    assert card["fingerprint"] == vq.learned(THUMBS).fingerprint
