"""The drafter of the forecaster: what its sessions read, what they hear of a target, and how it is trained."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backend.chance import Ask, Seeded
from backend.errors import UserError
from backend.meter import Meter
from backend.models.forecaster import load_forecaster
from backend.models.forecaster_cell import CellModel, CellSession, load_cell
from backend.models.house.forecaster import Forecaster, Laws, last_known, save_forecaster
from backend.models.house.forecaster_cell import CellConfig, PatchCell, save_cell, wider, windows_of
from backend.models.house.forecaster_rows import Frozen
from backend.protocols import FeatureSession, HearingSession, PathSession, Prompt
from backend.registry import find
from backend.train.forecast import drafter, drafter_measure, patches
from backend.train.forecast.held_out import Case
from backend.train.forecast.patches import TINY, draw, walks
from backend.types import Fate, Sampling
from tests.models.test_forecaster import MODEL, P, opened, series
from tests.models.test_forecaster import patches as made

WIDTH = MODEL.net.config.dim


def cell(dim: int = WIDTH, seed: int = 0) -> PatchCell:
    torch.manual_seed(seed)
    model = PatchCell(CellConfig(P, dim, 12, 20, context=48))
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.2)
    torch.nn.init.normal_(model.start)
    return model.eval().requires_grad_(False)


def drafting(length: int = 18, paths: int = 2, net: PatchCell | None = None) -> CellSession:
    extras = {"context": tuple(series(length).tolist()), "season": 3, "series": None}
    session = CellModel("draft", net or cell()).open(PathSession, Prompt(extras=extras), Sampling(), Meter(), 1)
    assert isinstance(session, CellSession)
    session.fork(paths)
    return session


def read(net: PatchCell, values_T: Tensor, h_1C: Tensor | None = None, first: int = 0) -> Laws:
    """The law behind a series, patch by patch; from given features behind its first patches, or from the start."""
    padded_T = torch.cat((torch.full((-len(values_T) % P,), math.nan), values_T.float()))
    patches_NP = padded_T.view(-1, P)
    window_NWP, base_N = windows_of(patches_NP[None], net.config.window)[0], last_known(patches_NP)
    base_1 = base_N[first - 1 : first] if first else torch.zeros(1)
    h_1C = net.start[None] if h_1C is None else h_1C
    for n in range(first, len(patches_NP)):
        h_1C = net(h_1C, net.law(h_1C, base_1), window_NWP[None, n], base_N[None, n])
        base_1 = base_N[None, n]
    return net.law(h_1C, base_1)


def test_by_itself_it_reads_the_context_and_every_patch() -> None:
    session, x_2KP = drafting(), made(2, 3)
    law = session.score(x_2KP)
    for row in range(2):
        for k in range(4):
            want = read(cell(), torch.cat((series(18), x_2KP[row, :k].flatten())))
            assert torch.allclose(law[row, k].mean_NP, want.mean_P[0].double(), atol=1e-5)
            assert torch.allclose(law[row, k].rho_N, want.rho[0].double(), atol=1e-5)
    assert isinstance(session, HearingSession)


def test_what_was_read_is_not_read_again() -> None:
    session, x_2KP = drafting(), made(2, 3)
    for k in range(4):
        session.score(x_2KP[:, :k])
    assert session._meter.rows == 5 + 3 * 2
    assert session._meter.calls == 4
    session.score(torch.cat((x_2KP[:, :1], x_2KP[:, 1:] + 1.0), 1))
    assert session._meter.rows == 5 + 3 * 2 + 2 * 2


def test_features_that_are_heard_take_the_place_of_its_own() -> None:
    """Paths of different lengths, each with the target's features in front of its last patch."""
    target, session, net = opened(18), drafting(paths=3), cell()
    target.fork(3)
    assert isinstance(target, FeatureSession)
    x_3KP = made(3, 2)
    target.score(x_3KP)
    kept_3KP, counts = torch.cat((x_3KP, made(3, 1, seed=8)), 1), [1, 3, 2]
    kept_3KP[[0, 1, 2], [n - 1 for n in counts]] += 0.5  # corrections, or the patch behind kept guesses
    for one in (target, session):
        one.commit(kept_3KP, counts)
    features_3C, read_3 = target.features(range(3))
    assert read_3.tolist() == [0, 2, 1]
    session.hear(features_3C, read_3, range(3))
    law = session.score(made(2, 1, seed=5), [2, 0])
    for r, row in enumerate([2, 0]):
        told_T = torch.cat((series(18), kept_3KP[row, : counts[row]].flatten()))
        want = read(net, told_T, features_3C[row][None].float(), first=5 + int(read_3[row]))
        assert torch.allclose(law[r, 0].mean_NP, want.mean_P[0].double(), atol=1e-5)
        longer_T = torch.cat((told_T, made(2, 1, seed=5)[r].flatten()))
        want = read(net, longer_T, features_3C[row][None].float(), first=5 + int(read_3[row]))
        assert torch.allclose(law[r, 1].mean_NP, want.mean_P[0].double(), atol=1e-5)


def test_features_of_another_width_are_refused() -> None:
    session = drafting(net=cell(dim=WIDTH + 2))
    with pytest.raises(UserError, match="trained beside it"):
        session.hear(torch.zeros(2, WIDTH), torch.zeros(2), [0, 1])


