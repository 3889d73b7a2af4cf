"""Masked painters: calls against the forward that is trained, known cells, filters, guidance, errors, the catalog."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend import catalog as catalog_module
from backend.catalog import MASKED, Catalog
from backend.codecs.portraits import draw_many
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.masked import Mural, features_of, logits_of, mask_of, turns_of
from backend.models.house.own import save_own
from backend.models.house.raster import Layout
from backend.models.masked import MaskedModel, guided
from backend.protocols import GridSession, MaskedSession, Prompt
from backend.run import record
from backend.types import Request, Sampling
from tests.toys_masked import WARM, half_known, mural, mural_net, opened
from tests.toys_raster import CELLS, CODEC, LAYOUT, PROMPT, Painters, painter_net

OPEN = "portrait"
EMPTY = [-1] * CELLS


def trained(canvas: Sequence[int], raw: str = PROMPT) -> torch.Tensor:
    """Logits [L, V] by the forward that is trained, in float64."""
    read = torch.tensor([[mask_of(LAYOUT) if token < 0 else token for token in canvas]])
    asked = torch.tensor([CODEC.encode(raw).extras["conditions"]])
    net = mural_net().double()
    with torch.no_grad():
        return logits_of(net, features_of(net, LAYOUT, asked, read))[0]


def painted_again(raw: str = PROMPT) -> dict[str, Any]:
    """A portrait whose rows 3 to 5 are to be painted again."""
    pixels, _ = draw_many(1, np.random.default_rng(4))
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[3:6] = 255
    return {"prompt": raw, "image": Image.fromarray(pixels[0]), "mask": mask}


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(a, b.to(a.dtype), atol=atol, rtol=1e-5)


@pytest.fixture(scope="module")
def model() -> MaskedModel:
    return mural()


# -------------------------------------------------------------------------------------------------------- the session
@pytest.mark.parametrize("canvas", [EMPTY, half_known(), half_known(1)], ids=["empty", "half", "other"])
def test_what_is_decoded_is_what_is_trained(model: MaskedModel, canvas: list[int]) -> None:
    p_LV = opened(model).denoise(canvas)
    gone = torch.tensor(canvas) < 0
    close(p_LV[gone], trained(canvas).softmax(-1)[gone])
    assert p_LV.shape == (CELLS, CODEC.size)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_narrow_products_give_nearly_the_same_in_float32(dtype: torch.dtype, atol: float) -> None:
    p_LV = opened(mural(dtype=dtype)).denoise(EMPTY)
    assert p_LV.dtype == torch.float32
    close(p_LV, trained(EMPTY).softmax(-1), atol)


def test_known_cells_are_one_hot_and_read(model: MaskedModel) -> None:
    canvas = half_known()
    p_LV = opened(model).denoise(canvas)
    for slot, token in enumerate(canvas):
        if token >= 0:
            assert p_LV[slot].nonzero().flatten().tolist() == [token]
            assert p_LV[slot, token] == 1
    at = next(slot for slot, token in enumerate(canvas) if token >= 0)
    changed = [*canvas[:at], (canvas[at] + 1) % CODEC.size, *canvas[at + 1 :]]
    gone = torch.tensor(canvas) < 0
    moved = (opened(model).denoise(changed) - p_LV)[gone].abs().amax(dim=-1)
    assert (moved > 0).all()  # every open cell sees every known one, before it and behind it


def test_a_full_canvas_is_told_as_it_is(model: MaskedModel) -> None:
    canvas = [slot % CODEC.size for slot in range(CELLS)]
    p_LV = opened(model).denoise(canvas)
    assert p_LV.argmax(-1).tolist() == canvas
    assert p_LV.sum() == CELLS


def test_the_place_of_a_cell_matters(model: MaskedModel) -> None:
    """Without place vectors and turns every cell of an empty canvas has the same law."""
    p_LV = opened(model).denoise(EMPTY)
    assert len(torch.unique(p_LV.round(decimals=9), dim=0)) == CELLS
    bare = Mural(mural_net().pack(torch.float64), LAYOUT)
    bare._place_TC = torch.zeros_like(bare._place_TC)
    bare._turn_T1P = torch.ones_like(bare._turn_T1P)
    same_LV = opened(MaskedModel("toy/bare", bare, CODEC, 0)).denoise(EMPTY)
    close(same_LV, same_LV[:1].expand(CELLS, -1))


def test_one_up_is_the_same_angle_everywhere() -> None:
    """And a step to the side turns other pairs."""
    turn_T1P = turns_of(LAYOUT, mural_net().config, torch.float64)
    grid_HWP = turn_T1P[LAYOUT.hidden :, 0].view(16, 16, -1)
    down_HWP, aside_HWP = grid_HWP[1:] / grid_HWP[:-1], grid_HWP[:, 1:] / grid_HWP[:, :-1]
    half = grid_HWP.shape[-1] // 2
    for step, moves, rests in (
        (down_HWP, slice(0, half), slice(half, None)),
        (aside_HWP, slice(half, None), slice(0, half)),
    ):
        torch.testing.assert_close(step, step[:1, :1].expand_as(step), atol=1e-6, rtol=0)
        assert ((step[..., rests] - 1).abs() < 1e-9).all()
        assert (step[..., moves].angle() > 0).all()
    assert (turn_T1P[: LAYOUT.hidden] == 1).all()


def test_conditions_change_the_law(model: MaskedModel) -> None:
    first = opened(model).denoise(EMPTY)
    assert not torch.allclose(first, opened(model, "dark skin, bald").denoise(EMPTY))


def test_given_cells_stay_through_a_run(model: MaskedModel) -> None:
    raw = painted_again()
    session = opened(model, raw, room=48)
    given = CODEC.encode(raw).extras["canvas"]
    assert session.canvas_L == given
    assert session.grid == (16, 16)
    assert sum(token < 0 for token in given) == 48
    request = Request("confidence", raw, {"target": model.id}, {"steps": 4}, WARM, 48, seed=2)
    trace = record(request, Painters(model))  # type: ignore[arg-type]
    written = {mark.slot for step in trace.steps for mark in step.marks}
    assert written == set(range(48, 96))
    final = trace.steps[-1].frame or ()
    assert all(token == now for token, now in zip(given, final, strict=True) if token >= 0)
    assert -1 not in final


# ------------------------------------------------------------------------------------------------------------- filters
def test_filters_are_those_of_every_other_model(model: MaskedModel) -> None:
    canvas = half_known()
    gone = torch.tensor(canvas) < 0
    raw_NV = trained(canvas)[gone]
    cold = opened(model, sampling=Sampling(temperature=0.5, top_k=4)).denoise(canvas)[gone]
    p_NV = (raw_NV / 0.5).softmax(-1)
    kept_NV = p_NV * (p_NV >= p_NV.topk(4, dim=-1).values[:, -1:])
    close(cold, kept_NV / kept_NV.sum(-1, keepdim=True))
    greedy = opened(model, sampling=Sampling()).denoise(canvas)[gone]
    assert greedy.argmax(-1).tolist() == raw_NV.argmax(-1).tolist()
    assert (greedy.amax(-1) == 1).all()


def test_repetition_is_told_by_the_known_cells(model: MaskedModel) -> None:
    canvas = [7] * 4 + [-1] * (CELLS - 4)
    punished = opened(model, sampling=Sampling(temperature=1.0, repetition_penalty=1.5)).denoise(canvas)[4:]
    raw_NV = trained(canvas)[4:].clone()
    raw_NV[:, 7] = torch.where(raw_NV[:, 7] > 0, raw_NV[:, 7] / 1.5, raw_NV[:, 7] * 1.5)
    close(punished, raw_NV.softmax(-1))


# ------------------------------------------------------------------------------------------------------------ guidance
def test_guidance_of_one_is_the_model_and_of_zero_is_nothing_asked(model: MaskedModel) -> None:
    canvas = half_known()
    close(opened(guided(model, 1.0)).denoise(canvas), opened(model).denoise(canvas))
    close(opened(guided(model, 0.0)).denoise(canvas), opened(model, OPEN).denoise(canvas))


@pytest.mark.parametrize("scale", [0.5, 3.0, 7.5])
def test_guided_laws_are_two_single_calls_combined(model: MaskedModel, scale: float) -> None:
    """Both conventions, before temperature and filters."""
    canvas = half_known()
    gone = torch.tensor(canvas) < 0
    l_c, l_u = trained(canvas), trained(canvas, OPEN)
    t = scale - 1
    got = opened(guided(model, scale)).denoise(canvas)[gone]
    close(got, (l_u + scale * (l_c - l_u)).softmax(-1)[gone])
    close(got, ((1 + t) * l_c - t * l_u).softmax(-1)[gone])
    warm = opened(guided(model, scale), sampling=Sampling(temperature=2.0)).denoise(canvas)[gone]
    close(warm, ((l_u + scale * (l_c - l_u)) / 2).softmax(-1)[gone])


def test_a_denoising_is_one_call_of_all_cells(model: MaskedModel) -> None:
    inner = Mural.logits
    for used, rows in ((model, CELLS), (guided(model, 2.0), 2 * CELLS)):
        meter, calls = Meter(), []

        def counted(self: Mural, *args: Any, calls: list[int] = calls) -> torch.Tensor:
            calls.append(len(args[0]))
            return inner(self, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Mural, "logits", counted)
            session = opened(used, meter=meter)
            assert (meter.calls, meter.rows) == (0, 0)
            session.denoise(EMPTY)
            session.denoise(half_known())
        assert calls == [rows // CELLS] * 2
        assert (meter.calls, meter.rows) == (2, 2 * rows)


# -------------------------------------------------------------------------------------------------------------- errors
def test_bad_guidance_is_one_sentence(model: MaskedModel) -> None:
    for scale in (-0.1, 21.0, float("nan")):
        with pytest.raises(UserError, match="Guidance must lie between 0 and 20"):
            guided(model, scale)
    with pytest.raises(UserError, match="guided already; name one scale"):
        guided(guided(model, 2.0), 2.0)


def test_a_budget_beyond_the_open_cells_is_one_sentence(model: MaskedModel) -> None:
    with pytest.raises(UserError, match="48 of the 256 cells are to be painted, but the budget is 49; ask for 48"):
        opened(model, painted_again(), room=49)


def test_a_model_of_another_grid_or_kind_is_refused() -> None:
    with pytest.raises(AssertionError, match="another grid"):
        Mural(mural_net(), Layout(128, LAYOUT.choices, (8, 8)))
    with pytest.raises(AssertionError, match="another grid"):
        Mural(painter_net(), LAYOUT)


def test_numbers_that_are_no_probabilities_are_one_sentence() -> None:
    net = mural_net()
    with torch.no_grad():
        net.norm.weight[0] = float("nan")
    broken = MaskedModel("toy/broken", Mural(net.pack(torch.float32), LAYOUT), CODEC, 0)
    with pytest.raises(UserError, match="toy/broken returned numbers that are no probabilities"):
        opened(broken).denoise(EMPTY)


def test_a_prompt_without_a_canvas_is_an_empty_one(model: MaskedModel) -> None:
    prompt = Prompt((), {"conditions": [0] * 13})
    assert list(model.open(MaskedSession, prompt, WARM, Meter(), CELLS).canvas_L) == EMPTY


# --------------------------------------------------------------------------------------------------------- the catalog
@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A catalog whose masked painter has random weights."""
    monkeypatch.setattr(catalog_module, "ASSETS", tmp_path)
    monkeypatch.setattr("backend.entries.ASSETS", tmp_path)
    (tmp_path / "house").mkdir()
    return Catalog("cpu", "float32")


