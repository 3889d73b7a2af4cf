"""The judge of portraits: what its measures count, distances in closed form, a training that learns and resumes."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.codecs.portraits import NAMES, VOCABULARY, held_out_rows
from backend.errors import UserError
from backend.models.house.portrait_judge import PortraitJudge, accuracy, fd_house, read_judge
from backend.train.portraits import judge as training

SMALL = (8, 8, 8, 32)
RECIPE = replace(training.RECIPES["cpu"], batch=32, steps=80, rate=1e-2)


class Known(PortraitJudge):
    """A judge that says what it was told."""

    def __init__(self, rows_BA: Any) -> None:
        super().__init__(SMALL)
        self.rows_BA = np.asarray(rows_BA)

    def attributes(self, pixels: Any) -> Any:
        return self.rows_BA


def blank(count: int) -> Any:
    return np.zeros((count, 16, 16, 3), np.uint8)


# ------------------------------------------------------------------------------------------------------------ accuracy
def test_accuracy_counts_only_what_was_asked_for() -> None:
    said = np.full((4, 13), 1)
    asked = np.zeros((4, 13), np.int64)
    skin, hat = NAMES.index("skin"), NAMES.index("hat")
    asked[:3, skin] = (1, 2, 1)
    asked[3, hat] = 3
    found = accuracy(Known(said), blank(4), asked)
    assert found == {"skin": pytest.approx(2 / 3), "hat": 0.0, "all": 0.5}
    assert accuracy(Known(said), blank(4), np.zeros((4, 13), np.int64)) == {}
    with pytest.raises(ValueError, match="4 pictures need conditions"):
        accuracy(Known(said), blank(4), asked[:3])


def test_readings_are_codes_of_values() -> None:
    torch.manual_seed(0)
    judge = PortraitJudge(SMALL)
    pixels, _ = training.as_painted(700, np.random.default_rng(0))
    read = judge.attributes(pixels)
    assert read.shape == (700, 13)
    assert (read >= 1).all()
    assert (read <= [len(values) for values in VOCABULARY.values()]).all()
    assert np.array_equal(read[600:], judge.attributes(pixels[600:]))
    assert judge.features_of(pixels).shape == (700, 32)
    for wrong in (blank(0), np.zeros((1, 8, 8, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)):
        with pytest.raises(ValueError, match="the judge reads pictures"):
            judge.attributes(wrong)


# ------------------------------------------------------------------------------------------------------------ distance
def gaussian(count: int = 300, features: int = 6) -> Any:
    rng = np.random.default_rng(3)
    return rng.standard_normal((count, features)) @ rng.standard_normal((features, features))


def test_equal_sets_are_no_distance_apart() -> None:
    """Also with fewer pictures than features, where covariances have no full rank."""
    for features in (gaussian(), gaussian(5, 12)):
        assert fd_house(features, features.copy()) == pytest.approx(0, abs=1e-6 * np.trace(np.cov(features.T)))


def test_distances_of_gaussians_in_closed_form() -> None:
    a = gaussian()
    spread = float(np.trace(np.cov(a, rowvar=False)))
    shift = np.arange(6.0)
    assert fd_house(a, a + shift) == pytest.approx(float(shift @ shift))
    stretched = a.mean(0) + 3 * (a - a.mean(0))  # C_b = 9 C_a: tr(C + 9 C - 2 * 3 C) = 4 tr C
    assert fd_house(a, stretched) == pytest.approx(4 * spread)
    assert fd_house(a, stretched + shift) == pytest.approx(4 * spread + float(shift @ shift))
    one, other = np.array([[0.0], [2.0]]), np.array([[5.0], [11.0]])  # standard deviations 1.414 and 4.243
    assert fd_house(one, other) == pytest.approx(7.0**2 + (np.sqrt(18) - np.sqrt(2)) ** 2)


def test_distance_is_that_of_any_matrix_square_root() -> None:
    """tr (C_a C_b)^1/2, from the eigenvalues of a product that is not symmetric; the same both ways."""
    a, b = gaussian(), np.random.default_rng(8).standard_normal((400, 6)) * np.arange(1, 7)
    c_a, c_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    cross = np.sqrt(np.linalg.eigvals(c_a @ c_b).real).sum()
    apart = a.mean(0) - b.mean(0)
    assert fd_house(a, b) == pytest.approx(apart @ apart + np.trace(c_a) + np.trace(c_b) - 2 * cross)
    assert fd_house(a, b) == pytest.approx(fd_house(b, a))


def test_sets_that_cannot_be_compared() -> None:
    for a, b in ((gaussian(), gaussian(300, 5)), (gaussian(1), gaussian()), (gaussian()[0], gaussian())):
        with pytest.raises(ValueError, match="two sets"):
            fd_house(a, b)


# ------------------------------------------------------------------------------------------------------------ training
def test_batches_are_portraits_of_the_palette_with_some_wrong_pixels() -> None:
    rng = np.random.default_rng(0)
    pixels, rows = training.as_painted(200, rng)
    assert not held_out_rows(rows).any()
    wrong_B = (training.spoil(pixels, rng) != pixels).any(-1).mean((1, 2))
    assert 0 < wrong_B.max() <= 0.1  # up to 5 % and the luck of 256 flips
    assert (wrong_B == 0).mean() > 0.45
    for late, early in zip(training.batches(RECIPE, 2), islice(training.batches(RECIPE, 0), 2, 4), strict=False):
        assert torch.equal(late[0], early[0])
        assert int(late[1].min()) == 0


def trained(recipe: Any, path: Path, seed: int = 0) -> PortraitJudge:
    torch.manual_seed(seed)
    judge = PortraitJudge(SMALL)
    training.train(judge, recipe, path)
    return judge


def test_training_learns_and_the_measures_say_so(tmp_path: Path) -> None:
    told = training.measured(trained(RECIPE, tmp_path / "checkpoint.pt"), 300, 40)
    assert told["accuracy_fresh"]["all"] > 0.45  # the commonest values alone are right in 0.40
    assert told["accuracy_fresh"]["skin"] > 0.35
    assert told["fd_house_of_two_fresh_sets"] > 0
    assert set(told["accuracy_held_out_pairs"]) == {*NAMES, "all"}


def test_training_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after eight steps of twelve and gone on with, it ends as if it had never stopped."""
    monkeypatch.setattr(training, "SAVED_EVERY", 4)
    short = replace(RECIPE, steps=12)
    once = trained(short, tmp_path / "once.pt")
    whole = training.batches
    monkeypatch.setattr(training, "batches", lambda *args: islice(whole(*args), 8))
    with pytest.raises(StopIteration):
        trained(short, tmp_path / "halves.pt")
    monkeypatch.setattr(training, "batches", whole)
    again = trained(short, tmp_path / "halves.pt", seed=5)
    for name, weight in again.state_dict().items():
        torch.testing.assert_close(weight, once.state_dict()[name])


def test_a_judge_comes_back_from_its_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    judge, path = PortraitJudge(SMALL), tmp_path / "portrait-judge.safetensors"
    with pytest.raises(UserError, match=r"train it with python -m backend\.train\.portraits\.judge"):
        read_judge(path)
    training.save(path, judge, RECIPE, "cpu", held=50, each=20)
    back = read_judge(path)
    assert back.widths == SMALL
    pixels, _ = training.as_painted(50, np.random.default_rng(0))
    np.testing.assert_allclose(back.features_of(pixels), judge.features_of(pixels), atol=0.05)  # 8 bits a weight
    assert path.with_suffix(".json").exists()
