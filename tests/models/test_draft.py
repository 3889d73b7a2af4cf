"""The draft's trimmed vocabulary: its logits land on the target's ids, its inputs on its own or shared rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.draft import Draft, input_rows, load_draft, save_draft
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.session import TrieSession
from backend.sampling import distribution
from backend.types import Sampling

IDS_K = torch.tensor([0, 1, 2, 7, 11, 30])
CONFIG = LlamaConfig(
    vocab_size=6, dim=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=48, context=64, extra_inputs=4
)


def test_inputs_take_their_own_row_or_a_shared_one() -> None:
    rows_V = input_rows(IDS_K, 40, 4)
    assert rows_V[IDS_K].tolist() == list(range(6))
    others = [token for token in range(40) if token not in IDS_K]
    assert {int(rows_V[token]) for token in others} == {6, 7, 8, 9}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_land_on_the_targets_ids(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Llama(CONFIG)
    save_draft(tmp_path / "draft.safetensors", model, IDS_K, 40)
    draft = load_draft(tmp_path / "draft.safetensors", dtype)
    ids_N, positions_N = torch.tensor([7, 39, 2]), torch.arange(3)
    logits, hidden = draft.forward_rows(ids_N, positions_N, draft.open_cache(8), last=2)
    rows_N = input_rows(IDS_K, 40, 4)[ids_N]
    expected, _ = model.forward_rows(rows_N, positions_N, model.open_cache(8), last=2)
    logits = draft.spread(logits)
    assert logits.shape == (2, 40)
    assert hidden.shape == (3, 32)
    torch.testing.assert_close(logits[:, IDS_K], expected, atol=0.05 if dtype == torch.bfloat16 else 5e-3, rtol=0)
    others = [token for token in range(40) if token not in IDS_K]
    assert torch.isneginf(logits[:, others]).all()
    assert (draft.vocab_size, draft.context, draft.num_params) == (40, 64, model.num_params)


def test_weights_of_one_byte_stay_near(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_draft(tmp_path / "draft.safetensors", Llama(CONFIG), IDS_K, 40)
    whole, small = (load_draft(tmp_path / "draft.safetensors", torch.float32, in_bytes=x) for x in (False, True))
    ids_N, positions_N = torch.tensor([7, 39, 2, 11]), torch.arange(4)
    expected, _ = whole.forward_rows(ids_N, positions_N, whole.open_cache(8))
    logits, _ = small.forward_rows(ids_N, positions_N, small.open_cache(8))
    assert float((logits - expected).norm() / expected.norm()) < 0.03
    cache = small.open_cache(8)  # one row at a time
    for row_V, token, position in zip(logits, ids_N, positions_N, strict=True):
        alone, _ = small.forward_rows(token[None], position[None], cache)
        assert float((alone[0] - row_V).norm() / row_V.norm()) < 0.03


def test_single_rows_are_the_rows_of_a_chain(tmp_path: Path) -> None:
    """numpy's path for one row against torch's for several, on the same packed weights, with the cache shared."""
    torch.manual_seed(0)
    save_draft(tmp_path / "draft.safetensors", Llama(CONFIG), IDS_K, 40)
    draft = load_draft(tmp_path / "draft.safetensors", torch.float32, in_bytes=True)
    ids_N, positions_N = torch.tensor([7, 39, 2, 11, 30, 1]), torch.arange(6)
    chain_NK, hidden_NC = draft.forward_rows(ids_N, positions_N, draft.open_cache(8))
    cache = draft.open_cache(8)
    draft.forward_rows(ids_N[:3], positions_N[:3], cache)
    for i in range(3, 6):
        logits_1K, hidden_1C = draft.forward_rows(ids_N[i : i + 1], positions_N[i : i + 1], cache)
        torch.testing.assert_close(logits_1K[0], chain_NK[i], atol=0.02, rtol=0.01)
        torch.testing.assert_close(hidden_1C[0], hidden_NC[i], atol=0.02, rtol=0.01)
    cache.truncate(4)
    again_1K, _ = draft.forward_rows(ids_N[4:5], positions_N[4:5], cache)
    torch.testing.assert_close(again_1K[0], chain_NK[4], atol=0.02, rtol=0.01)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.8, top_k=3, top_p=0.9),
        Sampling(temperature=1.0, repetition_penalty=1.7),
    ],
)
def test_a_session_spreads_the_laws(sampling: Sampling) -> None:
    """Over all tokens, 0 where the draft has none; chains and trees, before and after a commit."""
    torch.manual_seed(0)
    draft = Draft(Llama(CONFIG).pack(torch.float64), IDS_K, 40)
    session = TrieSession(draft, "house/draft", 40, [7, 39, 2], sampling, Meter(), 8)
    for text, guesses, parents in (([7, 39, 2], [0, 1, 3], [-1, 0, -1]), ([7, 39, 2, 0, 5], [11, 11], None)):
        session.commit(text[len(session.tokens) :])
        scores = session.score(guesses, parents)
        paths = [text]
        for i, guess in enumerate(guesses):
            paths.append([*paths[i if parents is None else parents[i] + 1], guess])
        for row, path in enumerate(paths):
            slots_N = torch.arange(len(path))
            small, _ = draft.forward_rows(torch.tensor(path), slots_N, draft.open_cache(9), last=1)
            torch.testing.assert_close(scores.p_NV[row], distribution(draft.spread(small), sampling, [path])[0])
            best = scores.options(row, 2)
            assert [token for token, _ in best] == draft.spread(small)[0].topk(2).indices.tolist()
            assert [p for _, p in best] == pytest.approx(small.softmax(1)[0].topk(2).values.tolist(), abs=1e-6)


def test_a_missing_file_says_how_to_train_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="smollm2_draft"):
        load_draft(tmp_path / "nothing.safetensors", torch.float32)
