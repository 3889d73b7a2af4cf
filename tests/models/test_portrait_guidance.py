"""Guidance learned into weights: contrastive alignment and the net that reflects guidance, losses, modes, files."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backend import catalog as catalog_module
from backend.catalog import Catalog
from backend.entries import FREE, GUIDANCE, VERIFIER, WEAK, card, entries, guidance_of
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.llama import Llama
from backend.models.house.own import read_own, save_own
from backend.models.house.portrait_judge import PortraitJudge, save_judge
from backend.models.house.reflected import Reflected, Reflection, read_reflection, save_reflection
from backend.models.raster import RasterModel, guided, refined, reflected
from backend.protocols import CausalSession, PictureJudgeSession
from backend.train.portraits import contrast, raster_measure, reflect
from backend.train.portraits.raster import laws_of
from backend.types import Sampling
from tests.toys_raster import CODEC, LAYOUT, PROMPT, painter, painter_net

SCALE = 3.0


# --------------------------------------------------------------------------------------------- contrastive alignment
def pairs(named: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    conditions, others, canvas = next(contrast.batches(replace(contrast.RECIPES["cpu"], batch=8), 0, 0))
    return (conditions, others, canvas) if named else (conditions * 0, others * 0, canvas)


def test_the_loss_of_a_model_that_is_its_reference() -> None:
    """(1 + lambda) ln 2 / max(lambda, 1) where every pair is contrary, 2 ln 2 / max(lambda, 1) where nothing is."""
    net = painter_net()
    conditions, others, canvas = pairs()
    contrary = (conditions != others).any(1)
    assert 0 < int(contrary.sum()) < 8
    for lam in (0.5, 50.0):
        loss = contrast.loss_of(net, net, 0.02, lam, conditions[contrary], others[contrary], canvas[contrary])
        assert loss.item() == pytest.approx((1 + lam) * math.log(2) / max(lam, 1), rel=1e-5)
        same = contrast.loss_of(net, net, 0.02, lam, *pairs(named=False))
        assert same.item() == pytest.approx(2 * math.log(2) / max(lam, 1), rel=1e-5)


def test_the_loss_by_hand() -> None:
    model, reference = painter_net(1), painter_net(0)
    conditions, others, canvas = (part[:3] for part in pairs())

    def gain(row: int, asked: Tensor) -> float:
        logs = [laws_of(net, asked[row, None], canvas[row, None]).log_softmax(-1)[0] for net in (model, reference)]
        return float((logs[0] - logs[1]).detach().gather(1, canvas[row][:, None]).sum())

    told = 0.0
    for row in range(3):
        told -= math.log(1 / (1 + math.exp(-0.02 * gain(row, conditions))))
        same = torch.equal(conditions[row], others[row])
        sign, weight = (1, 1.0) if same else (-1, 7.0)
        told -= weight * math.log(1 / (1 + math.exp(-sign * 0.02 * gain(row, others))))
    loss = contrast.loss_of(model, reference, 0.02, 7.0, conditions, others, canvas)
    assert loss.item() == pytest.approx(told / 3 / 7, rel=0.02)  # products in bfloat16, in batches of other sizes


def test_other_conditions_name_the_same_attributes_with_the_next_ones_values() -> None:
    rows = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert contrast.others(rows, torch.tensor([[1, 0, 3], [0, 0, 0]])).tolist() == [[4, 0, 6], [0, 0, 0]]
    recipe = replace(contrast.RECIPES["cpu"], batch=4)
    later = islice(contrast.batches(recipe, 1, 2), 2)
    for late, early in zip(later, islice(contrast.batches(recipe, 1, 0), 2, 4), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(late, early, strict=True))


def test_training_makes_what_fits_likelier_beside_what_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four portraits learned by heart."""
    recipe = replace(contrast.RECIPES["cpu"], batch=4, trainers=1, steps=10, rate=0.1)
    batch = next(contrast.batches(recipe, 0, 0))
    monkeypatch.setattr(contrast, "batches", lambda *args: repeat(batch))
    model, reference = painter_net(sharpness=0.05), painter_net(sharpness=0.05).requires_grad_(False)
    contrast.train(contrast.ContrastJob(recipe, "cpu", tmp_path, "free", tmp_path, lam=3.0), model, reference, 0)
    conditions, others, canvas = batch
    contrary = (conditions != others).any(1)
    with torch.no_grad():
        before, after = (contrast.loss_of(net, reference, 0.02, 3.0, *batch).item() for net in (reference, model))
        margins = [
            contrast.log_chances(net, conditions, canvas) - contrast.log_chances(net, others, canvas)
            for net in (reference, model)
        ]
    assert after < before / 2
    assert contrary.any()
    assert (margins[1] > margins[0] + 10)[contrary].all()


