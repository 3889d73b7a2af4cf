"""The forecaster and its drafter, trained on together: they agree more, nothing is forgotten, and training resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.models.house.forecaster import Laws, read_forecaster
from backend.models.house.forecaster_cell import read_cell
from backend.train.forecast import drafter, paired, patches
from backend.train.forecast.patches import held_out_loss, spans, walks
from backend.train.forecast.patches_measure import THEN, went_on

WINDOWS = walks(200).numpy()


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, trained each for itself."""
    out = tmp_path_factory.mktemp("begin")
    recipe = patches.TINY["target"]
    patches.build(patches.Job("target", recipe, WINDOWS, spans(WINDOWS), out, out))
    drafter.build(drafter.TINY, WINDOWS, out, out, "cpu")
    (out / "forecaster.json").write_text(json.dumps({"id": "house/forecaster", THEN: [{"steps": 1}]}))
    return out


def pair(begin: Path, data: Path, steps: int = 40) -> paired.Pair:
    recipe = replace(paired.TINY, steps=steps, rate=2e-3)
    target, cell = read_forecaster(begin / "forecaster.safetensors"), read_cell(begin / f"{drafter.NAME}.safetensors")
    drawn = patches.Recipe(target.config, steps, recipe.rate, recipe.tokens, 4, seed=recipe.seed)
    job = patches.Job("target", drawn, WINDOWS, spans(WINDOWS), data, data)
    return paired.Pair(job, recipe, target, cell)


def test_both_agree_more_and_the_forecaster_forgets_nothing(begin: Path, tmp_path: Path) -> None:
    one = pair(begin, tmp_path)
    before = held_out_loss(one.job, one.target.eval())
    kept = drafter.accepted(one.cell, drafter.lessons(one.job, one.target, 4, held=True), depth=2)
    target, cell = paired.train(one)
    assert held_out_loss(one.job, target) < before + 0.02
    found = drafter.accepted(cell, drafter.lessons(one.job, target, 4, held=True), depth=2)
    assert sum(found) > sum(kept) + 0.02


def test_laws_far_apart_are_not_pulled(begin: Path, tmp_path: Path) -> None:
    one = pair(begin, tmp_path)
    patches_BNP, front = patches.draw(one.job, (0, 0))
    h_BNC, base_BN = one.target(patches_BNP)
    near = drafter.at(one.target.laws(h_BNC, base_BN, 0), (..., 0))

    def pulled(shift: float) -> float:
        mean_BNP = (near.mean_P.detach() + shift).requires_grad_()
        p = Laws(mean_BNP, near.log_scale_P.detach(), near.rho.detach())
        lesson = drafter.Lesson(patches_BNP, front, p, h_BNC[:, front - 1 :].detach())
        loss = drafter.loss_of(one.cell, lesson, False, pull=1.0)
        return float(torch.autograd.grad(loss, mean_BNP)[0].abs().sum())

    assert pulled(30.0) < 1e-3 * pulled(0.0)


def test_training_resumes(begin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    whole = paired.train(pair(begin, tmp_path / "a", 8))
    monkeypatch.setattr(paired, "SAVED_EVERY", 4)
    real = torch.save

    def cut(state: Any, path: Path) -> None:
        real(state, path)
        if state["step"] == 4:
            path.rename(path.with_suffix(".pt"))
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        paired.train(pair(begin, tmp_path / "b", 8))
    monkeypatch.setattr(torch, "save", real)
    again = paired.train(pair(begin, tmp_path / "b", 8))
    for one, other in zip(whole, again, strict=True):
        states = one.state_dict(), other.state_dict()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_command_writes_both_and_cards_tell_it(begin: Path, tmp_path: Path) -> None:
    paired.main(["--tiny", "--begin", str(begin), "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    told = json.loads((tmp_path / "out" / "forecaster.json").read_text())
    assert told["id"] == "house/forecaster"
    assert [round_["steps"] for round_ in told[THEN]] == [1, paired.TINY.steps]
    assert went_on(tmp_path / "out" / f"{drafter.NAME}.safetensors")[THEN][0]["pull"] == paired.TINY.pull
    read_forecaster(tmp_path / "out" / "forecaster.safetensors")
    assert went_on(tmp_path / "none.safetensors") == {}
