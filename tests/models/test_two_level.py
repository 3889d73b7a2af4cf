"""The block transformer: nothing leaks from later tokens, and training, trees and both kinds of session agree."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models

from backend.codecs.text import TextCodec
from backend.meter import Meter
from backend.models.causal import CausalModel
from backend.models.house.own import load_own, read_own, save_own
from backend.models.house.two_level import TwoLevel, TwoLevelConfig, TwoLevelDecoder
from backend.protocols import CausalSession, Prompt, TwoLevelSession
from backend.types import Sampling

VOCAB = 31
CONFIG = TwoLevelConfig(VOCAB, dim=24, num_layers=2, num_heads=2, ffn_dim=40, context=64)
WARM = Sampling(temperature=1.0)


@pytest.fixture(scope="module")
def model() -> TwoLevel:
    """Large random weights in float64, so that every input tells."""
    torch.manual_seed(3)
    made = TwoLevel(CONFIG)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return made.double()


@pytest.fixture(scope="module")
def causal(model: TwoLevel) -> CausalModel:
    codec = TextCodec(Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0")))
    return CausalModel("tiny/blocks", model.pack(torch.float64), codec, model.num_params)


def texts(count: int, length: int) -> torch.Tensor:
    return torch.randint(0, VOCAB, (count, length), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("changed", [0, 3, 4, 9, 11, 15])
def test_no_law_sees_its_own_token_or_a_later_one(model: TwoLevel, changed: int) -> None:
    """The off-by-one leak: a context must not hold the block that it is the context of."""
    ids_1T = texts(1, 24)
    other_1T = ids_1T.clone()
    other_1T[0, changed] = (other_1T[0, changed] + 1) % VOCAB
    moved_T = (model(ids_1T) - model(other_1T))[0].abs().amax(dim=-1)
    assert (moved_T[: changed + 1] == 0).all()
    assert (moved_T[changed + 1 :] > 0).all(), "every later law depends on it"


@pytest.mark.parametrize("given", [1, 2, 3, 4, 5, 8, 11])
def test_decoding_is_the_forward_of_training(model: TwoLevel, causal: CausalModel, given: int) -> None:
    """A prompt of any length, then one token a call, by both kinds of session; and all at once."""
    ids_1T = texts(1, 24)
    p_TV = model(ids_1T)[0].softmax(dim=-1)
    ids = ids_1T[0].tolist()
    plain = causal.open(CausalSession, Prompt(tuple(ids[:given])), WARM, Meter(), 24)
    blocks = causal.open(TwoLevelSession, Prompt(tuple(ids[:given])), WARM, Meter(), 24)
    together = plain.score(ids[given:23]).p_NV
    torch.testing.assert_close(together, p_TV[given:], atol=1e-7, rtol=1e-6)
    at = given
    while at < 24:
        places = min(blocks.think(), 24 - at)
        for i in range(places):
            torch.testing.assert_close(blocks.write(ids[at : at + i]).p_NV[0], p_TV[at + i], atol=1e-7, rtol=1e-6)
            torch.testing.assert_close(plain.score().p_NV[0], p_TV[at + i], atol=1e-7, rtol=1e-6)
            plain.commit(ids[at + i : at + i + 1])
        blocks.commit(ids[at : at + places])
        at += places


def test_a_tree_of_guesses_is_its_paths(model: TwoLevel, causal: CausalModel) -> None:
    """Branches that end blocks apart, scored in one call and grown in a second one, then one of them committed."""
    text = texts(1, 6)[0].tolist()
    session = causal.open(CausalSession, Prompt(tuple(text)), WARM, Meter(), 40)
    tree = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    parents = [-1, -1, 0, 0, 1, 2, 2, 5, 4]
    session.score(tree[:6], parents[:6])
    p_NV = session.score(tree, parents).p_NV
    paths: list[list[int]] = [[]]
    for token, parent in zip(tree, parents, strict=True):
        paths.append([*paths[parent + 1], token])
    for path, p_V in zip(paths, p_NV, strict=True):
        torch.testing.assert_close(p_V, law_after(model, [*text, *path]), atol=1e-7, rtol=1e-6)
    session.commit([*paths[8], 11])
    more = session.score([12, 13, 14]).p_NV
    for i, p_V in enumerate(more):
        whole = [*text, *paths[8], 11, *[12, 13, 14][:i]]
        torch.testing.assert_close(p_V, law_after(model, whole), atol=1e-7, rtol=1e-6)


def law_after(model: TwoLevel, text: list[int]) -> torch.Tensor:
    whole = [*text, *[0] * (-len(text) % 4 or 4)]
    return model(torch.tensor([whole]))[0, len(text)].softmax(dim=-1)


def test_calls_rows_and_bytes(causal: CausalModel) -> None:
    """One global call a block and one local call a token; the local model reads its own block only."""
    meter = Meter()
    session = causal.open(TwoLevelSession, Prompt((1, 2, 3, 4, 5, 6)), WARM, meter, 24)
    assert session.think() == 2
    assert session.think() == 2
    assert (meter.calls, meter.rows) == (1, 2)  # the start of the text and one whole block
    row = 2 * 2 * 24 * 8  # keys and values of two layers in float64
    assert session.kv_bytes == 2 * row
    local = meter.part("tokens")
    session.write([])
    assert (local.calls, local.rows) == (1, 4)  # two vectors of the context, two tokens of the prompt
    session.write([7])
    session.write([7])
    assert (local.calls, local.rows) == (2, 5)
    assert session.kv_bytes == (2 + 4 + 5) * row
    session.commit([7, 8])
    assert session.think() == 4
    assert (meter.calls, meter.rows) == (2, 3)


def test_another_guess_in_the_same_block(model: TwoLevel, causal: CausalModel) -> None:
    """The local cache goes back to where the tokens part."""
    session = causal.open(TwoLevelSession, Prompt((1, 2, 3, 4)), WARM, Meter(), 24)
    session.think()
    for block in ([5, 6], [5, 7, 8], [9], [], [5, 6, 1]):
        torch.testing.assert_close(
            session.write(block).p_NV[0], law_after(model, [1, 2, 3, 4, *block]), atol=1e-7, rtol=1e-6
        )


def test_a_text_is_not_written_before_it_is_read(causal: CausalModel) -> None:
    session = causal.open(TwoLevelSession, Prompt((1, 2, 3, 4)), WARM, Meter(), 24)
    with pytest.raises(AssertionError, match="not read yet"):
        session.write([])


def test_files(model: TwoLevel, tmp_path) -> None:
    """Weights come back rounded to float16."""
    save_own(tmp_path / "blocks.safetensors", model)
    back = read_own(tmp_path / "blocks.safetensors")
    ids_1T = texts(1, 8)
    torch.testing.assert_close(back(ids_1T), model(ids_1T).float(), atol=0.05, rtol=0.05)
    packed = load_own(tmp_path / "blocks.safetensors", torch.float32)
    assert isinstance(packed, TwoLevelDecoder)
    assert packed.num_params == model.num_params == sum(p.numel() for p in model.parameters())