def test_the_aligned_model_is_saved_with_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_judge(tmp_path / "portrait-judge.safetensors", PortraitJudge((4, 4, 4, 8)))
    save_own(tmp_path / "portraits.safetensors", painter_net())
    monkeypatch.setattr(contrast, "SCALES", ())
    job = contrast.ContrastJob(contrast.RECIPES["cpu"], "cpu", tmp_path, "free", tmp_path)
    model, reference = contrast.prepare(job)
    contrast.save(job, model, reference, pictures=2, held=4)
    card = json.loads((tmp_path / "portraits-free.json").read_text())
    assert card["recipe"]["lambda"] == 10.0
    assert card["held_out"] == pytest.approx(card["held_out_of_the_reference"], rel=0.01)  # but for its six bits
    assert {"portraits", "portraits-free"} <= set(card["painted"])
    assert isinstance(read_own(tmp_path / "portraits-free.safetensors"), Llama)
    with pytest.raises(UserError, match=r"backend\.train\.portraits\.raster"):
        contrast.prepare(replace(job, out=tmp_path / "nowhere"))


# ------------------------------------------------------------------------------------------------ reflected guidance
class Known(Reflection):
    """A net that knows the change to make."""

    def __init__(self, change_C: Tensor) -> None:
        super().__init__(len(change_C), 4, SCALE)
        self.double()
        self.change_C = change_C

    def forward(self, hidden_NC: Tensor) -> Tensor:
        return self.change_C.expand_as(hidden_NC)


def law(model: RasterModel, draft: tuple[int, ...] = (), meter: Meter | None = None) -> Tensor:
    session = model.open(CausalSession, CODEC.encode(PROMPT), Sampling(temperature=1.0), meter or Meter(), 8)
    raw: Tensor = session.score(draft).raw_NV
    return raw


def random_net(seed: int = 0) -> Reflection:
    torch.manual_seed(seed)
    net = Reflection(16, 24, SCALE).double()
    torch.nn.init.normal_(net.outer.weight, std=0.3)
    return net


def test_an_untrained_net_changes_nothing_and_costs_one_sequence() -> None:
    plain = painter()
    weak, meter = reflected(plain, Reflection(16, 24, SCALE).double(), "toy/weak"), Meter()
    torch.testing.assert_close(law(weak, (4, 5), meter), law(plain, (4, 5)))
    assert (meter.calls, meter.rows) == (1, 13 + 2)
    assert weak.num_params == plain.num_params + 2 * 16 * 24 + 24 + 16


def test_logits_are_those_of_the_moved_state() -> None:
    plain, change = painter(), torch.linspace(-1, 1, 16, dtype=torch.float64)
    weak = reflected(plain, Known(change), "toy/weak")
    head = painter_net().double().head_weight()
    torch.testing.assert_close(law(weak), law(plain) + change @ head.T)


def test_refining_runs_from_the_net_over_guidance_to_beyond() -> None:
    plain = painter()
    weak = reflected(plain, random_net(), "toy/weak")
    told, true = law(weak, (4, 5)), law(guided(plain, SCALE), (4, 5))
    assert not torch.allclose(told, true)
    for omega in (0.0, 1.0, 1.5):
        model, meter = refined(weak, omega), Meter()
        torch.testing.assert_close(law(model, (4, 5), meter), told + omega * (true - told))
        assert (meter.calls, meter.rows) == (1, 2 * (13 + 2))
    assert refined(weak, 1.5).id == "toy/weak@refine=1.5"


def test_what_cannot_be_refined_or_guided() -> None:
    plain = painter()
    weak = reflected(plain, random_net(), "toy/weak")
    with pytest.raises(UserError, match="between 0 and 20"):
        refined(weak, 21.0)
    with pytest.raises(UserError, match="has no net that stands for guidance"):
        refined(plain, 1.5)
    for model in (weak, refined(weak, 1.5)):
        with pytest.raises(UserError, match="guided already"):
            guided(model, 2.0)


def test_the_net_learns_what_guidance_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, reflection = painter_net().requires_grad_(False), Reflection(16, 32, SCALE)
    before = reflect.held_out(net, reflection, 8)
    assert before["kl_guided_net_nats_per_pixel"] == before["kl_guided_plain_nats_per_pixel"] > 0
    reflect.train(net, reflection, reflect.Recipe(batch=4, steps=100, rate=5e-2))
    after = reflect.held_out(net, reflection, 8)
    assert after["kl_guided_plain_nats_per_pixel"] == before["kl_guided_plain_nats_per_pixel"]
    assert after["kl_guided_net_nats_per_pixel"] < 0.98 * before["kl_guided_net_nats_per_pixel"]
    assert len(after["kl_guided_net_by_row"]) == LAYOUT.grid[0]


