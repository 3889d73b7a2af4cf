"""The draft's training: instructions without holes, a loss that is least at the target's own odds, honest measures."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from backend.models.house.llama import Llama, LlamaConfig
from backend.train.smollm2_draft import Batch, Batches, Corpus, Recipe, choose_vocabulary, distil_loss, evaluate, train
from backend.train.smollm2_prompts import KINDS, instruction
from backend.train.smollm2_text import GREEDY, TOP


@pytest.mark.parametrize("kind", KINDS)
def test_instructions_have_no_holes_and_vary(kind: str) -> None:
    rng = Random(0)
    asked = [instruction(rng, kind, ["The passage {stays} as it is."]) for _ in range(200)]
    assert not any("{" in text.replace("{stays}", "") for text in asked)
    assert len(set(asked)) > (20 if kind in ("summarise", "edit") else 150)


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
    return Corpus(ids, roles, top_ids, top_logp, bounds, held=np.arange(talks) % 4 == 0)


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
    assert evaluate(model, batches, held)["agreement_at_any_position"] < 0.5
    recipe = Recipe(tokens=0, writers=1, batch=1, trainers=1, steps=50, batch_tokens=128, rate=5e-2)
    train(recipe, model, batches, tmp_path / "checkpoint.pt", rank=0)
    measured = evaluate(model, batches, held)
    assert measured["alpha"] > 0.9
    assert len(measured["alpha_per_depth"]) == 6
    assert measured["mean_acceptance_length_gamma6"] > 4

    again = Llama(sizes)  # resumes behind the last step: the finished weights come back untouched
    train(recipe, again, batches, tmp_path / "checkpoint.pt", rank=0)
    torch.testing.assert_close(again.embed.weight, model.embed.weight)
