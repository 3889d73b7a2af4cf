"""Train `house/smollm2-blocks`, which guesses eight tokens in one call: `python -m backend.train.smollm2_blocks`.

It starts from `house/smollm2-draft` and gets seven masks, rows of the embedding that stand for text not written yet.
Behind a conversation come blocks of these masks; a block belongs to a random place of the assistant's answers, sees the
text up to there and the masks before its own, and learns SmolLM2's odds of the places ahead. Near places count more:
what stands behind a wrong guess is thrown away. Data, loss and optimisers are those of `smollm2_draft`, which is run
first where its text is missing. `--device cpu` made the weights that ship: 8 minutes on two busy cores.

The card holds how often the guess for each place was right, call by call as block decoding goes through the text, on
conversations whose user's turn was not trained on and on the bench's prompts.

Letters: B conversations, T slots, S blocks of a conversation, G places of a block, L = T + S (G - 1) rows of a
conversation, C features, P rotary pairs, M judged rows, K tokens of the draft's vocabulary.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from backend.models.house.blocks import BlockDraft
from backend.models.house.draft import Draft, load_draft, read_draft, save_draft
from backend.models.house.layers import rotary_turns, rotate, wide
from backend.models.house.llama import Block, Llama
from backend.models.local import load_llama, load_smollm2
from backend.train.smollm2_corpus import ROOT, WEIGHTS, Batch, Batches, read_corpus
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
from backend.train.smollm2_measure import bench_answers, held_out_loss, moved_by_rounding
from backend.train.smollm2_text import ASKED, GREEDY

PLACES = 8  # G, tokens of a block
NEARER = 0.85  # what a place counts against the one before it
MEASURED = (3, 5, 8)  # lengths of block that the card compares

RECIPES = {
    "cpu": replace(WRITING["cpu"], steps=240, batch_tokens=1024, rate=2e-3),
    "cuda": replace(WRITING["cuda"], steps=8000, batch_tokens=8192, rate=2e-3, copying=0.0),
}


@dataclass(frozen=True)
class BlockJob(Job):
    """What every process of a run needs to know. start: the draft whose weights it begins with."""

    start: Path

    @property
    def checkpoint(self) -> Path:
        """Where training is saved."""
        return self.data / "blocks.pt"


def with_masks(draft: Draft) -> Draft:
    """The draft with the rows of PLACES - 1 masks behind its embedding, not trained yet."""
    masks = PLACES - 1
    old = draft.model
    model = Llama(replace(old.config, extra_inputs=old.config.extra_inputs + masks)).to(old.device)
    state = old.state_dict()
    new_MC = 0.02 * torch.randn(masks, old.config.dim, device=old.device)
    model.load_state_dict({**state, "embed.weight": torch.cat((state["embed.weight"], new_MC))})
    return Draft(model, draft.ids_K, draft.vocab_size, masks)


@dataclass(frozen=True)
class Blocks:
    """Where the blocks of a batch stand.

    Args:
        start_BS: slot of the last token that a block sees. judged_BSG: place of each row in the batch's labels, -1
        where it has none; column 0 is the row of the last token, column j that of mask j.
    """

    start_BS: Tensor
    judged_BSG: Tensor


def choose_blocks(batch: Batch) -> Blocks:
    """Random places of the assistant's answers, one for about every seven slots; conversations without one get none."""
    width, device = batch.rows_BT.shape[1], batch.rows_BT.device
    label_N = torch.full((batch.rows_BT.numel(),), -1, device=device)
    label_N[batch.at_M] = torch.arange(len(batch.at_M), device=device)
    answers_N = torch.zeros(len(label_N), device=device)
    answers_N[batch.at_M] = (batch.weight_M > WEIGHTS[ASKED]).float()
    odds_BT = answers_N.view(batch.rows_BT.shape) + 1e-9
    start_BS = torch.multinomial(odds_BT, -(-width // (PLACES - 1)), replacement=True)
    slot_BSG = start_BS[..., None] + torch.arange(PLACES, device=device)
    first_B11 = width * torch.arange(len(start_BS), device=device)[:, None, None]
    inside_BSG = (slot_BSG < width) & (answers_N.view(batch.rows_BT.shape).gather(1, start_BS) > 0)[..., None]
    judged_BSG = label_N[(first_B11 + slot_BSG).clamp(max=len(label_N) - 1)].masked_fill(~inside_BSG, -1)
    return Blocks(start_BS, judged_BSG)


def visible_rows(start_BS: Tensor, width: int) -> Tensor:
    """Which rows see which, bool [B, 1, L, L]: text what came before, masks the text up to their block's start too."""
    batch, blocks = start_BS.shape
    masks = PLACES - 1
    device = start_BS.device
    slot_T = torch.arange(width, device=device)
    text_BTT = (slot_T[:, None] >= slot_T).expand(batch, -1, -1)
    above_BMT = (start_BS[..., None] >= slot_T).repeat_interleave(masks, dim=1)
    mask_M = torch.arange(blocks * masks, device=device)
    same_MM = (mask_M[:, None] // masks == mask_M // masks) & (mask_M[:, None] >= mask_M)
    none_BTM = text_BTT.new_zeros(batch, width, blocks * masks)
    top = torch.cat((text_BTT, none_BTM), dim=2)
    bottom = torch.cat((above_BMT, same_MM.expand(batch, -1, -1)), dim=2)
    return torch.cat((top, bottom), dim=1)[:, None]


def block_features(model: Llama, rows_BT: Tensor, start_BS: Tensor) -> Tensor:
    """Normed features [B, S, G, C] of the rows that guess a block, differentiable."""
    batch, width = rows_BT.shape
    c, blocks = model.config, start_BS.shape[1]
    device = rows_BT.device
    masks_M = c.vocab_size + c.extra_inputs - (PLACES - 1) + torch.arange(PLACES - 1, device=device)
    h_BLC: Tensor = model.embed(torch.cat((rows_BT, masks_M.repeat(blocks).expand(batch, -1)), dim=1))
    ahead_BM = (start_BS[..., None] + torch.arange(1, PLACES, device=device)).flatten(1)
    slots_BL = torch.cat((torch.arange(width, device=device).expand(batch, -1), ahead_BM), dim=1)
    turn_N1P = rotary_turns(slots_BL.flatten(), model.speed_P, wide(h_BLC.dtype))
    turn_BL1P = turn_N1P.view(*slots_BL.shape, 1, -1)
    visible_B1LL = visible_rows(start_BS, width)
    sizes = (c.num_heads, c.num_kv_heads, c.num_kv_heads)
    for block in model.blocks:
        assert isinstance(block, Block)
        q, k, v = block.qkv(block.attn_norm(h_BLC)).view(*slots_BL.shape, -1, c.head_dim).split(sizes, dim=2)
        q, k = (rotate(x.to(turn_BL1P.real.dtype).contiguous(), turn_BL1P).to(v.dtype).transpose(1, 2) for x in (q, k))
        k, v = (x.repeat_interleave(c.num_heads // c.num_kv_heads, dim=1) for x in (k, v.transpose(1, 2)))
        mixed_BHLD = F.scaled_dot_product_attention(q, k, v, attn_mask=visible_B1LL)
        h_BLC = h_BLC + block.out(mixed_BHLD.transpose(1, 2).flatten(2))
        gate, up = block.gate_up(block.ffn_norm(h_BLC)).chunk(2, dim=-1)
        h_BLC = h_BLC + block.down(F.silu(gate) * up)
    last_BS1C = h_BLC[:, :width].gather(1, start_BS[..., None].expand(-1, -1, c.dim)).unsqueeze(2)
    masks_BSMC = h_BLC[:, width:].reshape(batch, blocks, PLACES - 1, c.dim)
    features: Tensor = model.norm(torch.cat((last_BS1C, masks_BSMC), dim=2))
    return features


def block_loss(model: Llama, batch: Batch) -> Tensor:
    """`distil_loss` over the places of random blocks, near places counting more."""
    blocks = choose_blocks(batch)
    judged_N = blocks.judged_BSG.flatten()
    place_N = torch.arange(PLACES, device=judged_N.device).repeat(blocks.start_BS.numel())
    known_N = judged_N >= 0
    at_M = judged_N[known_N]
    with torch.autocast(batch.rows_BT.device.type, torch.bfloat16):
        features_BSGC = block_features(model, batch.rows_BT, blocks.start_BS)
        if not known_N.any():  # no conversation of the batch has an answer
            return 0.0 * features_BSGC.float().sum()
        logits_MK = F.linear(features_BSGC.flatten(0, 2)[known_N], model.head_weight()).float()
    weight_M = batch.weight_M[at_M] * NEARER ** place_N[known_N]
    return distil_loss(
        logits_MK, replace(batch, target_MJ=batch.target_MJ[at_M], p_MJ=batch.p_MJ[at_M], weight_M=weight_M)
    )


def _train(rank: int, job: Job) -> None:
    """One training process."""
    assert isinstance(job, BlockJob)
    join_trainers(rank, job)
    batches, draft = prepare(job)
    torch.manual_seed(1000 * job.recipe.seed + rank)
    train(job.recipe, draft.model, batches, job.checkpoint, rank, block_loss)


def prepare(job: BlockJob) -> tuple[Batches, Draft]:
    """The written corpus as batches, and the draft to start from, with masks."""
    corpus = read_corpus(job.data, Tokenizer.from_file(str(load_smollm2() / "tokenizer.json")))
    plain = read_draft(job.start, job.device)
    torch.manual_seed(job.recipe.seed)
    device = torch.device(job.device)
    batches = Batches(corpus, plain.ids_K.cpu(), plain.vocab_size, job.recipe.batch_tokens, device)
    return batches, with_masks(plain)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: write and train what is missing, measure, and save the draft with its card."""
    house = ROOT / "assets" / "house"
    parser = argparse.ArgumentParser(prog="python -m backend.train.smollm2_blocks", description=__doc__)
    parser.add_argument("--device", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "smollm2-text")
    parser.add_argument("--start", type=Path, default=house / "smollm2-draft.safetensors")
    parser.add_argument("--out", type=Path, default=house / "smollm2-blocks.safetensors")
    args = parser.parse_args(argv)
    job = BlockJob(RECIPES[args.device], args.device, args.data, args.start)
    in_processes(write_text, job.recipe.writers, job)
    in_processes(_train, job.recipe.trainers, job)
    batches, draft = prepare(job)
    draft.model.load_state_dict(torch.load(job.checkpoint, weights_only=True, map_location=args.device)["model"])
    save(args.out, batches, draft, job)


def through_blocks(draft: BlockDraft, ids: Sequence[int], answer: Sequence[int], length: int) -> list[np.ndarray]:
    """Block decoding of a given answer: for each call, whether the guess for each place is the answer's token."""
    cache, at, ready = draft.open_cache(len(ids) + len(answer) + PLACES), 0, 0
    text = [*ids, *answer]
    out: list[np.ndarray] = []
    while at < len(answer):
        end = len(ids) + at
        pending_N = torch.tensor(text[ready:end], device=draft.device)
        ahead = min(length, len(answer) - at)
        guess_G = draft.ids_K[draft.forward_block(pending_N, cache, ahead).argmax(-1)].cpu().numpy()
        right_G = guess_G == np.array(answer[at : at + ahead])
        out.append(right_G)
        at, ready = at + int(np.cumprod(right_G).sum()) + 1, end
    return out


def measure(draft: BlockDraft, texts: Sequence[tuple[Sequence[int], Sequence[int]]], length: int) -> dict[str, Any]:
    """Share of right guesses for each place, and new tokens a target call at temperature 0. texts: (ids, answer)."""
    calls = [call for ids, answer in texts for call in through_blocks(draft, ids, answer, length)]
    places = [np.array([call[g] for call in calls if len(call) > g]) for g in range(length)]
    return {
        "calls": len(calls),
        "right_per_place": [round(float(right.mean()), 4) for right in places],
        "mean_acceptance_length": round(sum(len(answer) for _, answer in texts) / len(calls), 3),
    }


def held_out_answers(batches: Batches, most: int) -> list[tuple[list[int], list[int]]]:
    """The first `most` held-out conversations with a greedy answer: what stands before it, and the answer."""
    corpus = batches.corpus
    out: list[tuple[list[int], list[int]]] = []
    for talk in np.flatnonzero(corpus.held):
        span = slice(corpus.bounds[talk], corpus.bounds[talk + 1])
        greedy = np.flatnonzero(corpus.roles[span] == GREEDY)
        if len(greedy) > PLACES and len(out) < most:
            ids = corpus.ids[span].tolist()
            out.append((ids[: greedy[0]], ids[greedy[0] : greedy[-1] + 1]))
    return out


def save(out: Path, batches: Batches, draft: Draft, job: BlockJob) -> None:
    """Write the draft and its card, with everything measured."""
    source = load_smollm2()
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    answers = bench_answers(load_llama(source, torch.float32, job.device), tokenizer)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_draft(out, draft.model, draft.ids_K, draft.vocab_size, draft.masks, BITS["layers"], BITS["embedding"])
    before, positions = held_out_loss(draft.model, batches, block_loss, COMPARED)
    after, _ = held_out_loss(read_draft(out, job.device).model, batches, block_loss, COMPARED)
    packed = load_draft(out, torch.float32, job.device, in_bytes=job.device == "cpu", kind=BlockDraft)
    assert isinstance(packed, BlockDraft)
    held, bench = held_out_answers(batches, 200), [(answer.ids, answer.tokens) for answer in answers]
    card = {
        "id": "house/smollm2-blocks",
        "what": "Block drafter for SmolLM2-135M-Instruct: guesses its next eight tokens in one call.",
        "license": "Apache-2.0",
        "num_params": draft.num_params,
        "config": asdict(draft.model.config),
        "masks": draft.masks,
        "data": "The text of house/smollm2-draft: conversations written by SmolLM2-135M-Instruct itself (Apache-2.0).",
        "data_positions": len(batches.corpus.ids),
        "conversations": int((~batches.corpus.held).sum()),
        "start": "house/smollm2-draft",
        "recipe": {"device": job.device, **asdict(job.recipe)},
        "held_out": {f"block {k}": measure(packed, held, k) for k in MEASURED},
        "loss_moved_by_rounding": moved_by_rounding(before, after, positions, BITS),
        "about_held_out": f"The first {len(held)} held-out conversations with a greedy answer: other user's turns than "
        "in training, but of the same grammar and writer, so flattering.",
        "bench_prompts": {f"block {k}": measure(packed, bench, k) for k in MEASURED},
        "torch": str(torch.__version__),
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps({name: card[name] for name in ("held_out", "bench_prompts")}, indent=2))


if __name__ == "__main__":
    main()
