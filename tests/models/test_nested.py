"""The nested draft: every exit is the draft cut there, and what was left out and caught up equals a fresh run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.catalog import ASSETS, LOCAL, SORTED, Catalog
from backend.chance import Ask, Seeded
from backend.errors import UserError
from backend.meter import Meter
from backend.models.causal import SomeLayers
from backend.models.house.draft import read_draft, save_draft
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.house.nested import NestedChain, NestedDraft
from backend.models.session import TrieSession
from backend.protocols import CausalSession, Exit, NestedSession
from backend.registry import find
from backend.types import Sampling

IDS_K = torch.tensor([0, 1, 2, 7, 11, 30, 31, 33])
CONFIG = LlamaConfig(
    vocab_size=8, dim=32, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=48, context=64, extra_inputs=4
)
PROMPT = [7, 39, 2, 11, 30]
NEVER, ALWAYS, MIXED = (1.0, 1.0), (0.0, 0.0), (0.23, 0.26)


def nested(dtype: torch.dtype = torch.float64) -> NestedDraft:
    torch.manual_seed(5)
    model = Llama(CONFIG)
    torch.nn.init.normal_(model.embed.weight, std=0.3)
    return NestedDraft(model.pack(dtype), IDS_K, 40)


def chain(draft: NestedDraft, prompt: Sequence[int] = PROMPT, meter: Meter | None = None) -> NestedChain:
    return NestedChain(draft, "tiny/nested", 40, prompt, Sampling(temperature=1.0), meter or Meter(), room=32)


def cut(draft: NestedDraft, text: Sequence[int], depth: int) -> torch.Tensor:
    """The law after a text that the first `depth` layers give, with a cache of their own."""
    ids_N = torch.tensor(text)
    cache = draft.open_cache(len(text))
    raw_1K, _ = draft.forward_rows(ids_N, torch.arange(len(text)), cache, last=1, layers=range(depth))
    return raw_1K.new_zeros(40).index_copy_(0, IDS_K, raw_1K[0].softmax(0))


def same(answer: Exit, draft: NestedDraft, text: Sequence[int]) -> None:
    law_V = cut(draft, text, answer.depth)
    torch.testing.assert_close(answer.p_V, law_V, atol=1e-9, rtol=0)
    assert answer.sure == pytest.approx(float(law_V.max()), abs=1e-9)


def test_it_is_a_nested_session() -> None:
    session = chain(nested())
    assert isinstance(session, NestedSession)
    assert list(session.exits) == [1, 2, 3]


@pytest.mark.parametrize(("thresholds", "depth"), [(ALWAYS, 1), ((1.0, 0.0), 2), (NEVER, 3)])
def test_fixed_thresholds_are_the_draft_cut_at_that_layer(thresholds: tuple[float, float], depth: int) -> None:
    draft = nested()
    session = chain(draft)
    for step in range(6):
        x = [7, 33, 2][: step % 4]
        answer = session.score(x, thresholds)
        assert answer.depth == depth
        same(answer, draft, [*session.tokens, *x])
        if step % 3 == 2:
            session.commit([*x[:1], 31])


def test_what_is_caught_up_late_equals_a_fresh_run() -> None:
    """Random drafts, rollbacks and commits with mixed thresholds: laws and cache rows are those of the full draft."""
    draft, stream = nested(), random.Random(0)
    session, depths = chain(draft), set()
    while len(session.tokens) < len(PROMPT) + 28:
        x = [stream.randrange(40) for _ in range(stream.randrange(4))]
        for i in range(len(x) + 1):
            asked = stream.choice([MIXED, MIXED, ALWAYS, NEVER, (1.0, 0.0)])
            answer = session.score(x[:i], asked)
            depths.add(answer.depth)
            same(answer, draft, [*session.tokens, *x[:i]])
        session.commit([*x[: stream.randrange(len(x) + 1)], stream.randrange(40)])
    assert depths == {1, 2, 3}
    session.score((), NEVER)
    fresh = chain(draft, session.tokens)
    fresh.score((), NEVER)
    length = len(session.tokens)
    late, whole = (s._cache.kv_LZHSD[:, :, :, :length] for s in (session, fresh))
    torch.testing.assert_close(late, whole, atol=1e-9, rtol=0)


def test_deeper_layers_wait_until_they_are_needed() -> None:
    draft = nested()
    session = chain(draft)
    session.score((), ALWAYS)
    session.score([7, 33], ALWAYS)
    assert session._ran == [7, 0, 0]
    assert not session._cache.kv_LZHSD[1:].any(), "a layer ran that nobody asked for"
    session.score([7, 33, 2], (1.0, 0.0))
    assert session._ran == [8, 8, 0]
    session.score([7], NEVER)
    assert session._ran == [6, 6, 6]


def test_a_question_is_answered_once_and_a_new_text_costs_its_new_rows() -> None:
    meter = Meter()
    session = chain(nested(), meter=meter)
    first = session.score([7], MIXED)
    assert session.score([7], MIXED) is first
    assert (meter.calls, meter.rows) == (1, 6)
    session.score([7, 33], MIXED)
    assert (meter.calls, meter.rows) == (2, 7)
    session.commit([7, 2])  # the guess 33 was wrong
    session.score((), MIXED)
    assert (meter.calls, meter.rows) == (3, 8)


def test_the_wrong_number_of_thresholds_is_one_sentence() -> None:
    with pytest.raises(UserError, match="tiny/nested has 3 exits and takes 2 thresholds, but 1 were given"):
        chain(nested()).score((), [0.5])


def test_filters_and_greedy_rows() -> None:
    draft = nested(torch.float32)
    cold = NestedChain(draft, "tiny/nested", 40, PROMPT, Sampling(temperature=0.0), Meter(), room=8)
    answer = cold.score([7], NEVER)
    assert answer.p_V.max() == 1.0
    assert int(answer.p_V.argmax()) == int(cut(draft, [*PROMPT, 7], 3).argmax())
    assert answer.sure < 1.0, "confidence is read at temperature 1"


@pytest.mark.parametrize("layers", [[0, 1, 2], [0, 2], [0]])
def test_sorted_speculation_writes_what_plain_decoding_writes(layers: list[int]) -> None:
    """One draft beside a target and its twins with fewer layers: real sessions in float64, every way to leave."""
    draft = nested()
    torch.manual_seed(6)
    target = SomeLayers(Llama(replace(CONFIG, vocab_size=40, extra_inputs=0)).pack(torch.float64), layers)

    def text(which: str, **knobs: float) -> list[int]:
        cold = Sampling(temperature=0.0)
        sessions: dict[str, Any] = {"target": TrieSession(target, "tiny/target", 40, PROMPT, cold, Meter(), room=24)}
        if which == "sorted_speculative":
            sessions["nested_draft"] = NestedChain(draft, "tiny/nested", 40, PROMPT, cold, Meter(), room=24)
        for _ in find(which).run(**sessions, ask=Ask(24, Seeded(0)), **knobs):
            pass
        return list(sessions["target"].tokens)

    plain = text("autoregressive")
    for tau_1, tau_2 in ((0.0, 0.0), (0.25, 0.3), (1.0, 1.0)):
        assert text("sorted_speculative", gamma=12, tau_1=tau_1, tau_2=tau_2) == plain


@pytest.mark.skipif(not (ASSETS / f"{SORTED}.safetensors").exists(), reason="the sorted draft is not built")
def test_the_shipped_draft_serves_any_smollm2() -> None:
    catalog = Catalog(device="cpu", dtype="float32")
    model = catalog.get(SORTED)
    assert {CausalSession, NestedSession} <= model.speaks
    for target in (LOCAL, f"{LOCAL}@skip6", "hub/HuggingFaceTB/SmolLM2-360M-Instruct"):
        assert catalog.default("nested_draft", target) == SORTED
    prompt, sampling = model.codec.encode("Name three rivers."), Sampling(temperature=1.0)
    session = model.open(NestedSession, prompt, sampling, Meter(), 8)
    for depth, thresholds in ((1, ALWAYS), (2, (1.0, 0.0)), (3, NEVER)):
        answer = session.score((), thresholds)
        twin = catalog.get(f"{SORTED}@exit{depth}" if depth < 3 else SORTED)
        law_V = twin.open(CausalSession, prompt, sampling, Meter(), 8).score().p_NV[0]
        torch.testing.assert_close(answer.p_V, law_V, atol=1e-4, rtol=0)


def test_files_of_few_bits_a_weight_stay_near(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = Llama(CONFIG)
    files = {bits: tmp_path / f"{bits}.safetensors" for bits in (16, 8, 6)}
    for bits, file in files.items():
        save_draft(file, model, IDS_K, 40, bits=bits)
    whole = read_draft(files[16]).model.state_dict()
    for bits, near, share in ((8, 0.01, 0.7), (6, 0.04, 0.7)):
        small = read_draft(files[bits]).model.state_dict()
        assert whole.keys() == small.keys()
        for name, weight in whole.items():
            assert float((small[name] - weight).norm() / weight.norm()) < near, name
        assert files[bits].stat().st_size < share * files[16].stat().st_size
