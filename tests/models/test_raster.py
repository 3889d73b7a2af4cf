"""Painters of pictures, pixel by pixel: hidden conditions, places, sessions, guidance, every strategy, the catalog."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend import catalog as catalog_module
from backend.catalog import PORTRAITS, Catalog
from backend.codecs.portraits import ANY, draw_many
from backend.entries import builds
from backend.errors import UserError
from backend.meter import Meter
from backend.models.guided import Guided
from backend.models.house.own import save_own
from backend.models.house.raster import Layout, Raster, logits_of
from backend.models.raster import BORDER, Canvas, RasterModel, guided
from backend.protocols import CausalSession, PictureSession, Prompt
from backend.registry import strategies
from backend.run import record
from backend.types import Guarantee, Request, Sampling
from tests.toys_raster import CELLS, CODEC, LAYOUT, PROMPT, paint, painter, painter_net

WARM = Sampling(temperature=1.0)
NAMED = ("autoregressive", "speculative", "jacobi", "lookahead", "spectr", "recursive_branching", "shared_noise")
NAMED = (*NAMED, "prompt_lookup")
OTHERS = tuple(
    s.id for s in strategies().values() if {*s.roles.values()} == {CausalSession} and s.id not in NAMED
)  # every other strategy that needs nothing but causal sessions


def close(a: torch.Tensor | None, b: torch.Tensor | None) -> None:
    """Equal but for rotary angles, which are rounded to float32 in one of the two."""
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def prompt(raw: Any = PROMPT) -> Prompt:
    return CODEC.encode(raw)


def session(model: RasterModel, sampling: Sampling = WARM, meter: Meter | None = None, raw: Any = PROMPT) -> Any:
    return model.open(CausalSession, prompt(raw), sampling, meter or Meter(), room=8)


def asked(raw: Any = PROMPT) -> torch.Tensor:
    return torch.tensor([prompt(raw).extras["conditions"]])


def whole(model: RasterModel, raw: Any, canvas: list[int]) -> torch.Tensor:
    """Laws [L, V] by the forward that is trained, in one go."""
    assert isinstance(model.backbone, Raster)
    net = painter_net().double()
    return logits_of(net, LAYOUT, asked(raw), torch.tensor([canvas]))[0].softmax(-1)


@pytest.fixture(scope="module")
def target() -> RasterModel:
    return painter()


@pytest.fixture(scope="module")
def draft() -> RasterModel:
    return painter("toy/draft", seed=5, like=painter_net(), share=0.9)


@pytest.fixture(scope="module")
def plain(target: RasterModel, draft: RasterModel) -> list[int]:
    """The picture that plain decoding paints at temperature 0."""
    return paint("autoregressive", [target, draft]).written()


# --------------------------------------------------------------------------------------------------------- the layout
def test_every_code_of_every_attribute_has_a_row_of_its_own() -> None:
    seen = [LAYOUT.rows([0] * 13)]
    for i, most in enumerate(LAYOUT.choices):
        seen += [LAYOUT.rows([code if j == i else 0 for j in range(13)]) for code in range(1, most)]
    rows = {row for rows in seen for row in rows}
    places = {row for each in LAYOUT.places() for row in each.tolist()}
    assert rows == set(range(128, 128 + sum(LAYOUT.choices)))
    assert rows | places == set(range(128, 128 + LAYOUT.extra_inputs))
    assert not rows & places
    assert len({tuple(pair) for pair in torch.stack(LAYOUT.places(), 1).tolist()}) == CELLS


def test_opened_leaves_every_attribute_open() -> None:
    opened = LAYOUT.opened()
    assert opened[:128].tolist() == list(range(128))
    rng = np.random.default_rng(0)
    _, rows = draw_many(20, rng)
    for row in rows.tolist():
        assert opened[LAYOUT.rows(row)].tolist() == LAYOUT.rows([0] * 13)


def test_a_model_of_another_grid_is_refused() -> None:
    with pytest.raises(AssertionError, match="another grid"):
        Raster(painter_net(), Layout(128, LAYOUT.choices, (8, 8)))


# --------------------------------------------------------------------------------------------------------- the session
def test_what_is_decoded_is_what_is_trained(target: RasterModel, plain: list[int]) -> None:
    """Row by row, in chains and in trees, over the whole canvas."""
    p_LV = whole(target, PROMPT, plain)
    one = target.open(CausalSession, prompt(), WARM, Meter(), CELLS)
    close(one.score(plain[:40]).p_NV[:40], p_LV[:40])
    one.commit(plain[:200])
    rows = one.score([plain[200], 7, plain[201], 9], [-1, -1, 0, 1]).p_NV
    close(rows[[0, 1, 3]], p_LV[200:203])
    one.commit(plain[200:])
    assert list(one.tokens) == plain


def test_the_place_of_a_pixel_matters(target: RasterModel) -> None:
    """Without place vectors a model with these weights says something else."""
    assert isinstance(target.backbone, Raster)
    bare = Raster(target.backbone.llama, LAYOUT)
    bare._place_TC = torch.zeros_like(bare._place_TC)
    other = RasterModel("toy/bare", bare, CODEC, 0)
    assert not torch.allclose(session(target).score().p_NV, session(other).score().p_NV)


def test_the_canvas_starts_empty_and_the_hidden_rows_are_counted(target: RasterModel) -> None:
    meter = Meter()
    one = session(target, meter=meter)
    assert len(one.tokens) == 0
    one.score([4, 5])
    assert (meter.calls, meter.rows) == (1, 13 + 2)
    one.commit([4, 5, 6])
    one.score()
    assert (meter.calls, meter.rows) == (2, 13 + 3)
    assert list(one.tokens) == [4, 5, 6]
    assert list(one.tokens[-2:]) == [5, 6]
    assert (one.tokens[0], one.tokens[-1], one.tokens[-3]) == (4, 6, 4)
    for outside in (3, -4):
        with pytest.raises(IndexError):
            one.tokens[outside]


def test_an_empty_canvas_shows_its_border() -> None:
    """Strategies that start guessing from the text so far need something; it is no part of the canvas."""
    tokens = [200, 201]
    canvas = Canvas(tokens, 2)
    assert len(canvas) == 0
    assert canvas[-1] == BORDER
    assert list(canvas) == [BORDER]
    assert canvas[-2:] == []
    with pytest.raises(IndexError):
        canvas[0]
    tokens.append(5)
    assert list(canvas) == [5]


def test_conditions_change_the_law_and_are_not_punished_for_repetition(target: RasterModel) -> None:
    first = session(target).score().p_NV
    assert not torch.allclose(first, session(target, raw="dark skin, bald").score().p_NV)
    punished = Sampling(temperature=1.0, repetition_penalty=1.5)
    close(session(target, punished).score().p_NV, first)
    rows = session(target, punished).score([3, 4]).p_NV
    assert not torch.allclose(rows[1:], session(target).score([3, 4]).p_NV[1:])


def painted_again(first_row: int, last_row: int = 16) -> dict[str, Any]:
    """A portrait of which these rows are to be painted again."""
    pixels, _ = draw_many(1, np.random.default_rng(4))
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[first_row:last_row] = 255
    return {"prompt": PROMPT, "image": Image.fromarray(pixels[0]), "mask": mask}


def test_a_given_beginning_is_gone_on_with(target: RasterModel, draft: RasterModel) -> None:
    """Slots are pixels, so the first mark is at the first open one."""
    raw = painted_again(9)
    given = list(prompt(raw).extras["canvas"][: 9 * 16])
    traces = [paint(s, [target, draft], raw, budget=7 * 16) for s in ("autoregressive", "speculative", "lookahead")]
    for trace in traces:
        canvas = trace.replay()
        assert canvas[: 9 * 16] == [-1] * (9 * 16)
        assert canvas == traces[0].replay()
        assert len(canvas) == CELLS
    assert traces[0].steps[0].rows["target"] == 13 + len(given)
    one = target.open(CausalSession, prompt(raw), WARM, Meter(), 1)
    close(one.score().p_NV[0], whole(target, PROMPT, given + [0] * 112)[len(given)])


def test_cells_behind_an_open_one_cannot_be_kept(target: RasterModel) -> None:
    with pytest.raises(UserError, match=r"row 4, column 1, but 160 cells behind it are to be kept; mask everything"):
        session(target, raw=painted_again(3, 6))


def test_a_budget_beyond_the_canvas_is_one_sentence(target: RasterModel) -> None:
    with pytest.raises(UserError, match="112 of the 256 cells are to be painted, but the budget is 256"):
        paint("autoregressive", [target], painted_again(9))
    with pytest.raises(UserError, match="holds 256 in all"):
        paint("autoregressive", [target], budget=257)


# ---------------------------------------------------------------------------------------------------------- strategies
def test_plain_decoding_costs_a_call_a_pixel(target: RasterModel) -> None:
    steps = paint("autoregressive", [target]).steps
    assert [step.calls["target"] for step in steps] == [1] * CELLS
    assert [step.rows["target"] for step in steps] == [13] + [1] * (CELLS - 1)
    assert [step.marks[0].slot for step in steps] == list(range(CELLS))


@pytest.mark.parametrize("strategy", NAMED)
def test_strategies_of_text_paint_what_plain_decoding_paints(
    strategy: str, target: RasterModel, draft: RasterModel, plain: list[int]
) -> None:
    """Unchanged, token for token, over the whole picture; and each but the baseline saves calls."""
    trace = paint(strategy, [target, draft])
    assert strategies()[strategy].promises({}) is Guarantee.LOSSLESS
    assert len(plain) == CELLS
    assert trace.replay() == plain
    assert (trace.summary().num_target_calls < CELLS) == (strategy != "autoregressive")


@pytest.mark.parametrize("strategy", OTHERS)
def test_all_other_causal_strategies_run_too(
    strategy: str, target: RasterModel, draft: RasterModel, plain: list[int]
) -> None:
    trace = paint(strategy, [target, draft], budget=40)
    assert len(trace.replay()) == 40
    if strategies()[strategy].promises({}) is not Guarantee.LOSSY:
        assert trace.replay() == plain[:40]


def test_a_seed_paints_the_same_with_any_draft(target: RasterModel, draft: RasterModel) -> None:
    """Noise belongs to the pixel, so pictures can be compared pixel by pixel."""
    pictures = [
        paint(s, [target, draft], sampling=WARM, budget=64).replay()
        for s in ("autoregressive", "shared_noise", "jacobi", "prompt_lookup")
    ]
    assert pictures.count(pictures[0]) == len(pictures)


# ------------------------------------------------------------------------------------------------------------ guidance
OPEN = "portrait"
PLACES = [3, 90, 17]


def test_guidance_of_one_is_the_model_and_of_zero_is_nothing_asked(target: RasterModel) -> None:
    """Through a tree, a commit of a part of it, and more guesses."""
    assert set(prompt(OPEN).extras["attributes"].row()) == {0}
    for scale, raw in ((1.0, PROMPT), (0.0, OPEN)):
        mixed, alone = session(guided(target, scale)), session(target, raw=raw)
        for one in (mixed, alone):
            one.score([3, 4, 90, 17, 5], [-1, -1, 0, 2, 2])
            one.commit([3, 90])
        ours, theirs = (one.score([17, 6, 2], [-1, 0, -1]) for one in (mixed, alone))
        close(ours.raw_NV, theirs.raw_NV)
        close(ours.p_NV, theirs.p_NV)
        assert list(mixed.tokens) == [3, 90]


@pytest.mark.parametrize("scale", [0.5, 3.0, 7.5])
def test_guided_logits_in_closed_form(target: RasterModel, scale: float) -> None:
    """Both conventions, and filters behind guidance."""
    net, canvas = painter_net().double(), torch.tensor([PLACES + [0] * 253])
    l_c, l_u = (logits_of(net, LAYOUT, asked(raw), canvas)[0, : len(PLACES) + 1] for raw in (PROMPT, OPEN))
    t = scale - 1
    scores = session(guided(target, scale)).score(PLACES)
    close(scores.raw_NV, l_u + scale * (l_c - l_u))
    close(scores.raw_NV, (1 + t) * l_c - t * l_u)
    close(scores.p_NV, (l_u + scale * (l_c - l_u)).softmax(-1))
    cold = session(guided(target, scale), Sampling(temperature=0.5, top_k=4)).score(PLACES).p_NV
    p_NV = ((l_u + scale * (l_c - l_u)) / 0.5).softmax(-1)
    kept_NV = p_NV * (p_NV >= p_NV.topk(4, dim=-1).values[:, -1:])
    close(cold, kept_NV / kept_NV.sum(-1, keepdim=True))


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_guidance_can_grow_from_the_first_cell_to_the_last(target: RasterModel, schedule: Any) -> None:
    """Given 252 cells, a tree of guesses: each row has the scale of the cell that it says, siblings the same."""
    given = [i * 7 % 128 for i in range(252)]
    net, model = painter_net().double(), guided(target, 3.0, schedule)
    one = session(model)
    one.score()
    one.commit(given)
    got = one.score([9, 80, 11, 12], [-1, -1, 0, 2]).raw_NV
    scales = []
    for slot in (252, 253, 253, 254, 255):
        share = slot / 255
        grown = {"constant": 1.0, "linear": share, "cosine": math.sin(math.pi * share / 2) ** 2}[schedule]
        scales.append(1 + 2.0 * grown)
    paths = [[], [9], [80], [9, 11], [9, 11, 12]]
    for row, (path, scale) in enumerate(zip(paths, scales, strict=True)):
        canvas = torch.tensor([[*given, *path, *[0] * (256 - 252 - len(path))]])
        l_c, l_u = (logits_of(net, LAYOUT, asked(raw), canvas)[0, 252 + len(path)] for raw in (PROMPT, OPEN))
        close(got[row], l_u + scale * (l_c - l_u))
    first = session(guided(target, 3.0, schedule)).score().raw_NV
    close(first, session(guided(target, 3.0 if schedule == "constant" else 1.0)).score().raw_NV)
    assert model.id == f"{target.id}@cfg=3-{schedule}"


def test_a_guided_call_is_one_call_of_two_sequences(target: RasterModel) -> None:
    meter, calls = Meter(), []
    model = guided(target, 2.0)
    assert isinstance(model.backbone, Guided)
    inner = model.backbone.backbone.forward_rows
    model.backbone.backbone.forward_rows = lambda *a, **k: calls.append(len(a[0])) or inner(*a, **k)  # type: ignore
    one = session(model, meter=meter)
    one.score([4, 5])
    one.commit([4])
    one.score([6])
    del model.backbone.backbone.forward_rows
    assert calls == [2 * 15, 2]
    assert (meter.calls, meter.rows) == (2, 2 * 16)


def test_strategies_paint_what_plain_guided_decoding_paints(target: RasterModel, draft: RasterModel) -> None:
    """With a guided draft and with one that is not; what is painted is not what the model paints alone."""
    strong, helper = guided(target, 3.0), guided(draft, 2.0)
    cells = 64
    base = paint("autoregressive", [strong], budget=cells)
    assert base.request.models["target"] == "toy/painter@cfg=3"
    assert base.replay() != paint("autoregressive", [target], budget=cells).replay()
    assert [step.rows["target"] for step in base.steps[:3]] == [26, 2, 2]
    for strategy, other in (("speculative", helper), ("recursive_branching", draft), ("lookahead", helper)):
        trace = paint(strategy, [strong, other], budget=cells)
        assert trace.replay() == base.replay()
        assert trace.summary().num_target_calls < cells


def test_bad_guidance_is_one_sentence(target: RasterModel) -> None:
    for scale in (-0.1, 21.0, float("nan")):
        with pytest.raises(UserError, match="Guidance must lie between 0 and 20"):
            guided(target, scale)
    with pytest.raises(UserError, match="guided already; name one scale"):
        guided(guided(target, 2.0), 2.0)


# --------------------------------------------------------------------------------------------------------- the catalog
@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A catalog whose portraits have random weights."""
    (tmp_path / "house").mkdir()
    for i, model_id in enumerate(PORTRAITS):
        save_own(tmp_path / f"{model_id}.safetensors", painter_net(i, num_layers=4))
        (tmp_path / f"{model_id}.json").write_text(json.dumps({"num_params": 5}))
    monkeypatch.setattr(catalog_module, "ASSETS", tmp_path)
    monkeypatch.setattr("backend.entries.ASSETS", tmp_path)
    return Catalog("cpu", "float32")


