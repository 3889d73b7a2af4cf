"""The student of the next-scale painter: what its rows see, the teacher's way from noise, sessions, training, card."""

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
from backend.catalog import STUDENT, Catalog
from backend.chance import Seeded
from backend.codecs.pyramid import shipped
from backend.codecs.scales import ScaleCodec
from backend.entries import builds, card
from backend.errors import UserError
from backend.flows import carried
from backend.meter import Meter
from backend.models.house.portrait_judge import PortraitJudge, save_judge
from backend.models.house.scales import Scales, ScalesConfig, block_mask, logits_of, new_scales, save_scales, views_of
from backend.models.house.student import Student, noisy_views, read_student, space, taught, trajectory
from backend.models.student import StudentModel
from backend.protocols import DistilledSession
from backend.run import record
from backend.train.portraits import loop, student
from backend.train.portraits.student import StudentJob, asked, noise_of
from backend.train.smollm2_draft import Recipe
from backend.types import Request, Sampling
from tests.toys_raster import PROMPT, Painters

CONFIG = ScalesConfig("area", dim=16, num_layers=2, num_heads=2, ffn_dim=24)
PYRAMID = shipped("area")
LENGTH, STARTS = PYRAMID.length, PYRAMID.starts
RECIPE = Recipe(tokens=8, writers=0, batch=4, trainers=1, steps=8, batch_tokens=0, rate=0.05)
PLAIN = Sampling(temperature=1.0)


def teacher_net(seed: int = 0) -> Scales:
    """Random weights, with heads that make laws sharp enough to tell canvases apart."""
    torch.manual_seed(seed)
    net = new_scales(CONFIG, PYRAMID)
    for head in net.heads:
        torch.nn.init.normal_(head.weight, std=0.3)
    return net.eval().requires_grad_(False)


def student_net(seed: int = 0) -> Student:
    net = taught(teacher_net(seed)).requires_grad_(False)
    torch.nn.init.normal_(net.noise_out.weight, std=0.3)
    torch.nn.init.normal_(net.embed_noisy, std=0.3)
    return net.eval()


