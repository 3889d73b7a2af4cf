"""Painters of maps: what a row may see, sessions against one full pass, guidance, hand-over, given parts, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend import catalog as catalog_module
from backend import entries as entries_module
from backend.catalog import Catalog
from backend.codecs.pyramid import SIZES, shipped
from backend.codecs.scales import ScaleCodec
from backend.entries import SCALES, builds
from backend.errors import UserError
from backend.meter import Meter
from backend.models.guided import Guidance
from backend.models.house.scales import (
    CHOICES,
    ScaleCache,
    Scales,
    ScalesConfig,
    block_mask,
    logits_of,
    read_scales,
    save_scales,
    turns,
)
from backend.models.scales import ScaleModel, guided
from backend.protocols import FlexibleSession, Prompt, RedrawingSession, ScaleSession
from backend.types import Sampling
from tests.test_pyramid import portraits
from tests.toys_raster import PROMPT
from tests.toys_scales import WARM, paint_maps, scales_model, scales_net

K = len(SIZES)
HIDDEN = len(CHOICES)
CELLS = [height * width for height, width in SIZES]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "markov": {"markov": True},
    "bands": {"kind": "fft"},
    "flex": {"kind": "flat"},
    "adaln": {"kind": "flat", "adaln": True},
}


def canvases(kind: Any = "area", number: int = 2) -> torch.Tensor:
    return torch.from_numpy(shipped(kind).encode(portraits(number)))


def asked(model: ScaleModel, raw: Any = PROMPT) -> torch.Tensor:
    return torch.tensor([model.codec.encode(raw).extras["conditions"]])


def opened(model: ScaleModel, raw: Any = PROMPT, protocol: type = ScaleSession, meter: Meter | None = None) -> Any:
    return model.open(protocol, model.codec.encode(raw), WARM, meter or Meter(), model.context)


def maps_of(model: ScaleModel, canvas_L: torch.Tensor) -> list[list[int]]:
    return [part.tolist() for part in canvas_L.split(CELLS)]


# --------------------------------------------------------------------------------------------------------------- masks
def test_rows_see_attributes_their_own_map_and_coarser_ones() -> None:
    """By hand: two rows of attributes, maps of one and two cells, three rows in the cache."""
    causal = block_mask(2, [1, 2], 0, markov=False).int().tolist()
    assert causal == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    markov = block_mask(2, [1, 2], 0, markov=True).int().tolist()
    assert markov == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 1], [1, 1, 0, 1, 1]]
    later = block_mask(0, [1, 2], 3, markov=False).int().tolist()
    assert later == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_map_changes_what_comes_behind_it_and_nothing_else(options: dict[str, Any]) -> None:
    net = scales_net(**options)
    canvas, conditions = canvases(net.config.kind, 1), torch.zeros(1, HIDDEN, dtype=torch.long)
    plain = logits_of(net, conditions, canvas).split(CELLS, dim=1)
    for at in range(K):
        other = canvas.clone()
        span = slice(net.pyramid.starts[at], net.pyramid.starts[at + 1])
        other[:, span] = (other[:, span] + 31) % 128
        changed = logits_of(net, conditions, other).split(CELLS, dim=1)
        for part, (before, after) in enumerate(zip(plain, changed, strict=True)):
            reached = part > at and not (net.config.markov and net.config.kind == "flat" and part > at + 1)
            assert torch.equal(before, after) != reached, (at, part)


def test_attributes_reach_every_cell_and_cells_each_other() -> None:
    for options in KINDS.values():
        net = scales_net(**options)
        canvas = canvases(net.config.kind, 1)
        conditions = torch.zeros(1, HIDDEN, dtype=torch.long)
        other = conditions.clone()
        other[0, 3] = 2
        plain, changed = (logits_of(net, c, canvas) for c in (conditions, other))
        assert (plain != changed).any(-1).all()


def test_places_are_told_in_pixels_of_the_finished_picture() -> None:
    """The only cell of the first map lies where the middle of the last one is; cells are turned by row and column."""
    fine = turns((16, 16), 16, torch.float64).reshape(16, 16, 8)
    torch.testing.assert_close(turns((1, 1), 16, torch.float64)[0, 0] ** 2, fine[7, 7] * fine[8, 8])
    assert torch.equal(fine[3, :, :4], fine[3, :1, :4].expand(16, 4))
    assert torch.equal(fine[:, 3, 4:], fine[:1, 3, 4:].expand(16, 4))
    torch.testing.assert_close(fine[5, 5] / fine[4, 4], fine[9, 9] / fine[8, 8])


# ------------------------------------------------------------------------------------------------------------ sessions
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_sessions_tell_what_one_pass_over_all_maps_tells(options: dict[str, Any]) -> None:
    model = scales_model(**options)
    canvas = canvases(model.net.config.kind, 1)
    meter = Meter()
    session = opened(model, meter=meter)
    wanted = logits_of(model.net, asked(model), canvas)[0].softmax(-1).split(CELLS)
    for at, tokens in enumerate(maps_of(model, canvas[0])):
        assert session.at == at
        torch.testing.assert_close(session.score(), wanted[at], atol=1e-4, rtol=0)
        assert session.score() is session.score(), "a map is scored by one call"
        session.commit(tokens)
    assert (meter.calls, meter.rows) == (K, HIDDEN * (K if model.net.config.markov else 1) + sum(CELLS))
    assert session.at == K
    np.testing.assert_array_equal(model.net.pyramid.shown(session.total), portraits(1)[0])


def test_a_cache_grows_by_the_rows_that_were_run() -> None:
    net = scales_net()
    maps = net.totals(canvases(number=1), range(K))
    cache, conditions = ScaleCache(), torch.ones(1, HIDDEN, dtype=torch.long)
    whole = net.features(conditions, maps)
    for at in range(K):
        (part,) = net.features(conditions, maps[at : at + 1], cache)
        torch.testing.assert_close(part, whole[at], atol=1e-6, rtol=0)
        assert cache.rows == HIDDEN + sum(CELLS[: at + 1])
        assert cache.held[0][0].shape == (1, 2, cache.rows, 8)


@pytest.mark.parametrize("drawn", [1, 4, 6])
@pytest.mark.parametrize("markov", [False, True])
def test_maps_that_another_model_drew_are_read_in_one_pass(drawn: int, markov: bool) -> None:
    model, canvas = scales_model(markov=markov), canvases(number=1)
    parts = maps_of(model, canvas[0])
    step_by_step, meter = opened(model), Meter()
    late = opened(model, meter=meter)
    for tokens in parts[:drawn]:
        step_by_step.score()
        for session in (step_by_step, late):
            session.commit(tokens)
    torch.testing.assert_close(late.score(), step_by_step.score(), atol=1e-6, rtol=0)
    assert (meter.calls, meter.rows) == (1, HIDDEN + (CELLS[drawn] if markov else sum(CELLS[: drawn + 1])))
    for session in (step_by_step, late):
        session.commit(parts[drawn])
    if drawn + 1 < K:
        torch.testing.assert_close(late.score(), step_by_step.score(), atol=1e-6, rtol=0)


def test_a_refiner_that_is_its_target_paints_what_next_scale_paints() -> None:
    model, twin = scales_model(dtype=torch.float32), scales_model("toy/twin", dtype=torch.float32)
    plain = paint_maps("next_scale", [model])
    for drafts in (0, 3, 6):
        both = paint_maps("collaborative", [model, twin], drafts=drafts)
        assert both.replay() == plain.replay()
        assert [step.calls["refiner"] for step in both.steps] == [0] * drafts + [1] * (K - drafts)


def test_numbers_that_are_none_are_told() -> None:
    model = scales_model()
    model.net.heads[0].weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"toy/scales returned numbers that are no probabilities"):
        opened(model).score()


# ------------------------------------------------------------------------------------------------------------ guidance
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_guidance_grows_from_map_to_map(options: dict[str, Any]) -> None:
    model, scale = scales_model(**options), 3.0
    strong, canvas = guided(model, scale), canvases(model.net.config.kind, 1)
    told, nothing = (
        logits_of(model.net, c, canvas)[0].split(CELLS) for c in (asked(model), torch.zeros_like(asked(model)))
    )
    meter = Meter()
    session = opened(strong, meter=meter)
    for at, tokens in enumerate(maps_of(model, canvas[0])):
        share = 1 + (scale - 1) * at / (K - 1)
        wanted = (nothing[at] + share * (told[at] - nothing[at])).softmax(-1)
        torch.testing.assert_close(session.score(), wanted, atol=1e-5, rtol=0)
        session.commit(tokens)
    hidden = HIDDEN * (K if model.net.config.markov else 1)
    assert (meter.calls, meter.rows) == (K, 2 * (hidden + sum(CELLS)))
    assert strong.id == "toy/scales@cfg=3"
    assert strong.speaks == model.speaks


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_maps_behind_the_guided_ones_are_one_sequence(options: dict[str, Any]) -> None:
    """Guided maps have the law that they have without an end, the others the model's own, at half the rows."""
    model, first = scales_model(**options), 4
    whole, part, plain = guided(model, 3.0, "cosine"), guided(model, 3.0, "cosine", first), model
    canvas, meter = canvases(model.net.config.kind, 1), Meter()
    sessions = [opened(whole), opened(plain), opened(part, meter=meter)]
    for at, tokens in enumerate(maps_of(model, canvas[0])):
        all_over, none, got = (session.score() for session in sessions)
        torch.testing.assert_close(got, all_over if at < first else none, atol=1e-9, rtol=0)
        for session in sessions:
            session.commit(tokens)
    hidden = [HIDDEN * (1 if at == 0 or model.net.config.markov else 0) for at in range(K)]
    rows = [(2 if at < first else 1) * (hidden[at] + CELLS[at]) for at in range(K)]
    assert (meter.calls, meter.rows) == (K, sum(rows))
    assert part.id == "toy/scales@cfg=3-cosine-first4"