def test_the_catalog_loads_portraits_twins_and_guided_ones(shelf: Catalog) -> None:
    names = ("", "-draft", "@cfg=3", "@skip", "@exit2@cfg=1.5")
    models = {name: shelf.get(f"house/portraits{name}") for name in names}
    assert len({model.codec.vocabulary for model in models.values()}) == 1
    assert {model.id for model in models.values()} == {f"house/portraits{name}" for name in names}
    assert all(model.speaks == {CausalSession, PictureSession} for model in models.values())
    laws = [session(model).score().p_NV for model in models.values()]  # type: ignore[arg-type]
    assert all(not torch.allclose(laws[0], law) for law in laws[1:])
    entry = next(entry for entry in shelf.entries() if entry.id == "house/portraits")
    assert (entry.modality, entry.protocol, entry.num_params, entry.available) == ("image", "causal", 5, True)


def test_schedules_of_guidance_are_named_with_the_model(shelf: Catalog) -> None:
    model = shelf.get("house/portraits@cfg=3-cosine")
    assert isinstance(model, RasterModel)
    assert isinstance(model.backbone, Guided)
    assert model.id == "house/portraits@cfg=3-cosine"
    assert model.backbone.scale_T is not None
    hidden = model.layout.hidden
    assert model.backbone.scale_T[[hidden - 1, -2, -1]].tolist() == [1.0, 3.0, 3.0]
    assert shelf.default("twin", "house/portraits@cfg=3-cosine") == "house/portraits@skip@cfg=3-cosine"
    for wrong in ("@cfg=3-sine", "@cfg=3-first", "@cfg="):
        with pytest.raises(UserError, match="names no scale of guidance; write, for example, house/portraits@cfg=3"):
            shelf.get(f"house/portraits{wrong}")
    with pytest.raises(UserError, match="house/portraits does not paint maps, so that no first 6 can be guided"):
        shelf.get("house/portraits@cfg=3-linear-first6")


