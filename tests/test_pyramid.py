"""Pyramids of portraits: resizing against known answers, bands that sum to the picture, codes, canvases, the codec."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from backend.codecs.atlas import FOLDER, Pixels
from backend.codecs.image import NEUTRAL
from backend.codecs.palette import PaletteTokenizer
from backend.codecs.portraits import draw_many
from backend.codecs.pyramid import (
    SIDE,
    SIZES,
    Pyramid,
    bands,
    coloured,
    enlarging,
    low_pass,
    resized,
    shipped,
    shrinking,
)
from backend.codecs.scales import ScaleCodec
from backend.train.portraits import pyramid as training
from backend.unmasking import spread

KINDS: tuple[Any, ...] = ("area", "fft", "flat")
PALETTE = PaletteTokenizer()


def portraits(number: int = 12, seed: int = 3) -> Pixels:
    """In palette colours, held-out pairs included."""
    pixels, _ = draw_many(number, np.random.default_rng(seed), which="all")
    return PALETTE.decode(PALETTE.encode(pixels))


# ------------------------------------------------------------------------------------------------------------- resizing
@pytest.mark.parametrize("side", [1, 3, 6, 10, 16])
def test_resizing_keeps_what_is_even_and_shrinking_is_a_mean(side: int) -> None:
    assert shrinking(side).sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert enlarging(side).sum(axis=1) == pytest.approx(1, abs=1e-6)
    picture = np.random.default_rng(side).normal(size=(SIDE, SIDE, 3)).astype(np.float32)
    fine = picture.repeat(side, axis=0).repeat(side, axis=1)  # cells of 16 x 16 of its pixels are those of the map
    mean = fine.reshape(side, SIDE, side, SIDE, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resized(picture, shrinking(side)), mean, atol=1e-5)


def test_enlarging_is_cubic_interpolation() -> None:
    """Between the middles of cells it goes through them, and a straight line stays one away from the borders."""
    np.testing.assert_allclose(shrinking(16), np.eye(16), atol=1e-7)
    np.testing.assert_allclose(enlarging(16), np.eye(16), atol=1e-7)
    line = enlarging(8) @ np.arange(8, dtype=np.float32)
    np.testing.assert_allclose(np.diff(line[4:12]), 0.5, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------- bands
def test_bands_sum_to_the_picture_and_hold_what_their_maps_can() -> None:
    picture = coloured(portraits(2))
    parts = bands(picture)
    assert len(parts) == len(SIZES)
    np.testing.assert_allclose(sum(parts), picture, atol=1e-5)
    turns = np.fft.fftfreq(SIDE) * SIDE
    far = np.hypot(turns[:, None], turns[None])
    for part, (height, _) in zip(parts[:-1], SIZES, strict=False):
        power = np.abs(np.fft.fft2(part, axes=(-3, -2))).max(axis=(0, 3))
        assert power[far >= height / 2].max() < 1e-3, "nothing beyond what the map's cells can tell apart"
    np.testing.assert_allclose(
        parts[0], np.broadcast_to(picture.mean(axis=(1, 2), keepdims=True), parts[0].shape), atol=1e-5
    )


def test_a_low_pass_fades_without_an_edge() -> None:
    point = np.zeros((SIDE, SIDE, 3), dtype=np.float32)
    point[0, 0] = 1
    kept = np.fft.fft2(low_pass(point, 6.0), axes=(0, 1)).real[0, :9, 0]
    np.testing.assert_allclose(kept[[0, 1, 2, 3, 6, 7, 8]], [1, 1, 1, 1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(kept[[4, 5]], [0.75, 0.25], atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------- codes
@pytest.mark.parametrize("kind", KINDS)
def test_a_portrait_in_palette_colours_comes_back_whole(kind: Any) -> None:
    pyramid, pixels = shipped(kind), portraits()
    tokens = pyramid.encode(pixels)
    assert tokens.shape == (len(pixels), sum(h * w for h, w in SIZES)) == (len(pixels), pyramid.length)
    assert 0 <= tokens.min() <= tokens.max() < pyramid.vocab_size
    np.testing.assert_array_equal(pyramid.decode(tokens), pixels)
    np.testing.assert_array_equal(tokens[:, pyramid.starts[-2] :], PALETTE.encode(pixels))
    np.testing.assert_array_equal(pyramid.encode(pixels[4]), tokens[4])
    np.testing.assert_array_equal(pyramid.film(tokens)[-1], pixels)


@pytest.mark.parametrize("kind", ["area", "fft"])
def test_sums_are_codes_added_up_and_come_nearer_map_by_map(kind: Any) -> None:
    pyramid, pixels = shipped(kind), portraits(40)
    tokens = pyramid.encode(pixels)
    total, lost = 0.0, []
    for at, (size, after) in enumerate(zip(SIZES, pyramid.sums(tokens), strict=True)):
        code = pyramid.codes_KVD[at][tokens[:, pyramid.starts[at] : pyramid.starts[at + 1]]].reshape(40, *size, 3)
        total = resized(code, enlarging(size[0])) + (0.0 if pyramid.replaces(at) else total)
        np.testing.assert_allclose(after, total, atol=1e-5)
        lost.append(float(((after - coloured(pixels)) ** 2).mean()))
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] < 1e-12


def test_maps_of_the_flat_kind_are_the_picture_at_their_size() -> None:
    pyramid, pixels = shipped("flat"), portraits(3)
    tokens = pyramid.encode(pixels)
    for at, (height, _) in enumerate(SIZES):
        small = resized(coloured(pixels), shrinking(height))
        found = tokens[:, pyramid.starts[at] : pyramid.starts[at + 1]]
        np.testing.assert_array_equal(found, pyramid.nearest(small, at))
    fewer = pyramid.only([(3, 3), (16, 16)])
    np.testing.assert_array_equal(fewer.encode(pixels)[:, :9], tokens[:, pyramid.starts[2] : pyramid.starts[3]])
    assert fewer.fingerprint != pyramid.fingerprint


def test_only_what_is_given_decides_the_cells_that_are_kept() -> None:
    pyramid, (one, other) = shipped("area"), coloured(portraits(2))
    given = np.zeros((SIDE, SIDE), dtype=bool)
    given[:, :11] = True
    mixed = np.where(given[..., None], one, other)
    for at, (height, width) in enumerate(SIZES):
        total = np.zeros_like(one)
        kept = pyramid.told(one, total, at, given)
        np.testing.assert_array_equal(kept, pyramid.told(mixed, total, at, given))
        share = resized(np.repeat(given[..., None], 3, axis=2).astype(np.float32), shrinking(height))[..., 0]
        np.testing.assert_array_equal(kept.reshape(height, width) >= 0, share > 0.5)
        whole = share.reshape(-1) > 1 - 1e-6
        np.testing.assert_array_equal(kept[whole], pyramid.told(one, total, at)[whole])


def test_unknown_cells_leave_the_sum_as_it_is() -> None:
    for kind in KINDS:
        pyramid = shipped(kind)
        tokens = pyramid.encode(portraits(1)[0])
        sums, last = pyramid.sums(tokens), pyramid.starts[-2]
        np.testing.assert_allclose(pyramid.add(sums[-2], np.full(256, -1), len(SIZES) - 1), sums[-2], atol=1e-5)
        half = tokens.copy()
        half[last + 100 :] = -1
        shown = pyramid.decode(half).reshape(-1, 3)
        np.testing.assert_array_equal(shown[:100], pyramid.decode(tokens).reshape(-1, 3)[:100])
        np.testing.assert_array_equal(shown[100:], pyramid.shown(sums[-2]).reshape(-1, 3)[100:])


def test_fingerprints_tell_pyramids_apart() -> None:
    assert len({shipped(kind).fingerprint for kind in KINDS}) == len(KINDS)
    codes = shipped("area").codes_KVD[:-1].copy()
    assert Pyramid("area", codes).fingerprint == shipped("area").fingerprint
    codes[0, 0, 0] += 0.25
    assert Pyramid("area", codes).fingerprint != shipped("area").fingerprint


# ------------------------------------------------------------------------------------------------------------- training
def test_the_card_tells_what_is_measured() -> None:
    card = json.loads((FOLDER / "pyramid.json").read_text())
    for kind in KINDS:
        pyramid = shipped(kind)
        assert card[kind]["fingerprint"] == pyramid.fingerprint
        assert card[kind]["maps"] == training.measured(pyramid, card[kind]["portraits"])["maps"]
        assert card[kind]["maps"][-1]["pixels_exact"] == 1.0
        if kind != "flat":
            lost = [told["psnr_db"] for told in card[kind]["maps"][:-1]]
            assert all(after > before for before, after in pairwise(lost))


def test_k_means_finds_what_there_is() -> None:
    rng = np.random.default_rng(1)
    few = np.asarray([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
    found = training.k_means(few.repeat([50, 3, 1], axis=0), 5, rng)
    assert {tuple(code) for code in found.tolist()} == {tuple(code) for code in few.tolist()}
    far = np.concatenate([centre + rng.normal(size=(200, 3)) * 0.01 for centre in 10 * few]).astype(np.float32)
    found = training.k_means(far, 3, rng)
    np.testing.assert_allclose(sorted(found.round(1).tolist()), sorted((10 * few).tolist()), atol=0.05)


# ---------------------------------------------------------------------------------------------------------------- codec
@pytest.mark.parametrize("kind", KINDS)
def test_canvases_decode_on_the_way(kind: Any) -> None:
    codec, pixels = ScaleCodec(shipped(kind)), portraits(1)[0]
    tokens = codec.pyramid.encode(pixels).tolist()
    assert (codec.decode([]) == NEUTRAL).all()
    assert (codec.decode([-1] * codec.length) == NEUTRAL).all()
    assert codec.decode(tokens).shape == (64, 64, 3)
    np.testing.assert_array_equal(codec.decode(tokens)[2::4, 2::4], pixels)
    film = codec.film(tokens)
    for at, shown in enumerate(codec.pyramid.film(np.asarray(tokens))):
        end = codec.pyramid.starts[at + 1]
        np.testing.assert_array_equal(codec.decode(tokens[:end])[2::4, 2::4], shown)
        np.testing.assert_array_equal(film[at][2::4, 2::4], shown)
    assert len(film) == len(SIZES)
    with pytest.raises(ValueError, match="a canvas holds 422 tokens below 128"):
        codec.decode([128])
    with pytest.raises(ValueError, match="a canvas holds 422 tokens"):
        codec.decode([0] * 423)


@pytest.mark.parametrize("count", range(1, 8))
def test_a_canvas_of_fewer_maps_is_known_by_its_length(count: int) -> None:
    codec = ScaleCodec(shipped("flat"))
    planned = codec.pyramid.only(spread(SIZES, count))
    pixels = portraits(1)[0]
    tokens = planned.encode(pixels)
    np.testing.assert_array_equal(codec.decode(tokens.tolist())[2::4, 2::4], pixels)
    for at, shown in enumerate(planned.film(tokens)):
        np.testing.assert_array_equal(codec.decode(tokens[: planned.starts[at + 1]].tolist())[2::4, 2::4], shown)


def test_prompts_are_those_of_the_image_codec_and_vocabularies_those_of_the_pyramid() -> None:
    codec, other = ScaleCodec(shipped("area")), ScaleCodec(shipped("fft"))
    raw = {"prompt": "blue hair", "image": portraits(1)[0].repeat(4, 0).repeat(4, 1)}
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:32] = 255
    prompt = codec.encode({**raw, "mask": mask})
    assert prompt == codec.image.encode({**raw, "mask": mask})
    assert list(prompt.extras["canvas"][:128]) == [-1] * 128
    assert codec.vocabulary != other.vocabulary
    assert codec.vocabulary == ScaleCodec(shipped("area")).vocabulary
    assert codec.piece(3) == f"code 3, in the last map {PALETTE.piece(3)}"
    assert ScaleCodec(shipped("flat")).piece(3) == PALETTE.piece(3)