def test_a_refiner_behind_the_guided_maps_reads_one_sequence() -> None:
    model, canvas, meter = guided(scales_model(), 3.0, None, 4), canvases(number=1), Meter()
    late, plain = opened(model, meter=meter), opened(scales_model())
    for tokens in maps_of(model, canvas[0])[:5]:
        late.commit(tokens)
        plain.commit(tokens)
    torch.testing.assert_close(late.score(), plain.score(), atol=1e-9, rtol=0)
    assert meter.rows == HIDDEN + sum(CELLS[:6])


def test_no_more_maps_can_be_guided_than_there_are() -> None:
    for first in (0, K + 1):
        with pytest.raises(UserError, match=f"has {K} maps, but the first {first} are to be guided"):
            guided(scales_model(), 3, None, first)


def test_guidance_of_one_is_the_model_itself() -> None:
    canvas, model = canvases(number=1), scales_model()
    plain, same = opened(model), opened(guided(model, 1.0))
    for tokens in maps_of(model, canvas[0])[:3]:
        torch.testing.assert_close(plain.score(), same.score(), atol=1e-9, rtol=0)
        plain.commit(tokens)
        same.commit(tokens)


def test_guidance_is_named_once_and_in_range() -> None:
    with pytest.raises(UserError, match="between 0 and 20"):
        guided(scales_model(), 21)
    with pytest.raises(UserError, match="guided already"):
        guided(guided(scales_model(), 2), 3)


