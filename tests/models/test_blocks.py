"""The block draft: blocks in decoding equal blocks in training, only text stays in the cache, one call a block."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from backend.catalog import ASSETS, BLOCKS, LOCAL, Catalog
from backend.chance import Ask, Seeded
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.blocks import BlockChain, BlockDraft
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.session import TrieSession
from backend.protocols import BlockSession, CausalSession
from backend.registry import find
from backend.train.smollm2_blocks import PLACES, block_features
from backend.types import Sampling

IDS_K = torch.tensor([0, 1, 2, 7, 11, 30, 31, 33])
MASKS = PLACES - 1
CONFIG = LlamaConfig(
    vocab_size=8, dim=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=48, context=64,
    extra_inputs=4 + MASKS,
)  # fmt: skip
PROMPT = [7, 39, 2, 11, 30]


def block_draft() -> BlockDraft:
    torch.manual_seed(3)
    model = Llama(CONFIG)
    torch.nn.init.normal_(model.embed.weight, std=0.3)
    return BlockDraft(model, IDS_K, 40, MASKS)


def chain(draft: BlockDraft, meter: Meter | None = None, temperature: float = 1.0) -> BlockChain:
    sampling = Sampling(temperature=temperature)
    return BlockChain(draft, "tiny/blocks", 40, PROMPT, sampling, meter or Meter(), room=32)


def test_tokens_never_take_a_masks_row() -> None:
    draft = block_draft()
    assert int(draft.rows_V.max()) == 8 + 4 - 1
    assert draft.reach == PLACES


def test_decoding_reads_what_training_wrote() -> None:
    """Blocks anywhere in two texts, judged together in training, one by one in decoding."""
    draft = block_draft()
    ids_BT = torch.randint(40, (2, 12))
    start_BS = torch.tensor([[3, 11, 0], [5, 5, 10]])
    features = block_features(draft.model, draft.rows_V[ids_BT], start_BS)
    raw_BSGK = F.linear(features, draft.model.head_weight())
    for b, starts in enumerate(start_BS.tolist()):
        for s, start in enumerate(starts):
            cache = draft.open_cache(32)
            raw_GK = draft.forward_block(ids_BT[b, : start + 1], cache, PLACES)
            torch.testing.assert_close(raw_GK, raw_BSGK[b, s], atol=1e-4, rtol=0)
            assert cache.length == start + 1


def test_the_first_place_is_the_plain_drafts_law() -> None:
    draft = block_draft()
    session = chain(draft)
    ids_N = torch.tensor(PROMPT)
    raw_1K, _ = draft.forward_rows(ids_N, torch.arange(5), draft.open_cache(8), last=1)
    p_V = session.guess(4).p_NV[0]
    torch.testing.assert_close(p_V[IDS_K], raw_1K[0].softmax(0))
    assert float(p_V.sum()) == pytest.approx(1.0, abs=1e-5)


def test_a_place_does_not_depend_on_the_length_of_the_block() -> None:
    draft = block_draft()
    long, short = chain(draft).guess(8).p_NV, chain(draft).guess(3).p_NV
    torch.testing.assert_close(long[:3], short, atol=1e-5, rtol=0)


def test_a_session_led_through_commits_says_what_a_fresh_one_says() -> None:
    draft, meter = block_draft(), Meter()
    session = chain(draft, meter)
    assert isinstance(session, BlockSession)
    session.guess(5)
    assert (meter.calls, meter.rows) == (1, 5 + 4)
    session.guess(5)
    assert meter.calls == 1, "asked twice"
    session.commit([33, 2])
    after = session.guess(5).p_NV
    assert (meter.calls, meter.rows) == (2, 9 + 2 + 4)
    fresh = BlockChain(draft, "tiny/blocks", 40, [*PROMPT, 33, 2], Sampling(temperature=1.0), Meter(), room=32)
    torch.testing.assert_close(after, fresh.guess(5).p_NV, atol=1e-5, rtol=0)
    torch.testing.assert_close(session.guess(2).p_NV, fresh.guess(2).p_NV, atol=1e-5, rtol=0)


def test_blocks_beyond_its_reach_are_one_sentence() -> None:
    with pytest.raises(UserError, match="tiny/blocks guesses blocks of 1 to 8 tokens, but 9 were asked for"):
        chain(block_draft()).guess(9)


def test_temperature_0_names_the_likeliest_tokens() -> None:
    draft = block_draft()
    cold, warm = chain(draft, temperature=0.0).guess(6).p_NV, chain(draft).guess(6).p_NV
    assert torch.equal(cold.argmax(1), warm.argmax(1))
    assert torch.equal(cold.amax(1), torch.ones(6))


def test_aggressive_blocks_write_what_plain_decoding_writes() -> None:
    """Real sessions for both roles, in float64, with the longest blocks."""
    torch.manual_seed(6)
    target = Llama(replace(CONFIG, vocab_size=40, extra_inputs=0)).pack(torch.float64)

    def text(which: str, **knobs: int) -> list[int]:
        cold = Sampling(temperature=0.0)
        sessions: dict[str, Any] = {"target": TrieSession(target, "tiny/target", 40, PROMPT, cold, Meter(), room=24)}
        if which == "aggressive_blocks":
            sessions["block_draft"] = chain(block_draft(), temperature=0.0)
        for _ in find(which).run(**sessions, ask=Ask(24, Seeded(0)), **knobs):
            pass
        return list(sessions["target"].tokens)

    assert text("aggressive_blocks", block=8) == text("autoregressive")


@pytest.mark.skipif(not (ASSETS / f"{BLOCKS}.safetensors").exists(), reason="the block draft is not built")
def test_the_shipped_draft_guesses_eight_places() -> None:
    catalog = Catalog(device="cpu", dtype="float32")
    model = catalog.get(BLOCKS)
    assert catalog.default("block_draft", LOCAL) == BLOCKS
    prompt = model.codec.encode("Name three rivers.")
    session = model.open(BlockSession, prompt, Sampling(temperature=0.0), Meter(), 8)
    assert session.reach == 8
    first = session.guess(8)
    assert first.p_NV.shape == (8, 49152)
    law_V = model.open(CausalSession, prompt, Sampling(temperature=0.0), Meter(), 8).score().p_NV[0]
    assert int(first.p_NV[0].argmax()) == int(law_V.argmax()), "the first place is what it says as a plain draft"