def test_collected_logits_are_those_of_the_guided_session() -> None:
    """But for products in bfloat16 while training."""
    net, conditions = painter_net(), torch.tensor([CODEC.encode(PROMPT).extras["conditions"]])
    canvas = torch.arange(256)[None] % 128
    _, said = reflect.collect(net, SCALE, conditions, canvas)
    true = law(guided(painter(), SCALE), tuple(canvas[0, :8].tolist()))
    torch.testing.assert_close(said[0, :9].softmax(-1).double(), true.softmax(-1), atol=0.05, rtol=0.2)


def test_the_net_is_saved_with_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflect, "OMEGAS", ())
    save_judge(tmp_path / "portrait-judge.safetensors", PortraitJudge((4, 4, 4, 8)))
    net, recipe = painter_net(), reflect.Recipe(batch=2, steps=1, rate=1e-3)
    reflection = random_net().float()
    reflect.save(tmp_path, net, reflection, recipe, "cpu", pictures=2, held=2)
    card = json.loads((tmp_path / "portraits-weak.json").read_text())
    ways = {"portraits", "portraits@cfg=3", "portraits-weak"}
    assert ways <= set(card["painted"])
    back = read_reflection(tmp_path / "portraits-weak.safetensors")
    assert back.scale == SCALE
    gap_OI = back.outer.weight - reflection.outer.weight  # of 8 bits a weight
    assert float(gap_OI.norm() / reflection.outer.weight.norm()) < 0.02
    with pytest.raises(UserError, match=r"backend\.train\.portraits\.reflect"):
        read_reflection(tmp_path / "nothing.safetensors")


def test_measures_use_the_reflected_backbone() -> None:
    weak: Any = reflected(raster_measure.painter(painter_net(), "toy/painter"), random_net().float(), "toy/weak")
    assert isinstance(weak.backbone, Reflected)
    assert len(raster_measure.paint(weak, torch.zeros(13, dtype=torch.long), 0)) == 256


def test_save_reflection_keeps_the_scale(tmp_path: Path) -> None:
    save_reflection(tmp_path / "net.safetensors", Reflection(4, 5, 2.25))
    assert read_reflection(tmp_path / "net.safetensors").scale == 2.25


# -------------------------------------------------------------------------------------------------------- the catalog
def test_the_catalog_loads_what_guidance_was_learned_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "ASSETS", tmp_path)
    (tmp_path / "house").mkdir()
    catalog = Catalog("cpu", "float32")
    for model_id, script in ((FREE, "contrast"), (WEAK, "reflect"), (VERIFIER, "judge --name portrait-verifier")):
        with pytest.raises(UserError, match=f"build it with: python -m backend.train.portraits.{script}"):
            catalog.get(model_id)
    save_own(tmp_path / "house" / "portraits.safetensors", painter_net())
    save_own(tmp_path / "house" / "portraits-free.safetensors", painter_net(1))
    save_reflection(tmp_path / f"{WEAK}.safetensors", random_net())
    save_judge(tmp_path / f"{VERIFIER}.safetensors", PortraitJudge((4, 4, 4, 8)))
    weak = catalog.get(f"{WEAK}@refine=1.5")
    assert weak.id == f"{WEAK}@refine=1.5"
    assert catalog.get(WEAK).num_params > catalog.get(FREE).num_params == catalog.get("house/portraits").num_params
    assert catalog.get(VERIFIER).speaks == {PictureJudgeSession}
    assert catalog.default("verifier", "house/portraits-masked") == VERIFIER
    assert catalog.default("draft", FREE) == "house/portraits-draft"
    with pytest.raises(UserError, match="names no strength"):
        catalog.get(f"{WEAK}@refine=much")
    with pytest.raises(UserError, match="has no net that stands for guidance"):
        catalog.get("house/portraits@refine=1.5")


def test_cards_and_the_catalog_tell_how_guidance_is_asked_for() -> None:
    painters = [entry for entry in entries() if guidance_of(entry.id)]
    assert {guidance_of(entry.id) for entry in painters} == set(GUIDANCE.values())
    for entry in painters:
        assert entry.about.endswith(guidance_of(entry.id))
        assert card(entry.id).get("guidance", guidance_of(entry.id)) == guidance_of(entry.id), entry.id
        assert not entry.available or "guidance" in card(entry.id), entry.id
    assert not guidance_of(WEAK)


@pytest.mark.parametrize("kind", list(GUIDANCE))
def test_what_is_told_of_guidance_is_so(kind: str) -> None:
    told = GUIDANCE[kind]
    model_id = next((e.id for e in entries() if e.available and guidance_of(e.id) == told), "")
    assert model_id, "a painter of every kind ships"
    catalog, names = Catalog("cpu", "float32"), re.findall(r"@cfg=3[-a-z0-9]*", told)
    assert [catalog.get(f"{model_id}{name}").id for name in names] == [f"{model_id}{name}" for name in names]
    for name in {"@cfg=3-linear", "@cfg=3-first5"} - set(names):
        with pytest.raises(UserError, match=r"the same all over a picture|does not paint maps"):
            catalog.get(f"{model_id}{name}")