def test_the_catalog_loads_it_and_guides_it(shelf: Catalog, tmp_path: Path) -> None:
    save_own(tmp_path / f"{MASKED}.safetensors", mural_net())
    (tmp_path / f"{MASKED}.json").write_text(json.dumps({"num_params": 5}))
    plain, strong = shelf.get(MASKED), shelf.get(f"{MASKED}@cfg=3")
    assert isinstance(plain, MaskedModel)
    assert isinstance(strong, MaskedModel)
    assert (strong.id, strong.scale, strong.mural) == (f"{MASKED}@cfg=3", 3.0, plain.mural)
    apart_L = (opened(plain).denoise(EMPTY) - trained(EMPTY).softmax(-1)).abs().sum(dim=-1) / 2
    assert float(apart_L.mean()) < 0.05  # weights of one byte
    entry = next(entry for entry in shelf.entries() if entry.id == MASKED)
    assert (entry.modality, entry.protocol, entry.num_params, entry.available) == ("image", "grid", 5, True)
    assert shelf.default_target(GridSession) == shelf.default_target(MaskedSession) == MASKED
    with pytest.raises(UserError, match=f"no draft model for {MASKED}"):
        shelf.default("draft", MASKED)
    with pytest.raises(UserError, match="guided already"):
        shelf.get(f"{MASKED}@cfg=3@cfg=2")
    with pytest.raises(UserError, match="cannot run only some of its layers"):
        shelf.get(f"{MASKED}@exit1")


def test_one_that_is_not_here_says_how_to_build_it(shelf: Catalog) -> None:
    command = r"python -m backend\.train\.portraits\.masked"
    with pytest.raises(UserError, match=f"{MASKED} is not in assets/house; build it with: {command}"):
        shelf.get(MASKED)
