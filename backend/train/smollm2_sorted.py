"""Train `house/smollm2-sorted`, SmolLM2's draft that may stop at any layer: `python -m backend.train.smollm2_sorted`.

It starts from `house/smollm2-draft`, whose norm and head read the last layer only, and learns to be read behind every
layer (sorted fine-tuning): the loss is the mean of the draft's loss at all exits, each judged at a random half of the
positions. Data, loss and optimisers are those of `smollm2_draft`, which is run first where its text is missing.
`--device cpu` made the weights that ship: 12 minutes of training on two cores, 30 while others used them too.
`--device cuda` is for one GPU.

The card holds, for every exit and for the plain draft cut at the same layer, what was measured on conversations whose
user's turn was not trained on, and on the bench's prompts.

Letters: B conversations, T slots, C features, M judged positions, K tokens of the draft's vocabulary.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from backend.models.house.draft import Draft, read_draft, save_draft
from backend.models.house.layers import rotary_turns, wide
from backend.models.house.llama import Llama
from backend.models.local import load_llama, load_smollm2
from backend.train.smollm2_corpus import ROOT, Batch, Batches, read_corpus
from backend.train.smollm2_draft import (
    BITS,
    COMPARED,
    Job,
    distil_loss,
    in_processes,
    join_trainers,
    train,
    write_text,
)
from backend.train.smollm2_draft import RECIPES as WRITING
from backend.train.smollm2_measure import (
    Answer,
    bench_answers,
    held_out_loss,
    moved_by_rounding,
    on_bench_prompts,
    on_held_out,
)

RECIPES = {
    "cpu": replace(WRITING["cpu"], steps=700, rate=2e-3),
    "cuda": replace(WRITING["cuda"], steps=6000, rate=2e-3),
}


@dataclass(frozen=True)
class SortedJob(Job):
    """What every process of a run needs to know. start: the draft whose weights it begins with."""

    start: Path

    @property
    def checkpoint(self) -> Path:
        """Where training is saved."""
        return self.data / "sorted.pt"


def exit_features(model: Llama, rows_BT: Tensor) -> list[Tensor]:
    """Normed features [B, T, C] behind every layer, differentiable: what the head reads at each exit."""
    h_BTC: Tensor = model.embed(rows_BT)
    slots_T = torch.arange(rows_BT.shape[1], device=rows_BT.device)
    turn_T1P = rotary_turns(slots_T, model.speed_P, wide(h_BTC.dtype))
    features = []
    for block in model.blocks:
        h_BTC = block(h_BTC, turn_T1P)
        features.append(model.norm(h_BTC))
    return features


def sorted_loss(model: Llama, batch: Batch, share: float = 0.5) -> Tensor:
    """Mean over the exits of `distil_loss`, each exit judged at a random `share` of the positions."""
    losses = []
    with torch.autocast(batch.rows_BT.device.type, torch.bfloat16):
        features = exit_features(model, batch.rows_BT)
    count = max(1, int(len(batch.at_M) * share))
    for features_BTC in features:
        some_M = torch.randperm(len(batch.at_M), device=batch.at_M.device)[:count]
        part = replace(
            batch,
            at_M=batch.at_M[some_M],
            target_MJ=batch.target_MJ[some_M],
            p_MJ=batch.p_MJ[some_M],
            weight_M=batch.weight_M[some_M],
        )
        with torch.autocast(batch.rows_BT.device.type, torch.bfloat16):
            logits_MK = F.linear(features_BTC.flatten(0, 1)[part.at_M], model.head_weight()).float()
        losses.append(distil_loss(logits_MK, part))
    return torch.stack(losses).mean()


def first_layers(model: Llama, count: int) -> Llama:
    """A copy of an unpacked model without the layers behind the first `count`."""
    cut = Llama(replace(model.config, num_layers=count)).to(model.device)
    cut.load_state_dict({name: model.state_dict()[name] for name in cut.state_dict()})
    return cut


def _train(rank: int, job: Job) -> None:
    """One training process."""
    assert isinstance(job, SortedJob)
    join_trainers(rank, job)
    batches, draft = prepare(job)
    torch.manual_seed(1000 * job.recipe.seed + rank)
    train(job.recipe, draft.model, batches, job.checkpoint, rank, sorted_loss)


def prepare(job: SortedJob) -> tuple[Batches, Draft]:
    """The written corpus as batches, and the draft to start from."""
    corpus = read_corpus(job.data, Tokenizer.from_file(str(load_smollm2() / "tokenizer.json")))
    draft = read_draft(job.start, job.device)
    device = torch.device(job.device)
    return Batches(corpus, draft.ids_K.cpu(), draft.vocab_size, job.recipe.batch_tokens, device), draft


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: write and train what is missing, measure, and save the draft with its card."""
    house = ROOT / "assets" / "house"
    parser = argparse.ArgumentParser(prog="python -m backend.train.smollm2_sorted", description=__doc__)
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "smollm2-text")
    parser.add_argument("--start", type=Path, default=house / "smollm2-draft.safetensors")
    parser.add_argument("--out", type=Path, default=house / "smollm2-sorted.safetensors")
    args = parser.parse_args(argv)
    job = SortedJob(RECIPES[args.device], args.device, args.data, args.start)
    in_processes(write_text, job.recipe.writers, job)
    in_processes(_train, job.recipe.trainers, job)
    batches, plain = prepare(job)
    nested = read_draft(job.start, job.device)
    nested.model.load_state_dict(torch.load(job.checkpoint, weights_only=True, map_location=args.device)["model"])
    save(args.out, batches, nested, plain, job)


