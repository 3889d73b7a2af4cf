"""Train draft heads on SmolLM2's hidden states: `python -m backend.train.smollm2_heads --kind medusa|hydra|eagle`.

They learn SmolLM2's own odds on text that it wrote, over the tokens of `house/smollm2-draft` and through SmolLM2's own
frozen head. Hidden states come from `smollm2_features`. Medusa's and Hydra's heads see the true text up to their place;
EAGLE's layer is trained on its own predictions, three places in a row (the training-time test of EAGLE-3), with a
small loss on the predicted states too. `--device cpu` made the weights that ship, as their cards state.

The card holds what the file's own weights do on conversations whose user's turn was not trained on, and on the bench's
prompts.

Letters: P slots of the training text, V tokens of SmolLM2, K of the trimmed vocabulary, C features, I in, O out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from backend.models.house.draft import read_draft
from backend.models.house.heads import (
    KINDS,
    EagleLayer,
    Heads,
    HeadsConfig,
    HydraHeads,
    MedusaHeads,
    Words,
    read_heads,
    save_heads,
)
from backend.models.local import load_smollm2
from backend.train.smollm2_corpus import ROOT, read_corpus
from backend.train.smollm2_draft import Job, Recipe, in_processes, join_trainers, train
from backend.train.smollm2_features import read_features
from backend.train.smollm2_heads_measure import NODES, acceptance, odds_of, on_bench_prompts, on_held_out
from backend.train.smollm2_heads_states import FeatureBatches, loss_of
from backend.train.smollm2_measure import moved_by_rounding
from backend.train.smollm2_text import GREEDY, SAMPLED

FITTED = 40_000  # slots of the training text that the first linear guess is fitted to


def recipe(steps: int, batch_tokens: int, rate: float, trainers: int = 2) -> Recipe:
    """What `train` needs to know; nothing is written here."""
    return Recipe(tokens=0, writers=0, batch=0, trainers=trainers, steps=steps, batch_tokens=batch_tokens, rate=rate)


RECIPES = {
    "cpu": {
        "eagle": recipe(620, 2048, 2e-3),
        "hydra": recipe(200, 2048, 2e-3),
        "medusa": recipe(500, 2048, 2e-3),
    },
    "cuda": {kind: recipe(6000, 16_384, 1.5e-3, trainers=1) for kind in KINDS},
}
BITS = {"eagle": 6, "hydra": 4.5, "medusa": 8}  # of a weight: the held-out loss moves by less than 0.5 %
CONFIGS: dict[str, dict[str, Any]] = {
    "eagle": {"reach": 7, "ffn_dim": 1536},
    "hydra": {"reach": 4, "ffn_dim": 576, "small": 256},
    "medusa": {"reach": 4},
}


@dataclass(frozen=True)
class HeadsJob(Job):
    """What every process of a run needs to know. kind: of the heads; features: where they are."""

    kind: str
    features: Path

    @property
    def checkpoint(self) -> Path:
        """Where training is saved."""
        return self.features / f"{self.kind}.pt"


def new_heads(kind: str, batches: FeatureBatches, embed_VC: Tensor, seed: int) -> Heads:
    """Heads that know how large features usually are. They begin as the best linear guess of the next hidden
    states (Medusa's: to first order), found by least squares on a part of the training text."""
    torch.manual_seed(seed)
    ids_K, corpus = torch.from_numpy(batches.ids_K), batches.corpus
    first = int(corpus.bounds[max(np.flatnonzero(corpus.held), default=-1) + 1])
    part = slice(max(first, len(corpus.ids) - FITTED), len(corpus.ids))
    feature_PC = torch.from_numpy(batches.features.features_PC[part]).float()
    embed_PC = embed_VC[torch.from_numpy(corpus.ids[part].astype(np.int64))].float()
    talk_P = torch.from_numpy(np.searchsorted(corpus.bounds, np.arange(part.start, part.stop), side="right"))
    config = HeadsConfig(
        kind=kind, vocab_size=len(ids_K), target_vocab=len(embed_VC), dim=embed_VC.shape[1], **CONFIGS[kind]
    )
    heads = KINDS[kind](config, *(x.square().mean(0).sqrt() for x in (feature_PC, embed_VC[ids_K].float())))
    with torch.no_grad():
        if isinstance(heads, EagleLayer):
            for linear in (heads.layer.out, heads.layer.down):
                linear.weight.zero_()
            x_PI = torch.cat((embed_PC[1:] / heads.embed_C, feature_PC[:-1] / heads.feature_C), dim=1)
            whole_P = talk_P[1:] == talk_P[:-1]
            heads.fuse.weight.copy_(least_squares(x_PI[whole_P], feature_PC[1:][whole_P] / heads.feature_C))
        if isinstance(heads, MedusaHeads):
            for k, block in enumerate(cast(Sequence[torch.nn.Linear], heads.blocks)):
                rows = len(feature_PC) - k - 1
                whole_P = talk_P[:rows] == talk_P[k + 1 :]
                change_PC = (feature_PC[k + 1 :] - feature_PC[:rows])[whole_P] / heads.feature_C
                linear_CC = least_squares((feature_PC[:rows] / heads.feature_C)[whole_P], change_PC)
                block.weight.copy_(2 * linear_CC)  # the slope of SiLU at zero is a half
        if isinstance(heads, HydraHeads):
            common = torch.linalg.svd(embed_VC[ids_K].float() / heads.embed_C, full_matrices=False).Vh
            heads.shrink.weight.copy_(common[: config.small])
            small_PE = heads.shrunk(embed_PC)
            for k, straight in enumerate(cast(Sequence[torch.nn.Linear], heads.straight)):
                rows = len(small_PE) - k - 1  # row p: hidden state p, tokens p + 1 .. p + k + 1, hidden state p + k + 1
                way = [small_PE[1 + i : 1 + i + rows] for i in range(k + 1)]
                x_PI = torch.cat((feature_PC[:rows] / heads.feature_C, *way), dim=1)
                whole_P = talk_P[:rows] == talk_P[k + 1 :]
                change_PC = (feature_PC[k + 1 :] - feature_PC[:rows]) / heads.feature_C
                straight.weight.copy_(least_squares(x_PI[whole_P], change_PC[whole_P]))
    return heads


def least_squares(x_PI: Tensor, y_PO: Tensor, ridge: float = 0.01) -> Tensor:
    """The weight [O, I] of the linear map from x to y with the least squared error; ridge: in mean squares of x."""
    gram_II = x_PI.T @ x_PI / len(x_PI)
    gram_II.diagonal().add_(ridge)
    weight_OI: Tensor = torch.linalg.solve(gram_II, x_PI.T @ y_PO / len(x_PI)).T
    return weight_OI


def prepare(job: HeadsJob) -> tuple[FeatureBatches, Heads, Words]:
    """Conversations with hidden states as batches, untrained heads, and SmolLM2's words."""
    source = load_smollm2()
    corpus = read_corpus(job.data, Tokenizer.from_file(str(source / "tokenizer.json")))
    features = read_features(job.features, corpus)
    ids_K = read_draft(ROOT / "assets" / "house" / "smollm2-draft.safetensors").ids_K
    embed_VC = load_file(source / "model.safetensors")["model.embed_tokens.weight"].to(job.device, torch.bfloat16)
    device = torch.device(job.device)
    batches = FeatureBatches(corpus, features, ids_K, len(embed_VC), job.recipe.batch_tokens, device)
    heads = new_heads(job.kind, batches, embed_VC.cpu(), job.recipe.seed).to(device)
    return batches, heads, Words.of(embed_VC, embed_VC, ids_K)


def _train(rank: int, job: Job) -> None:
    """One training process."""
    assert isinstance(job, HeadsJob)
    join_trainers(rank, job)
    batches, heads, words = prepare(job)
    judge = cast(Any, lambda heads, batch: loss_of(heads, words, batch))
    train(job.recipe, cast(Any, heads), batches, job.checkpoint, rank, judge)


def save(out: Path, batches: FeatureBatches, heads: Heads, words: Words, job: HeadsJob) -> None:
    """Write the heads and their card, with everything measured on the weights in the file."""
    trained_loss, rows = on_held_out(heads, words, batches)
    save_heads(out, heads, words.ids_K, odds_of(rows), BITS[job.kind])
    kept, _, odds = read_heads(out, job.device)
    loss, rows = on_held_out(kept, words, batches)
    corpus = batches.corpus
    judged = int(np.isin(corpus.roles[np.repeat(corpus.held, np.diff(corpus.bounds))], (GREEDY, SAMPLED)).sum())
    card = {
        "id": f"house/smollm2-{job.kind}",
        "what": f"Draft heads ({job.kind}) on the hidden states of SmolLM2-135M-Instruct: they guess its next tokens "
        "over a trimmed vocabulary, through its own embedding and head, which are not in the file.",
        "license": "Apache-2.0",
        "num_params": kept.num_params,
        "config": asdict(kept.config),
        "data": "Conversations written by SmolLM2-135M-Instruct itself (Apache-2.0), as for house/smollm2-draft, with "
        "its hidden states. No other text.",
        "data_positions": len(corpus.ids),
        "conversations": int((~corpus.held).sum()),
        "recipe": {"device": job.device, **asdict(job.recipe)},
        "held_out": {
            "conversations": int(corpus.held.sum()),
            "loss": round(loss, 4),
            **acceptance(rows, odds),
        },
        "loss_moved_by_rounding": moved_by_rounding(trained_loss, loss, judged, BITS[job.kind]),
        "odds": odds,
        "about_held_out": "Other user's turns than in training, but of the same grammar and writer, so flattering; the "
        "bench's prompts were written apart and never trained on. All with the true text in front of each guess; a "
        f"tree has {NODES} nodes, the same at every step.",
        "bench_prompts": on_bench_prompts(kept, words, batches, odds, job.device),
        "torch": str(torch.__version__),
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps({name: card[name] for name in ("held_out", "bench_prompts")}, indent=2))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: train what is missing, measure, and save the heads with their card."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.smollm2_heads", description=__doc__)
    parser.add_argument("--kind", choices=sorted(KINDS), required=True)
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--steps", type=int, help="of the optimiser; default: the recipe's. More than before: goes on")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "smollm2-text")
    parser.add_argument("--features", type=Path, default=ROOT / "train-data" / "features")
    parser.add_argument("--out", type=Path, help="default: assets/house/smollm2-<kind>.safetensors")
    args = parser.parse_args(argv)
    out = args.out or ROOT / "assets" / "house" / f"smollm2-{args.kind}.safetensors"
    usual = RECIPES[args.device][args.kind]
    chosen = replace(usual, steps=args.steps or usual.steps)
    job = HeadsJob(chosen, args.device, args.data, args.kind, args.features)
    in_processes(_train, job.recipe.trainers, job)
    batches, heads, words = prepare(job)
    heads.load_state_dict(torch.load(job.checkpoint, weights_only=True, map_location=args.device)["model"])
    save(out, batches, heads, words, job)


if __name__ == "__main__":
    main()
