"""Training of the sorted and the block draft: losses look where they should, and both learn a cycle by heart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.models.house.blocks import BlockDraft
from backend.models.house.draft import Draft, load_draft, save_draft
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.house.nested import NestedDraft
from backend.train.smollm2_blocks import (
    PLACES,
    block_loss,
    choose_blocks,
    measure,
    through_blocks,
    visible_rows,
    with_masks,
)
from backend.train.smollm2_corpus import Batches
from backend.train.smollm2_draft import Recipe, train
from backend.train.smollm2_measure import on_held_out
from backend.train.smollm2_sorted import exit_features, first_layers, sorted_loss
from tests.models.test_draft_training import cycling_corpus

SIZES = LlamaConfig(
    vocab_size=40, dim=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16, ffn_dim=32, context=64,
    extra_inputs=256,
)  # fmt: skip
RECIPE = Recipe(tokens=0, writers=1, batch=1, trainers=1, steps=60, batch_tokens=128, rate=5e-2)


def corpus_of_cycles() -> tuple[Batches, np.ndarray]:
    corpus = cycling_corpus(8, 30)
    batches = Batches(corpus, torch.arange(40), 64, batch_tokens=128, device=torch.device("cpu"))
    return batches, np.flatnonzero(corpus.held)


def small_model() -> Llama:
    torch.manual_seed(0)
    model = Llama(SIZES)
    torch.nn.init.normal_(model.embed.weight, std=0.1)
    return model


def test_exits_read_the_layers_in_front_of_them() -> None:
    model, rows_BT = small_model(), torch.randint(40, (2, 9))
    shallow, deep = exit_features(model, rows_BT)
    torch.testing.assert_close(deep, model.features(rows_BT))
    torch.testing.assert_close(shallow, first_layers(model, 1).features(rows_BT))


def test_sorted_training_teaches_every_exit(tmp_path: Path) -> None:
    batches, held = corpus_of_cycles()
    model = small_model()
    train(RECIPE, model, batches, tmp_path / "sorted.pt", judge=sorted_loss)
    for count in (1, 2):
        assert on_held_out(first_layers(model, count), batches, held)["alpha"] > 0.9
    save_draft(tmp_path / "sorted.safetensors", model, torch.arange(40), 64)
    draft = load_draft(tmp_path / "sorted.safetensors", torch.float32, kind=NestedDraft)
    assert isinstance(draft, NestedDraft)
    assert draft.num_layers == 2


def test_masks_get_rows_of_their_own_behind_all_others() -> None:
    plain = Draft(small_model(), torch.arange(40), 64)
    masked = with_masks(plain)
    assert masked.masks == PLACES - 1
    assert torch.equal(masked.rows_V, plain.rows_V)
    assert masked.model.embed.weight.shape == (40 + 256 + PLACES - 1, 32)
    assert torch.equal(masked.model.embed.weight[: 40 + 256], plain.model.embed.weight)


def test_blocks_stand_in_the_assistants_answers() -> None:
    """Users' words get no block; the row of place j is judged by what follows place j."""
    batches, _ = corpus_of_cycles()
    batch = batches.collate([0, 1, 2])
    answered = replace(batch, weight_M=torch.where(batch.at_M % 30 >= 20, 1.0, 0.3))
    blocks = choose_blocks(answered)
    assert int(blocks.start_BS.min()) >= 20
    width = batch.rows_BT.shape[1]
    for b, starts in enumerate(blocks.start_BS.tolist()):
        for s, start in enumerate(starts):
            for place, judged in enumerate(blocks.judged_BSG[b, s].tolist()):
                inside = start + place < width - 1  # nothing is known behind the last token
                assert judged == (batch.at_M.tolist().index(b * width + start + place) if inside else -1)


def test_masks_see_the_text_before_them_and_their_own_block() -> None:
    visible_LL = visible_rows(torch.tensor([[2, 0]]), 4)[0, 0]
    masks = PLACES - 1
    assert visible_LL.shape == (4 + 2 * masks,) * 2
    assert not visible_LL[:4, 4:].any(), "text sees no masks"
    assert visible_LL[:4, :4].equal(torch.ones(4, 4).tril().bool())
    for start, first in ((2, 4), (0, 4 + masks)):
        for j in range(masks):
            seen = [*range(start + 1), *range(first, first + j + 1)]
            assert visible_LL[first + j].nonzero().flatten().tolist() == seen


def test_block_training_learns_all_places(tmp_path: Path) -> None:
    batches, _ = corpus_of_cycles()
    draft = with_masks(Draft(small_model(), torch.arange(40), 64))
    train(replace(RECIPE, steps=120), draft.model, batches, tmp_path / "blocks.pt", judge=block_loss)
    save_draft(tmp_path / "blocks.safetensors", draft.model, draft.ids_K, 64, draft.masks)
    ready = load_draft(tmp_path / "blocks.safetensors", torch.float32, kind=BlockDraft)
    assert isinstance(ready, BlockDraft)
    cycle = [20 + i % 10 for i in range(30)]
    measured = measure(ready, [(cycle[:6], cycle[6:])], PLACES)
    assert measured["mean_acceptance_length"] > 6
    assert min(measured["right_per_place"]) > 0.9


def test_block_decoding_of_a_given_answer_counts_calls() -> None:
    """A drafter that is never right costs a call a token; calls and places add up."""
    model = with_masks(Draft(small_model(), torch.arange(40), 64)).model
    draft = BlockDraft(model.pack(torch.float32), torch.arange(40), 64, PLACES - 1)
    calls = through_blocks(draft, [20, 21], [50] * 5, 3)  # 50 is outside its vocabulary
    assert [call.tolist() for call in calls] == [[False] * min(3, left) for left in (5, 4, 3, 2, 1)]
    assert measure(draft, [([20, 21], [50] * 5)], 3)["mean_acceptance_length"] == pytest.approx(1.0)
