"""The draft's training: instructions without holes, a loss that is least at the target's own odds, honest measures."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from backend.models.house.llama import Llama, LlamaConfig
from backend.train.smollm2_corpus import ROOT, Batch, Batches, Corpus, choose_vocabulary
from backend.train.smollm2_draft import Recipe, distil_loss, train
from backend.train.smollm2_measure import acceptance, on_held_out
from backend.train.smollm2_prompts import KINDS, instruction, is_held_out, more_prompts
from backend.train.smollm2_text import GREEDY, SAMPLED, TOP


@pytest.mark.parametrize("kind", KINDS)
def test_instructions_have_no_holes_and_vary(kind: str) -> None:
    rng = Random(0)
    asked = [instruction(rng, kind, ["The passage {stays} as it is."]) for _ in range(200)]
    assert not any("{" in text.replace("{stays}", "") for text in asked)
    assert len(set(asked)) > (20 if kind in ("summarise", "edit") else 150)


def test_the_held_out_prompts_are_those_that_no_training_uses() -> None:
    """The shipped file is what the script writes, and a conversation that asks one of them is held out."""
    lines = (ROOT / "assets" / "prompts-held-out.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert found == more_prompts(12, seed=24, kinds=["chat"], held_out=True)
    assert all(is_held_out(line["prompt"]) for line in found)
    free = more_prompts(480, seed=1)
    assert 8 <= sum(is_held_out(line["prompt"]) for line in free) <= 40  # one in 24 would be 20


def test_loss_is_least_at_the_targets_odds() -> None:
    """Two tokens compared, the third outside the draft's vocabulary: with the rest's share right, no slope is left."""
    p_MJ = torch.tensor([[0.5, 0.3, 0.1]])
    batch = Batch(torch.zeros(1, 1), torch.zeros(1), torch.tensor([[0, 2, -1]]), p_MJ, torch.ones(1))
    logits_MK = torch.tensor([[0.5, 0.15, 0.3, 0.05]]).log().requires_grad_()
    loss = distil_loss(logits_MK, batch)
    loss.backward()
    entropy = -sum(x * np.log(x) for x in (0.5, 0.3, 0.2))
    assert loss.item() == pytest.approx(entropy, abs=1e-5)
    assert logits_MK.grad is not None
    assert float(logits_MK.grad.abs().max()) < 1e-6


def cycling_corpus(talks: int, length: int) -> Corpus:
    """Conversations that count 20, 21, ..., 29, 20, ... and a target that is sure of it."""
    ids = np.concatenate([20 + (np.arange(length) + start) % 10 for start in range(talks)]).astype(np.uint16)
    top_ids = np.zeros((len(ids), TOP), np.uint16)
    top_ids[:, 0] = 20 + (ids - 19) % 10
    top_logp = np.full((len(ids), TOP), -20.0, np.float16)
    top_logp[:, 0] = 0.0
    bounds = np.arange(talks + 1) * length
    top_logp[bounds[1:] - 1] = -np.inf  # nothing is known behind the last token
    roles = np.full(len(ids), GREEDY, np.uint8)
    roles[-2 * length :] = SAMPLED
    return Corpus(
        ids,
        roles,
        top_ids,
        top_logp,
        bounds,
        np.arange(talks) % 3 == 0,
        before=(1, 2),
        between=(2, 1),
    )


def test_acceptance_counts_what_speculative_decoding_would() -> None:
    """Calls keep 2 and fix 1, keep 0 and fix 1, keep 6 and add 1, keep the last 1."""
    measured = acceptance([np.array([1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], bool)])
    assert measured["alpha"] == pytest.approx(9 / 11, abs=1e-4)
    assert measured["alpha_per_depth"] == [0.75, 1.0, 0.5, 1.0, 1.0, 1.0]
    assert measured["mean_acceptance_length_gamma6"] == 3.0


def test_copying_judges_only_what_a_copy_decides() -> None:
    corpus, ids_K = cycling_corpus(8, 60), torch.arange(64)
    batches = Batches(corpus, ids_K, 64, batch_tokens=448, device=torch.device("cpu"))
    batch = batches.copying(np.arange(8), np.random.default_rng(0))
    rows_N, width = batch.rows_BT.flatten(), batch.rows_BT.shape[1]
    assert (rows_N[batch.at_M + 1] == batch.target_MJ[:, 0]).all()
    for at, target in zip(batch.at_M.tolist(), batch.target_MJ[:, 0].tolist(), strict=True):
        seen = rows_N[at - at % width : at + 1].tolist()
        assert [*seen[-2:], target] in [seen[i : i + 3] for i in range(len(seen) - 3)]


def test_vocabulary_holds_control_tokens_and_what_was_written() -> None:
    ids_K = choose_vocabulary(cycling_corpus(4, 30))
    assert ids_K[:30].tolist() == list(range(30))
    assert len(set(ids_K.tolist())) == len(ids_K) == 8192


def test_training_learns_and_the_measures_say_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    corpus = cycling_corpus(8, 30)
    ids_K = torch.arange(40)
    batches = Batches(corpus, ids_K, 64, batch_tokens=128, device=torch.device("cpu"))
    sizes = LlamaConfig(
        vocab_size=40, dim=32, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=16, ffn_dim=32, context=64,
        extra_inputs=256,
    )  # fmt: skip
    model, held = Llama(sizes), np.flatnonzero(corpus.held)
    torch.nn.init.normal_(model.embed.weight, std=0.1)
    assert on_held_out(model, batches, held)["agreement"] < 0.5
    recipe = Recipe(tokens=0, writers=1, batch=1, trainers=1, steps=50, batch_tokens=128, rate=5e-2, copying=0.1)
    train(recipe, model, batches, tmp_path / "checkpoint.pt")
    assert on_held_out(model, batches, held)["alpha"] > 0.9

    again = Llama(sizes)  # resumes behind the last step: the finished weights come back untouched
    train(recipe, again, batches, tmp_path / "checkpoint.pt")
    torch.testing.assert_close(again.embed.weight, model.embed.weight)