def some(pictures: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Conditions, noise and tokens."""
    tokens_BL = torch.randint(128, (pictures, LENGTH), generator=torch.Generator().manual_seed(seed))
    return asked([seed], pictures), noise_of([seed], pictures, LENGTH), tokens_BL


@pytest.fixture(scope="module")
def net() -> Student:
    return student_net()


@pytest.fixture(scope="module")
def model(net: Student) -> StudentModel:
    return StudentModel("toy/student", net, ScaleCodec(PYRAMID))


# ------------------------------------------------------------------------------------------------------------- the net
def test_a_token_depends_on_its_own_noise_and_that_of_coarser_maps(net: Student) -> None:
    conditions, noise, tokens = some(1)
    plain = net.told(conditions, noise, tokens[:, :0])
    assert plain.shape == (1, LENGTH, 128)
    for at, slot in ((1, 2), (4, 40)):
        moved = noise.clone()
        moved[0, slot] += 1.0
        apart_L = (net.told(conditions, moved, tokens[:, :0]) - plain)[0].abs().amax(dim=-1)
        seen = [slot, *range(STARTS[at + 1], LENGTH)]
        assert (apart_L[seen] > 1e-6).all()
        assert (apart_L[[i for i in range(LENGTH) if i not in seen]] < 1e-5).all()


def test_known_maps_are_read_in_place_of_their_noise(net: Student) -> None:
    conditions, noise, tokens = some(1)
    known = tokens[:, : STARTS[2]]
    plain = net.told(conditions, noise, known)
    assert plain.shape == (1, LENGTH - STARTS[2], 128)
    moved = noise.clone()
    moved[0, : STARTS[2]] += 1.0
    torch.testing.assert_close(net.told(conditions, moved, known), plain)
    other = known.clone()
    other[0, 3] = (other[0, 3] + 7) % 128
    assert ((net.told(conditions, noise, other) - plain).abs().amax(dim=-1) > 1e-7).all()


@pytest.mark.parametrize("entry", [0, 3])
def test_attention_is_that_of_one_written_out_mask(net: Student, entry: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def masked(hidden: int, counts: list[int], first: int, device: torch.device) -> Any:
        whole_TT = block_mask(hidden, counts, 0, markov=False)
        alone_TT = (whole_TT & ~whole_TT.T) | torch.eye(len(whole_TT), dtype=torch.bool)
        return views_of(torch.cat((whole_TT[:first], alone_TT[first:])), hidden + sum(counts[:-1]))

    conditions, noise, tokens = some()
    plain = net.told(conditions, noise, tokens[:, : STARTS[entry]])
    monkeypatch.setattr("backend.models.house.student.noisy_views", masked)
    torch.testing.assert_close(net.told(conditions, noise, tokens[:, : STARTS[entry]]), plain, atol=1e-5, rtol=1e-4)
    assert len(noisy_views(13, [1, 4, 9], 13 + 5, torch.device("cpu"))) == 2


def test_with_all_but_the_last_map_known_and_no_noise_it_is_its_teacher() -> None:
    """What the last map's rows see of each other apart: the teacher's are blinded for it."""
    teacher = teacher_net()
    net = taught(teacher)
    with torch.no_grad():
        net.noise_out.weight.zero_()
    conditions, noise, tokens = some(1)
    got = net.told(conditions, noise, tokens[:, : STARTS[-2]])
    first = 13 + STARTS[-2]

    def blind(hidden: int, counts: list[int], seen: int, markov: bool) -> torch.Tensor:
        visible_TT = block_mask(hidden, counts, seen, markov)
        visible_TT[first:, first:] = torch.eye(len(visible_TT) - first, dtype=torch.bool)
        return visible_TT

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backend.models.house.scales.block_mask", blind)
        wanted = logits_of(teacher, conditions, tokens)[:, STARTS[-2] :]
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------- the teacher's way
def test_the_teachers_way_is_the_flow_of_its_laws_map_by_map() -> None:
    """Written out without a cache, in float32; products in bfloat16 may turn a few tokens."""
    teacher, (conditions, noise, _) = teacher_net(), some(3)
    got = trajectory(teacher, conditions, noise, 1.0, 8, 20)
    assert torch.equal(got, trajectory(teacher, conditions, noise, 1.0, 8, 20))
    codes, agreed = space(PYRAMID), 0.0
    for at in range(len(STARTS) - 1):
        span = slice(STARTS[at], STARTS[at + 1])
        best = logits_of(teacher, conditions, got)[:, span].topk(8, dim=-1)
        p = best.values.softmax(-1).flatten(0, 1)
        ids = best.indices.flatten(0, 1)
        chosen = carried(noise[:, span].flatten(0, 1), codes[at][ids], p, 20)
        agreed += float((ids.gather(1, chosen[:, None])[:, 0] == got[:, span].flatten()).float().sum())
    assert agreed / got.numel() > 0.9
    other = trajectory(teacher, conditions, noise_of([9], 3, LENGTH), 1.0, 8, 20)
    assert float((other == got).float().mean()) < 0.9


def test_codes_are_as_wide_apart_as_noise() -> None:
    codes = space(PYRAMID)
    torch.testing.assert_close(codes.mean(dim=1), torch.zeros(len(codes), 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(codes.square().mean(dim=(1, 2)), torch.ones(len(codes)))


# --------------------------------------------------------------------------------------------------------- the session
def test_a_call_is_one_forward_and_keeps_nothing(model: StudentModel, net: Student) -> None:
    meter = Meter()
    session = model.open(DistilledSession, model.codec.encode(PROMPT), PLAIN, meter, LENGTH)
    noise = Seeded(3).noise((LENGTH, session.dims))
    first = session.predict(noise)
    known = first.argmax(-1).tolist()[: STARTS[4]]
    second = session.predict(noise, known)
    assert torch.equal(session.predict(noise), first)
    assert (meter.calls, meter.rows) == (3, 3 * (13 + LENGTH))
    conditions = torch.tensor([model.codec.encode(PROMPT).extras["conditions"]])
    torch.testing.assert_close(first, net.told(conditions, noise[None], torch.zeros(1, 0).long())[0].softmax(-1))
    torch.testing.assert_close(second, net.told(conditions, noise[None], torch.tensor([known]))[0].softmax(-1))


def test_the_strategy_paints_in_one_call_and_in_two(model: StudentModel) -> None:
    for entry, calls in ((0, 1), (5, 2)):
        request = Request("one_step", PROMPT, {"target": model.id}, {"entry": entry}, PLAIN, LENGTH, seed=2)
        trace, again = (record(request, Painters(model)) for _ in range(2))  # type: ignore[arg-type]
        canvas = trace.replay()
        assert len(canvas) == LENGTH
        assert -1 not in canvas
        assert canvas == again.replay()
        assert trace.summary().num_target_calls == calls
        assert model.codec.pyramid.decode(np.asarray(canvas)).shape == (16, 16, 3)


def test_a_part_of_a_picture_and_broken_numbers_are_one_sentence(model: StudentModel) -> None:
    raw = {"prompt": PROMPT, "image": Image.new("RGB", (16, 16)), "mask": np.eye(16, dtype=np.uint8) * 255}
    with pytest.raises(UserError, match="paints whole pictures, but 240 cells are given"):
        model.open(DistilledSession, model.codec.encode(raw), PLAIN, Meter(), 1)
    broken = student_net()
    broken.norm.weight[0] = float("nan")
    session = StudentModel("toy/broken", broken, model.codec).open(
        DistilledSession, model.codec.encode(PROMPT), PLAIN, Meter(), 1
    )
    with pytest.raises(UserError, match="toy/broken returned numbers that are no probabilities"):
        session.predict(torch.zeros(LENGTH, 3))


def test_the_catalog_loads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, net: Student) -> None:
    monkeypatch.setattr(catalog_module, "ASSETS", tmp_path)
    monkeypatch.setattr("backend.entries.ASSETS", tmp_path)
    (tmp_path / "house").mkdir()
    with pytest.raises(UserError, match=r"train it with python -m backend\.train\.portraits\.student"):
        Catalog("cpu", "float32").get(STUDENT)
    save_scales(tmp_path / f"{STUDENT}.safetensors", net)
    shelf = Catalog("cpu", "float32")
    assert isinstance(shelf.get(STUDENT), StudentModel)
    assert shelf.default_target(DistilledSession) == STUDENT
    entry = next(entry for entry in shelf.entries() if entry.id == STUDENT)
    assert (entry.modality, entry.protocol) == ("image", "distilled")
    assert entry.why == "python -m backend.train.portraits.student"
    with pytest.raises(UserError, match="has no conditions to be guided by"):
        shelf.get(f"{STUDENT}@cfg=3")


def test_the_shipped_student_tells_laws_and_follows_the_noise() -> None:
    assert card(STUDENT), f"the student ships; build it with: {builds(STUDENT)}"
    model = Catalog("cpu", "float32").get(STUDENT)
    session = model.open(DistilledSession, model.codec.encode(PROMPT), PLAIN, Meter(), 1)
    first, other = (Seeded(seed).noise((model.context, session.dims)) for seed in (1, 2))
    p_LV = session.predict(first)
    torch.testing.assert_close(p_LV.sum(-1), torch.ones(model.context), atol=1e-5, rtol=0)
    assert torch.equal(session.predict(first), p_LV)
    assert not torch.equal(session.predict(other).argmax(-1), p_LV.argmax(-1))


# ------------------------------------------------------------------------------------------------------------ training
@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudentJob:
    monkeypatch.setattr(student, "CHUNK", 2)
    monkeypatch.setattr(student, "FLOW_STEPS", 4)
    save_scales(tmp_path / "portraits-scales.safetensors", teacher_net())
    return StudentJob(RECIPE, "cpu", tmp_path, "student", tmp_path)


def test_what_was_painted_is_kept_and_gone_on_with(job: StudentJob) -> None:
    teacher, _ = student.prepare(job)
    conditions, tokens = student.collect(replace(job, recipe=replace(RECIPE, tokens=4)), teacher, 0)
    more_conditions, more = student.collect(job, teacher, 0)
    assert (len(tokens), len(more)) == (4, 8)
    assert torch.equal(more[:4], tokens)
    assert torch.equal(more_conditions[:4], conditions)
    for chunk in range(4):
        noise = noise_of((RECIPE.seed, 0, chunk), 2, LENGTH)
        part = slice(2 * chunk, 2 * chunk + 2)
        assert torch.equal(student.painted(teacher, more_conditions[part], noise), more[part])
    for conditions_BA, noise_BLD, tokens_BL, _ in islice(student.batches(job, (more_conditions, more), 0, 0), 3):
        assert torch.equal(student.painted(teacher, conditions_BA, noise_BLD), tokens_BL)


def test_it_learns_resumes_and_is_saved_with_its_card(job: StudentJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVED_EVERY", 2)
    save_judge(job.out / "portrait-judge.safetensors", PortraitJudge((4, 4, 4, 8)))
    teacher, once = student.prepare(job)
    pairs = student.collect(job, teacher, 0)
    batch = next(student.batches(job, pairs, 0, 0))
    before = student.loss_of(once, *batch).item()
    student.train(replace(job, recipe=replace(RECIPE, steps=4)), once, pairs, 0)
    student.train(job, once, pairs, 0)
    assert student.loss_of(once, *batch).item() < before
    resumed = student.prepare(job)[1]
    student.train(job, resumed, pairs, 0)  # all is done: nothing but the checkpoint is read
    for name, weight in resumed.state_dict().items():
        torch.testing.assert_close(weight, once.state_dict()[name])
    student.save(job, once, teacher, pictures=2, held=2)
    card = json.loads((job.out / "portraits-student.json").read_text())
    assert card["id"] == "house/portraits-student"
    assert card["painted_by_the_teacher"]["guidance"] == student.GUIDANCE
    told = card["beside_its_teacher"]
    assert told == student.follows(read_student(job.out / "portraits-student.safetensors"), teacher, 2)
    for name in ("1_call", "2_calls", "other_noise"):
        assert 0 <= told[name]["pixel_distance"] <= 1
        assert 0 <= told[name]["same_pixels"] <= 1
    for name in ("1_call", "2_calls", "teacher_7_calls"):
        assert 0 <= card["painted"][name]["accuracy"]["all"] <= 1
        assert card["painted"][name]["median_seconds_a_picture"] > 0


def test_pictures_apart() -> None:
    black, white = np.zeros((2, 16, 16, 3), dtype=np.uint8), np.full((2, 16, 16, 3), 255, dtype=np.uint8)
    assert student.apart(black, black) == {"pixel_distance": 0.0, "same_pixels": 1.0}
    assert student.apart(black, white) == {"pixel_distance": 1.0, "same_pixels": 0.0}


def test_a_student_without_its_teacher_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no portraits-scales\.safetensors in"):
        student.prepare(StudentJob(RECIPE, "cpu", tmp_path, "student", tmp_path))