def test_roles_beside_portraits_follow_their_guidance(shelf: Catalog) -> None:
    assert shelf.default("draft", "house/portraits") == "house/portraits-draft"
    assert shelf.default("draft", "house/portraits@cfg=3") == "house/portraits-draft"
    assert shelf.default("twin", "house/portraits@cfg=2.5") == "house/portraits@skip@cfg=2.5"
    with pytest.raises(UserError, match="no judge model for house/portraits"):
        shelf.default("judge", "house/portraits")
    for strategy in ("speculative", "self_speculative"):
        request = Request(strategy, PROMPT, {"target": "house/portraits@cfg=3"}, budget=6)
        assert len(record(request, shelf).written()) == 6


@pytest.mark.parametrize(
    ("model_id", "sentence"),
    [
        ("house/portraits@cfg", "names no scale of guidance; write, for example, house/portraits@cfg=3"),
        ("house/portraits@cfg=-1", "names no scale of guidance"),
        ("house/portraits@cfg=99", "Guidance must lie between 0 and 20"),
        ("house/portraits@cfg=2@cfg=2", "guided already"),
        ("house/portraits@cfg=2@exit1", "cannot run only some of its layers"),
        ("house/portraits@exit9", "has 4 layers and no twin"),
    ],
)
def test_bad_variants_are_one_sentence(shelf: Catalog, model_id: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        shelf.get(model_id)


def test_portraits_that_are_not_here_say_how_to_build_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "ASSETS", tmp_path)
    monkeypatch.setattr("backend.entries.ASSETS", tmp_path)
    catalog = Catalog("cpu", "float32")
    for model_id, which in zip(list(PORTRAITS)[:2], ("target", "draft"), strict=True):
        command = f"python -m backend.train.portraits.raster --model {which}"
        assert builds(model_id) == command
        assert next(e for e in catalog.entries() if e.id == model_id).why == command
        with pytest.raises(UserError, match=f"{model_id} is not in assets/house; build it with: {command}"):
            catalog.get(model_id)


def test_conditions_of_a_prompt_are_the_attributes_it_names() -> None:
    given = prompt("brown skin, smile").extras
    named = {name for name in given["attributes"].__dataclass_fields__ if getattr(given["attributes"], name) != ANY}
    assert named == {"skin", "mouth"}
    assert sum(code > 0 for code in given["conditions"]) == 2
