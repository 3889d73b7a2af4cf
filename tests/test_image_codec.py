"""The image codec and the palette tokenizer: prompts to conditions, pictures to tokens and back, bad input refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.codecs import portraits
from backend.codecs.captions import EXAMPLE, parse
from backend.codecs.image import LARGEST, NEUTRAL, ImageCodec
from backend.codecs.palette import PaletteTokenizer
from backend.codecs.portraits import NAMES, Attributes, draw, draw_many, enlarge
from backend.errors import UserError
from backend.protocols import Codec

TOKENIZER = PaletteTokenizer()
CODEC = ImageCodec(TOKENIZER)
HELD: Codec = CODEC  # the type checker's proof that it is one


@pytest.fixture(scope="module")
def pixels() -> Any:
    return draw_many(1000, np.random.default_rng(11), which="all")[0]


# ------------------------------------------------------------------------------------------------------------ palette
def test_the_palette_keeps_portraits_nearly_as_they_are(pixels: Any) -> None:
    back = TOKENIZER.decode(TOKENIZER.encode(pixels))
    wrong = np.abs(back.astype(int) - pixels)
    assert TOKENIZER.vocab_size == 128
    assert wrong.max() <= 12
    assert (wrong > 0).any(axis=-1).mean() < 0.08
    assert 10 * np.log10(255**2 / (wrong**2).mean()) > 44


def test_tokens_survive_a_round_trip_and_colours_are_all_different(pixels: Any) -> None:
    tokens = TOKENIZER.encode(pixels[:50])
    assert tokens.shape == (50, 256)
    assert np.array_equal(TOKENIZER.encode(TOKENIZER.decode(tokens)), tokens)
    assert np.array_equal(TOKENIZER.encode(pixels[0]), tokens[0])
    assert len(np.unique(TOKENIZER.colours_VC, axis=0)) == TOKENIZER.vocab_size
    assert np.array_equal(
        TOKENIZER.encode(TOKENIZER.colours_VC[:, None, None].repeat(16, 1).repeat(16, 2))[:, 0], np.arange(128)
    )


@pytest.mark.parametrize("name", ["SKINS", "HAIR_COLOURS", "CLOTHES_COLOURS", "EYE_COLOURS", "BACKGROUNDS"])
def test_colours_with_names_have_codes_of_their_own(name: str) -> None:
    colours = [portraits.rgb(colour) for colour in getattr(portraits, name).values()]
    tokens = TOKENIZER.encode(np.asarray(colours, np.uint8)[:, None, None].repeat(16, 1).repeat(16, 2))[:, 0]
    assert len(set(tokens.tolist())) == len(colours)


def test_another_palette_is_another_vocabulary() -> None:
    small = PaletteTokenizer(np.asarray([[0, 0, 0], [255, 255, 255]], np.uint8))
    assert small.encode(np.full((16, 16, 3), 200, np.uint8)).tolist() == [1] * 256
    assert small.piece(1) == "#ffffff"
    assert small.fingerprint != TOKENIZER.fingerprint
    assert ImageCodec(small).vocabulary != CODEC.vocabulary
    assert ImageCodec(PaletteTokenizer()).vocabulary == CODEC.vocabulary


# ------------------------------------------------------------------------------------------------------------ prompts
@pytest.mark.parametrize("raw", [EXAMPLE, {"prompt": EXAMPLE}, {"prompt": EXAMPLE, "image": None, "size": 64}])
def test_a_prompt_becomes_conditions_and_an_open_canvas(raw: Any) -> None:
    prompt = CODEC.encode(raw)
    assert prompt.tokens == ()
    assert prompt.extras["attributes"] == parse(EXAMPLE)
    assert Attributes.of(prompt.extras["conditions"]) == parse(EXAMPLE)
    assert prompt.extras["conditions"][NAMES.index("beard")] == 0
    assert prompt.extras["canvas"] == (-1,) * 256
    assert prompt.extras["size"] == 64


def test_what_was_left_out_of_a_prompt_is_handed_on() -> None:
    assert CODEC.encode("a smiling man").extras["ignored"] == ("man",)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (None, "must be a string, or a mapping"),
        ({"text": "smile"}, "must be a string, or a mapping"),
        ({"prompt": "smile", "style": "oil"}, "no field 'style'; it has prompt, image, mask, size"),
        ("", "The prompt is empty"),
        ("purple elephant", "cannot be told with 'elephant'"),
        ({"prompt": "smile", "size": 512}, "size 512 are not offered by this model; it paints 64x64"),
        ({"prompt": "smile", "size": "big"}, "size 'big' are not offered"),
        ({"prompt": "smile", "size": True}, "size True are not offered"),
        ({"prompt": "smile", "size": 64.0}, "size 64.0 are not offered"),
    ],
)
def test_bad_prompts_are_refused_in_a_sentence(raw: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        CODEC.encode(raw)
    assert words in str(caught.value)
    assert str(caught.value).endswith(".")


# --------------------------------------------------------------------------------------------------------- inpainting
def painted(kind: str, side: int = 64) -> Any:
    """A mask of the lower half, in the forms that a brush may give it."""
    half = np.zeros((side, side), dtype=bool)
    half[side // 2 :] = True
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[..., 3] = half * 255  # a black brush on nothing
    made = {
        "bool": half,
        "grey": half * np.uint8(255),
        "rgb": (half * np.uint8(255))[..., None].repeat(3, 2),
        "rgba": rgba,
    }
    return Image.fromarray(made["grey"]) if kind == "pil" else made[kind]


@pytest.mark.parametrize("kind", ["bool", "grey", "rgb", "rgba", "pil"])
@pytest.mark.parametrize("side", [16, 64, 160])
def test_a_mask_opens_the_cells_below_it(kind: str, side: int) -> None:
    picture = enlarge(draw(Attributes(), np.random.default_rng(0))[::4, ::4], side)
    prompt = CODEC.encode({"prompt": "red shirt", "image": picture, "mask": painted(kind, side)})
    canvas = prompt.extras["canvas"]
    step = side // 16
    assert canvas[:128] == tuple(TOKENIZER.encode(picture[::step, ::step])[:128].tolist())
    assert set(canvas[128:]) == {-1}


def test_one_painted_pixel_opens_its_whole_cell_only() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[9, 14] = True
    picture = Image.fromarray(draw(Attributes(), np.random.default_rng(1)))
    canvas = CODEC.encode({"prompt": "smile", "image": picture, "mask": mask}).extras["canvas"]
    assert [slot for slot, token in enumerate(canvas) if token < 0] == [2 * 16 + 3]


PICTURE = np.zeros((64, 64, 3), np.uint8)
MASK = np.ones((64, 64), dtype=bool)
HUGE = np.zeros((LARGEST + 16, LARGEST + 16), np.uint8)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image": PICTURE}, "comes with an image but no mask"),
        ({"mask": MASK}, "comes with a mask but no image"),
        ({"image": PICTURE, "mask": MASK[:32]}, "The mask is 64x32 pixels but the image is 64x64"),
        (
            {"image": PICTURE, "mask": "a mask"},
            "The mask must be a picture, with 8 bits a channel, but a str was given",
        ),
        ({"image": PICTURE, "mask": MASK.astype(float)}, "but an array of float64 (64, 64) was given"),
        ({"image": PICTURE, "mask": MASK[0]}, "but an array of bool (64,) was given"),
        ({"image": PICTURE, "mask": MASK[..., None].repeat(2, 2)}, "but an array of bool (64, 64, 2) was given"),
        ({"image": PICTURE, "mask": np.zeros((0, 64), np.uint8)}, "but an array of uint8 (0, 64) was given"),
        ({"image": PICTURE, "mask": HUGE}, f"The mask is {LARGEST + 16}x{LARGEST + 16} pixels; the largest"),
        ({"image": HUGE, "mask": MASK}, f"The image is {LARGEST + 16}x{LARGEST + 16} pixels; the largest"),
        ({"image": Image.fromarray(HUGE), "mask": MASK}, "The image is"),
        ({"image": PICTURE, "mask": Image.fromarray(HUGE)}, "The mask is"),
        ({"image": PICTURE[:60, :60], "mask": MASK[:60, :60]}, "The image is 60x60 pixels; it must be square"),
        ({"image": PICTURE[:32], "mask": MASK[:32]}, "The image is 64x32 pixels; it must be square"),
        ({"image": PICTURE, "mask": ~MASK}, "The mask marks nothing"),
    ],
)
def test_pictures_that_do_not_fit_are_refused_in_a_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        CODEC.encode({"prompt": "smile", **fields})
    assert words in str(caught.value)
    assert str(caught.value).endswith(".")


# ----------------------------------------------------------------------------------------------------------- decoding
def test_a_whole_canvas_is_the_picture_of_its_tokens(pixels: Any) -> None:
    tokens = TOKENIZER.encode(pixels[0])
    assert np.array_equal(CODEC.decode(tokens.tolist()), enlarge(TOKENIZER.decode(tokens)))
    assert CODEC.piece(int(tokens[0])) == f"#{bytes(TOKENIZER.decode(tokens)[0, 0].tolist()).hex()}"


def test_unknown_cells_are_grey_whether_open_or_missing(pixels: Any) -> None:
    tokens = TOKENIZER.encode(pixels[1]).tolist()
    whole, short = CODEC.decode(tokens), CODEC.decode(tokens[:40])
    holed = CODEC.decode([*tokens[:40], *[-1] * 216])
    assert np.array_equal(short, holed)
    assert np.array_equal(short[:8], whole[:8])
    assert (short[12:] == NEUTRAL).all()
    assert np.array_equal(short[8:12, :32], whole[8:12, :32])
    assert (short[8:12, 32:] == NEUTRAL).all()
    assert (CODEC.decode([]) == NEUTRAL).all()
    assert CODEC.decode([]).shape == (64, 64, 3)


@pytest.mark.parametrize("canvas", [[0] * 257, [128], [-2]])
def test_a_canvas_that_is_none_is_our_own_mistake(canvas: list[int]) -> None:
    with pytest.raises(ValueError, match="a canvas holds 256 tokens below 128"):
        CODEC.decode(canvas)