# ------------------------------------------------------------------------------------------------------ a given picture
def painted_again(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    picture = portraits(1)[0]
    return {"prompt": PROMPT, "image": picture, "mask": mask.astype(np.uint8) * 255}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_given_cells_stay_and_the_rest_is_painted(options: dict[str, Any]) -> None:
    model = scales_model(dtype=torch.float32, **options)
    mask = np.zeros((16, 16), dtype=bool)
    mask[9:, 3:12] = True
    trace = paint_maps("next_scale", [model], painted_again(mask))
    pyramid = model.net.pyramid
    shown = pyramid.decode(np.asarray(trace.replay()))
    np.testing.assert_array_equal(shown[~mask], portraits(1)[0][~mask])
    assert (shown[mask] != portraits(1)[0][mask]).any()
    for at, step in enumerate(trace.steps):
        sure = {mark.slot - pyramid.starts[at] for mark in step.marks if mark.p == 1.0}
        kept = pyramid.told(pyramid.colours_VD[np.zeros((16, 16), int)], np.zeros((16, 16, 3), np.float32), at, ~mask)
        assert set(np.flatnonzero(kept >= 0).tolist()) <= sure
        assert at < 4 or len(sure) < len(step.marks)


def test_kept_cells_bring_the_sum_back_to_the_picture() -> None:
    """They get the code that is nearest given what was painted before them."""
    model = scales_model()
    mask = np.zeros((16, 16), dtype=bool)
    mask[:, 8:] = True
    session = opened(model, painted_again(mask))
    session.score()
    session.commit([5])
    p_NV = session.score()
    picture = shipped("area").colours_VD[shipped("area").palette.encode(portraits(1)[0])].reshape(16, 16, 3)
    kept = shipped("area").told(picture, session.total, 1, ~mask)
    assert [int(kept[0]), int(kept[2])] == p_NV.argmax(-1)[[0, 2]].tolist()
    assert p_NV.amax(-1)[[0, 2]].tolist() == [1.0, 1.0]
    assert p_NV.amax(-1)[[1, 3]].max() < 1.0


# ----------------------------------------------------------------------------------------------------- maps left out
def test_maps_can_be_left_out_of_the_flat_kind() -> None:
    model = scales_model(kind="flat")
    assert model.speaks == {ScaleSession, FlexibleSession}
    plan = [2, 5, 6]
    session = opened(model, protocol=FlexibleSession)
    session.plan([SIZES[at] for at in plan])
    canvas = canvases("flat", 1)
    parts = maps_of(model, canvas[0])
    wanted = logits_of(model.net, asked(model), canvas, plan)[0].softmax(-1).split([CELLS[at] for at in plan])
    for at, p_NV in zip(plan, wanted, strict=True):
        torch.testing.assert_close(session.score(), p_NV, atol=1e-6, rtol=0)
        session.commit(parts[at])
    np.testing.assert_array_equal(model.net.pyramid.shown(session.total), portraits(1)[0])


def test_a_map_that_is_not_offered_is_one_sentence() -> None:
    session = opened(scales_model(kind="flat"), protocol=FlexibleSession)
    with pytest.raises(UserError, match=r"toy/scales offers no map of 5x5; pick of 1x1, 2x2"):
        session.plan([(5, 5), (16, 16)])


@pytest.mark.parametrize("scales", [1, 2, 4, 0])
def test_any_number_of_maps_paints_a_picture(scales: int) -> None:
    model = scales_model(kind="flat", dtype=torch.float32)
    trace = paint_maps("flexible_scale", [model], scales=scales)
    assert trace.summary().num_target_calls == (scales or K)
    assert len(model.codec.film(trace.replay())) == (scales or K)
    shown = model.codec.decode(trace.replay())[2::4, 2::4]
    np.testing.assert_array_equal(model.codec.pyramid.palette.encode(shown), trace.replay()[-256:])


# ------------------------------------------------------------------------------------------------------ drawing again
def redrawer(**options: Any) -> ScaleModel:
    return scales_model(kind="flat", markov=True, redraws=1, **options)


def test_only_a_mask_branch_can_draw_again() -> None:
    assert redrawer().speaks == {ScaleSession, RedrawingSession}
    assert scales_model(kind="flat", markov=True).speaks == {ScaleSession}
    assert isinstance(opened(redrawer(), protocol=RedrawingSession), RedrawingSession)
    assert not isinstance(opened(redrawer()), RedrawingSession)
    with pytest.raises(AssertionError, match="one map only"):
        scales_net(redraws=1)


def test_a_redraw_sees_known_tokens_keeps_them_and_leaves_scores_alone() -> None:
    model, canvas = redrawer(), canvases("flat", 1)
    parts, meter = maps_of(model, canvas[0]), Meter()
    session = opened(model, protocol=RedrawingSession, meter=meter)
    plain = opened(model)
    for tokens in parts[:3]:
        session.commit(tokens)
        plain.commit(tokens)
    first = session.score()
    partial = [*parts[3][:4], *[-1] * 12]
    again = session.redraw(partial)
    assert (meter.calls, meter.rows) == (2, 2 * (HIDDEN + 16))
    assert again.argmax(-1)[:4].tolist() == parts[3][:4]
    assert (again[:4].amax(-1) == 1).all()
    torch.testing.assert_close(again.sum(-1), torch.ones(16, dtype=torch.float64))
    other = session.redraw([(parts[3][0] + 9) % 128, *partial[1:]])
    assert (other[4:] != again[4:]).any(-1).all(), "every open cell sees every known one"
    torch.testing.assert_close(session.score(), first)
    torch.testing.assert_close(plain.score(), first)


def test_a_redraw_is_not_guided_and_keeps_what_is_given() -> None:
    mask = np.zeros((16, 16), dtype=bool)
    mask[:, 8:] = True
    model, meter = redrawer(), Meter()
    sessions = [
        m.open(RedrawingSession, m.codec.encode(painted_again(mask)), WARM, meter, 9) for m in (model, guided(model, 3))
    ]
    for session in sessions:
        session.score()
        session.commit([5])
    one, two = (session.redraw([-1] * 4) for session in sessions)
    torch.testing.assert_close(one, two)
    assert (one.amax(-1) == 1).tolist() == [True, False, True, False]


def test_masked_scale_draws_cells_of_a_trained_kind_of_model_again() -> None:
    trace = paint_maps("masked_scale", [redrawer(dtype=torch.float32)], passes=3, keep=0.5)
    assert len(trace.replay()) == sum(CELLS)
    assert trace.summary().num_target_calls == 1 + 3 * (K - 1)


# --------------------------------------------------------------------------------------------------- files, the catalog
def test_files_hold_models_in_bytes_and_refuse_other_codes(tmp_path: Path) -> None:
    net = scales_net(dtype=torch.float32)
    path = tmp_path / "one.safetensors"
    save_scales(path, net)
    read = read_scales(path)
    assert read.config == net.config
    a, b = (logits_of(m, torch.zeros(1, HIDDEN, dtype=torch.long), canvases(number=1)) for m in (net, read))
    assert 0 < float((a - b).abs().max()) < 0.2 * float(a.abs().max())
    with pytest.raises(UserError, match=r"train it with python -m backend\.train\.portraits\.scales"):
        read_scales(tmp_path / "two.safetensors")
    codes = shipped("area").codes_KVD[:-1].copy()
    codes[0] += 0.5
    net.pyramid = type(net.pyramid)("area", codes)
    save_scales(path, net)
    with pytest.raises(UserError, match="trained with other codes"):
        read_scales(path)


def test_the_catalog_knows_the_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog("cpu", "float32")
    assert catalog.default_target(ScaleSession) == "house/portraits-flex"
    assert catalog.default_target(FlexibleSession) == "house/portraits-flex"
    assert catalog.default_target(RedrawingSession) == "house/portraits-redraw"
    assert catalog.default("refiner", "house/portraits-markov") == "house/portraits-scales-small"
    assert catalog.default("refiner", "house/portraits-flex") == "house/portraits-flex-small"
    with pytest.raises(UserError, match="no refiner model for house/portraits-bands"):
        catalog.default("refiner", "house/portraits-bands")
    assert catalog.default("refiner", "house/portraits-scales@cfg=3") == "house/portraits-scales-small@cfg=3"
    with pytest.raises(UserError, match="no draft model for house/portraits-scales"):
        catalog.default("draft", "house/portraits-scales")
    assert builds("house/portraits-redraw") == "python -m backend.train.portraits.scales --model mask"
    for module in (catalog_module, entries_module):
        monkeypatch.setattr(module, "ASSETS", tmp_path)
    (tmp_path / "house").mkdir()
    with pytest.raises(UserError, match=r"There is no portraits-scales\.safetensors"):
        catalog.get("house/portraits-scales")
    save_scales(tmp_path / "house" / "portraits-scales.safetensors", scales_net(dtype=torch.float32))
    model = catalog.get("house/portraits-scales@cfg=2")
    assert isinstance(model, ScaleModel)
    assert (model.guidance, model.context) == (Guidance(2.0, "linear"), 422)
    with pytest.raises(UserError, match="cannot run only some of its layers"):
        catalog.get("house/portraits-scales@skip")


def test_entries_tell_how_a_missing_model_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries_module, "ASSETS", tmp_path)
    found = {entry.id: entry for entry in entries_module.entries()}
    for model_id in SCALES:
        assert found[model_id].modality == "image"
        assert not found[model_id].available
        assert found[model_id].why == builds(model_id)
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "portraits-flex.json").write_text(json.dumps({"num_params": 5}))
    entry = next(e for e in entries_module.entries() if e.id == "house/portraits-flex")
    assert (entry.available, entry.num_params, entry.protocol) == (True, 5, "flexible")


def test_a_prompt_without_a_picture_holds_nothing() -> None:
    model = scales_model()
    bare = model.open(ScaleSession, Prompt((), {"conditions": [0] * HIDDEN}), Sampling(), Meter(), 1)
    assert (bare.score().amax(-1) == 1).all(), "temperature 0"
    assert isinstance(model.net, Scales)
    assert isinstance(model.codec, ScaleCodec)
    assert isinstance(model.net.config, ScalesConfig)