def test_strategies_tell_it_what_the_target_thought() -> None:
    """An exact lane with it: every patch is drafted behind the target's features, and all paths come to their end."""
    target, session = opened(18), drafting(paths=1)
    session = CellModel("draft", cell()).open(
        PathSession, Prompt(extras={"context": tuple(series(18).tolist()), "season": 3}), Sampling(), Meter(), 1
    )
    heard: list[int] = []
    hear = session.hear
    session.hear = lambda features_RC, read_R, rows: (heard.append(len(rows)), hear(features_RC, read_R, rows))
    steps = list(find("speculative_patches").run(target, session, ask=Ask(5 * P, Seeded(0)), gamma=2, paths=6))
    assert heard[0] == 6
    assert len(heard) == len(steps)
    written = [mark for step in steps for mark in step.marks if mark.fate in (Fate.KEPT, Fate.FIXED, Fate.BONUS)]
    assert len(written) == 6 * 5


def test_numbers_that_are_none_are_refused() -> None:
    net = cell()
    net.gain.fill_(math.nan)
    with pytest.raises(UserError, match="no forecast"):
        drafting(net=net).score()


# ----------------------------------------------------------------------------------------------------------- training
def trained(tmp_path: Path, steps: int = 24) -> PatchCell:
    torch.manual_seed(0)
    save_forecaster(tmp_path / "forecaster.safetensors", Forecaster(TINY["target"].config))
    recipe = replace(drafter.TINY, steps=steps)
    return drafter.build(recipe, walks(200).numpy(), tmp_path, tmp_path, "cpu")


def test_windows_are_continued_by_the_target_behind_the_origin_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Forecaster(TINY["target"].config).eval()
    job = drafter.job_of(drafter.TINY, model, walks(200).numpy(), tmp_path, tmp_path, "cpu")
    batch_BNP, front = draw(job, (0, 3))
    out_BNP = drafter.continued(Frozen(model), batch_BNP, front, torch.Generator().manual_seed(0))
    assert torch.equal(out_BNP[:, :front].nan_to_num(), batch_BNP[:, :front].nan_to_num())
    law = drafter.at(model.laws(*model(out_BNP), 0), (..., 0))
    noise_B = ((out_BNP[:, front] - law.mean_P[:, front - 1]) / law.log_scale_P[:, front - 1].exp())[:, 0]
    known_B = noise_B[torch.isfinite(noise_B)]
    assert len(known_B) > 4
    assert abs(float(known_B.mean())) < 5 / math.sqrt(len(known_B))


def test_a_few_steps_learn_and_training_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="train it first"):
        drafter.build(drafter.TINY, walks(200).numpy(), tmp_path, tmp_path, "cpu")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    model = trained(whole)
    target = drafter.read_forecaster(whole / "forecaster.safetensors")
    job = drafter.job_of(drafter.TINY, target, walks(200).numpy(), tmp_path, tmp_path, "cpu")
    fresh = PatchCell(model.config)
    fresh.begin_with(target)
    given = drafter.lessons(job, target, 2)
    costs = [sum(float(drafter.loss_of(m, x, True).detach()) for x in given) for m in (fresh, model)]
    assert costs[1] < 0.9 * costs[0]
    monkeypatch.setattr(drafter, "SAVED_EVERY", 15)
    trained(parts)
    first, second = (drafter.PatchCell(model.config) for _ in range(2))
    states = [load_cell("x", f / "forecaster-draft.safetensors", "cpu").net.state_dict() for f in (whole, parts)]
    for own, state in zip((first, second), states, strict=True):
        own.load_state_dict(state)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_wider_cell_says_the_same_until_it_is_trained_on(tmp_path: Path) -> None:
    net, values_T = cell(), series(24)
    more = wider(net, 20)
    assert more.config.hidden == 20
    assert more.num_params > net.num_params
    for own, theirs in zip(told(read(net, values_T)), told(read(more, values_T)), strict=True):
        assert torch.allclose(own, theirs, atol=1e-6)
    before = trained(tmp_path, steps=2)
    (tmp_path / "drafter.pt").unlink()
    recipe = replace(drafter.TINY, hidden=24, steps=2)
    after = drafter.build(recipe, walks(200).numpy(), tmp_path, tmp_path, "cpu", begin=tmp_path)
    assert (before.config.hidden, after.config.hidden) == (16, 24)
    assert torch.allclose(after.straight.weight, before.straight.weight, atol=0.1)


def told(laws: Laws) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of laws."""
    return laws.mean_P, laws.log_scale_P, laws.rho


def test_the_card_tells_acceptance_and_calls_by_horizon(tmp_path: Path) -> None:
    trained(tmp_path, steps=2)
    target = load_forecaster("house/forecaster", tmp_path / "forecaster.safetensors", "cpu")
    draft = load_cell("house/forecaster-draft", tmp_path / "forecaster-draft.safetensors", "cpu")
    y_T = walks(1, 100, seed=4)[0].double().numpy()
    case = Case("a", y_T[:70], y_T[70:90], 4, "walks")
    told = drafter_measure.beside(target, draft, [case], 48)
    assert 0.0 <= told["alpha"] <= 1.0
    assert 1 <= told["calls_a_path"] <= told["calls"] <= told["calls_one_a_patch"] == 3
    json.dumps(told)


def test_files_come_back(tmp_path: Path) -> None:
    net = cell()
    save_cell(tmp_path / "a.safetensors", net)
    again = load_cell("draft", tmp_path / "a.safetensors", "cpu")
    assert again.net.config == net.config
    assert again.speaks == {PathSession}
    with pytest.raises(UserError, match="There is no drafter"):
        load_cell("draft", tmp_path / "b.safetensors", "cpu")
    assert patches.NAMES == {"target": "forecaster", "target-8": "forecaster-8"}
