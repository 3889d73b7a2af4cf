"""Features of drawn pictures: the file that ships is that of its judge and prompts, and no other counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from backend import image_reference
from backend.codecs.styles import PIXEL, STYLES
from backend.codecs.thumbs import SIDE
from backend.image_prompts import file_of
from backend.image_reference import REAL, file_of_reference, reference_of, save_reference
from backend.models.house.portrait_judge import PortraitJudge, fd_house
from backend.quality import judge
from backend.train.portraits.reference import filled

STYLE = "thumbs"
ASKED = [
    STYLES[STYLE].read(json.loads(line)["prompt"]).attributes.row()
    for line in file_of(STYLE).read_text(encoding="utf-8").splitlines()
]


@pytest.fixture(name="reader")
def small_judge() -> PortraitJudge:
    torch.manual_seed(0)
    return PortraitJudge((4, 4, 4, 6), STYLE).eval()


def test_what_a_judge_sees_is_written_and_read(
    reader: PortraitJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_reference, "FOLDER", tmp_path)
    asked = ASKED[:3]
    assert reference_of(reader, asked) is None
    rng = np.random.default_rng(1)
    real, more = (rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8) for n in (3 * REAL, 3))
    save_reference(file_of_reference(STYLE), reader, asked, real, more)
    found = reference_of(reader, asked[:2])
    assert found is not None
    assert found.real == pytest.approx(reader.features_of(real), rel=1e-3, abs=1e-3)
    assert found.more == pytest.approx(reader.features_of(more), rel=1e-3, abs=1e-3)
    assert reference_of(reader, ASKED[1:3]) is None  # other prompts
    assert reference_of(PortraitJudge((4, 4, 4, 6), STYLE).eval(), asked) is None  # another judge


def test_open_attributes_are_drawn_and_others_kept() -> None:
    asked_PA = np.array(ASKED[:5])
    rows = filled(STYLE, asked_PA, 2, np.random.default_rng(0))
    assert rows.shape == (10, asked_PA.shape[1])
    assert (rows > 0).all()
    named = asked_PA.repeat(2, axis=0)
    assert (rows[named > 0] == named[named > 0]).all()


@pytest.mark.skipif(judge(STYLE) is None, reason="the judge of thumbs is not built")
def test_the_shipped_features_are_those_of_the_shipped_judge_and_prompts() -> None:
    reader = judge(STYLE)
    assert reader is not None
    found = reference_of(reader, ASKED)
    assert found is not None
    assert (found.real.shape, len(found.more)) == ((len(ASKED) * REAL, reader.widths[-1]), len(ASKED))
    noise = np.random.default_rng(2).integers(0, 256, (len(ASKED), SIDE, SIDE, 3), dtype=np.uint8)
    assert fd_house(found.more, found.real) < fd_house(reader.features_of(noise), found.real)


def test_portraits_are_drawn_when_they_are_needed() -> None:
    torch.manual_seed(0)
    reader = PortraitJudge((4, 4, 4, 6)).eval()
    asked = [STYLES[PIXEL].read("blue hair").attributes.row(), STYLES[PIXEL].read("bald").attributes.row()]
    found = reference_of(reader, asked)
    assert found is not None
    assert (found.real.shape, found.more.shape) == ((2 * REAL, 6), (2, 6))