def measure(draft: Draft, batches: Batches, answers: Sequence[Answer]) -> dict[str, Any]:
    """What each exit of an unpacked draft is worth: "exit1", "exit2", ... -> measures."""
    held = np.flatnonzero(batches.corpus.held)
    out = {}
    for count in range(1, draft.model.config.num_layers + 1):
        cut = first_layers(draft.model, count)
        packed = Draft(cut.pack(torch.float32), draft.ids_K, draft.vocab_size)
        out[f"exit{count}"] = {
            "held_out": on_held_out(cut, batches, held),
            "bench_prompts": on_bench_prompts(packed, answers),
        }
    return out


def save(out: Path, batches: Batches, nested: Draft, plain: Draft, job: SortedJob) -> None:
    """Write the nested draft and its card, with everything measured."""
    source = load_smollm2()
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    answers = bench_answers(load_llama(source, torch.float32, job.device), tokenizer)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_draft(out, nested.model, nested.ids_K, nested.vocab_size, 0, BITS["layers"], BITS["embedding"])
    shipped = read_draft(out, job.device)
    before, positions = held_out_loss(nested.model, batches, sorted_loss, COMPARED)
    after, _ = held_out_loss(shipped.model, batches, sorted_loss, COMPARED)
    card: dict[str, Any] = {
        "id": "house/smollm2-sorted",
        "what": "Nested draft model for SmolLM2-135M-Instruct: its first one, two or three layers are each a language "
        "model over a trimmed vocabulary.",
        "license": "Apache-2.0",
        "num_params": nested.num_params,
        "config": asdict(nested.model.config),
        "data": "The text of house/smollm2-draft: conversations written by SmolLM2-135M-Instruct itself (Apache-2.0).",
        "data_positions": len(batches.corpus.ids),
        "conversations": int((~batches.corpus.held).sum()),
        "start": "house/smollm2-draft",
        "recipe": {"device": job.device, **asdict(job.recipe)},
        "exits": measure(shipped, batches, answers),
        "loss_moved_by_rounding": moved_by_rounding(before, after, positions, BITS),
        "plain_draft_cut": measure(plain, batches, answers),
        "about_held_out": "Other user's turns than in training, but of the same grammar and writer, so flattering; the "
        "bench's prompts were written apart and never trained on.",
        "torch": str(torch.__version__),
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps({name: agreements(card[name]) for name in ("exits", "plain_draft_cut")}, indent=2))


def agreements(exits: Mapping[str, Any]) -> dict[str, Any]:
    """The agreement at each exit, held out and on the bench's prompts."""
    return {
        name: [found[where]["agreement"] for where in ("held_out", "bench_prompts")] for name, found in exits.items()
    }


if __name__ == "__main__":
    main()
