"""What draft heads compute in training: batches of conversations with hidden states, and the states of every place.

Conversations end in the same slot, so that all answers lie in the last A slots; the layer's rows before them only give
keys and values. Decoding computes the same a row at a time (`backend.models.house.heads`).

Letters: B conversations, T slots, A slots at the end that hold all answers, C features, J odds kept, K tokens of the
trimmed vocabulary, M judged slots, H heads of the layer, D numbers in a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.models.house.heads import EagleLayer, Heads, HydraHeads, MedusaHeads, Words
from backend.models.house.layers import rotary_speeds, rotary_turns, rotate
from backend.train.smollm2_corpus import Batch, Batches, Corpus
from backend.train.smollm2_draft import LEAST
from backend.train.smollm2_features import Features
from backend.train.smollm2_text import GREEDY, SAMPLED

STEPS = 3  # places in a row that EAGLE's layer is trained on
FEATURE_LOSS = 1.0  # weight of the loss on predicted states
MARGIN = STEPS + 1  # slots kept in front of the first answer
CHUNK = 256  # rows of a law over the trimmed vocabulary at once


@dataclass(frozen=True)
class HeadBatch:
    """Conversations that end in the same slot, so that all answers lie in the last A slots.

    Slot t holds token t and the hidden state that it was read from, that is of slot t - 1.

    Args:
        ids_BT, feature_BTC: zeros where real_BT is False. target_BAJ: SmolLM2's best tokens behind slot t, in the
        trimmed vocabulary (-1: outside); p_BAJ: their odds. weight_BA: 0 where a slot is not judged. goal_BAC: hidden
        states of the slots themselves. written_BA: who wrote the token behind. next_BA: that token.
    """

    ids_BT: Tensor
    feature_BTC: Tensor
    real_BT: Tensor
    target_BAJ: Tensor
    p_BAJ: Tensor
    weight_BA: Tensor
    goal_BAC: Tensor
    written_BA: Tensor
    next_BA: Tensor

    @property
    def width(self) -> int:
        """A."""
        return self.weight_BA.shape[1]

    def judged(self, at_BA: Tensor) -> Batch:
        """What `distil_loss` compares at the slots where at_BA is True."""
        parts = (self.target_BAJ[at_BA], self.p_BAJ[at_BA], self.weight_BA[at_BA])
        return Batch(self.ids_BT, torch.empty(0), *parts)


class FeatureBatches(Batches):
    """Batches of conversations whose hidden states are known.

    Args:
        corpus, features: as read. ids_K, target_vocab: of the trimmed vocabulary. batch_tokens: slots of a batch.
    """

    def __init__(
        self, corpus: Corpus, features: Features, ids_K: Tensor, target_vocab: int, batch_tokens: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.features = features
        spans = [slice(corpus.bounds[t], corpus.bounds[t + 1]) for t in features.talks]
        parts = (corpus.ids, corpus.roles, corpus.top_ids, corpus.top_logp)
        ids, roles, top_ids, top_logp = (np.concatenate([part[span] for span in spans]) for part in parts)
        own_corpus = replace(
            corpus, ids=ids, roles=roles, top_ids=top_ids, top_logp=top_logp, bounds=features.offsets,
            held=corpus.held[features.talks],
        )  # fmt: skip
        super().__init__(own_corpus, ids_K, target_vocab, batch_tokens, device)

    def collate(self, talks: Sequence[int]) -> HeadBatch:  # type: ignore[override]
        """One batch of the given conversations."""
        c = self.corpus
        spans = [slice(int(c.bounds[t]), int(c.bounds[t + 1])) for t in talks]
        texts = []
        for span in spans:
            features = torch.from_numpy(self.features.features_PC[span])
            odds = (torch.from_numpy(part[span]) for part in (c.top_ids.astype(np.int32), c.top_logp))
            texts.append((torch.from_numpy(c.ids[span].astype(np.int64)), features, *odds, c.roles[span]))
        return self.align(texts)

    def align(self, texts: Sequence[tuple[Any, ...]]) -> HeadBatch:
        """A batch of texts: ids, hidden states, best tokens and their log-odds at every slot, and who wrote it."""
        lengths = [len(text[0]) for text in texts]
        answers = [int(np.isin(text[4], (GREEDY, SAMPLED)).sum()) for text in texts]
        count, width, dim = len(texts), max(lengths), texts[0][1].shape[1]
        tail = min(width, max(answers) + MARGIN)
        ids_BT, real_BT = torch.zeros(count, width, dtype=torch.long), torch.zeros(count, width, dtype=torch.bool)
        feature_BTC, goal_BTC = torch.zeros(count, width, dim), torch.zeros(count, width, dim)
        odds = texts[0][2].shape[1]
        target_BTJ, p_BTJ = torch.full((count, width, odds), -1), torch.zeros(count, width, odds)
        weight_BT, written_BT = torch.zeros(count, width), torch.full((count, width), -1)
        for b, (ids, features, top_ids, top_logp, roles) in enumerate(texts):
            first = width - len(ids)
            ids_BT[b, first:], real_BT[b, first:] = ids, True
            goal_BTC[b, first:] = features
            feature_BTC[b, first + 1 :] = features[:-1]
            target_BTJ[b, first:] = self.small_V[top_ids.long()]
            p_BTJ[b, first:] = top_logp.float().exp()
            written_BT[b, first:-1] = torch.from_numpy(roles[1:].astype(np.int64))
            weight_BT[b, first:-1] = self.weight_R[written_BT[b, first:-1]] * (written_BT[b, first:-1] >= GREEDY)
        next_BT = torch.cat((ids_BT[:, 1:], ids_BT[:, :1]), dim=1)
        ends = (x[:, width - tail :] for x in (target_BTJ, p_BTJ, weight_BT, goal_BTC, written_BT, next_BT))
        parts = (ids_BT, feature_BTC, real_BT, *ends)
        return HeadBatch(*(part.to(self.device) for part in parts))


def later(x_BA: Tensor, places: int) -> Tensor:
    """x of the slot `places` behind each; False or zero where there is none."""
    return F.pad(x_BA[:, places:], (0, 0) * (x_BA.dim() - 2) + (0, places))


def earlier(x_BA: Tensor, places: int) -> Tensor:
    """x of the slot `places` before each; zero where there is none."""
    if not places:
        return x_BA
    return F.pad(x_BA[:, :-places], (0, 0) * (x_BA.dim() - 2) + (places, 0))


def states_of(heads: Heads, words: Words, batch: HeadBatch, places: int) -> list[Tensor]:
    """What SmolLM2's head reads, [B, A, C] for each place: at slot a, the guess for the token behind slot a.

    For place k it was drafted k slots before, from the hidden state of slot a - k and the tokens of slots a - k..a.
    """
    if isinstance(heads, EagleLayer):
        return eagle_states(heads, words, batch, places)
    if isinstance(heads, MedusaHeads):
        newest = heads.states(batch.feature_BTC[:, -batch.width :])
        return [earlier(state, k) for k, state in enumerate(newest)]
    assert isinstance(heads, HydraHeads)
    width, slots_T = batch.width, torch.arange(batch.ids_BT.shape[1], device=batch.ids_BT.device)
    turn_T1P = rotary_turns(slots_T, layer_speeds(heads, batch), torch.float32)
    key_BHTD, value_BHTD = keys_values(heads, batch.feature_BTC, turn_T1P)
    seen_BAT = visible(batch, 0)
    tail = batch.feature_BTC[:, -width:]
    prefix_BAC = heads.norm(run_layer(heads, tail, turn_T1P[-width:], key_BHTD, value_BHTD, seen_BAT, []))
    small_BAE = heads.shrunk(words.embed_VC[batch.ids_BT[:, -width:]])
    out = []
    for k in range(places):
        way = [earlier(small_BAE, k - i) for i in range(k + 1)]
        out.append(heads.state(k, earlier(prefix_BAC, k), torch.cat(way, dim=-1)))
    return out


def eagle_states(
    heads: EagleLayer, words: Words, batch: HeadBatch, places: int, embed_BTC: Tensor | None = None
) -> list[Tensor]:
    """`states_of` EAGLE's layer. Place 0 reads true hidden states; each further place reads what the last predicted.

    A row of place k sees the rows of place 0 up to k slots before, as the text, and those of places 1..k between.
    embed_BTC: what it reads of the tokens, where that is not their embedding alone.
    """
    width, slots_T = batch.width, torch.arange(batch.ids_BT.shape[1], device=batch.ids_BT.device)
    turn_T1P = rotary_turns(slots_T, layer_speeds(heads, batch), torch.float32)
    embed_BTC = words.embed_VC[batch.ids_BT] if embed_BTC is None else embed_BTC
    fused_BTC = heads.fused(embed_BTC, batch.feature_BTC)
    key_BHTD, value_BHTD = keys_values(heads, fused_BTC, turn_T1P)
    embed_BAC, fused_BAC, turn_A1P = embed_BTC[:, -width:], fused_BTC[:, -width:], turn_T1P[-width:]
    ways: list[tuple[Tensor, Tensor]] = []
    out: list[Tensor] = []
    for k in range(places):
        if k:
            fused_BAC = heads.fused(embed_BAC, earlier(out[-1], 1))
            ways.append(keys_values(heads, fused_BAC, turn_A1P))
        own = [tuple(earlier(x.transpose(1, 2), k - 1 - i).transpose(1, 2) for x in way) for i, way in enumerate(ways)]
        seen_BAT = visible(batch, k)
        out.append(heads.norm(run_layer(heads, fused_BAC, turn_A1P, key_BHTD, value_BHTD, seen_BAT, own)))
    return out


def layer_speeds(heads: HydraHeads | EagleLayer, batch: HeadBatch) -> Tensor:
    """Rotary speeds of the layer."""
    return rotary_speeds(heads.config.head_dim, heads.config.rope_theta).to(batch.ids_BT.device)


def visible(batch: HeadBatch, places: int) -> Tensor:
    """[B, A, T]: which slots of the text a row sees that was drafted `places` slots behind it; at least itself."""
    slots_T = torch.arange(batch.ids_BT.shape[1], device=batch.ids_BT.device)
    slots_A = slots_T[-batch.width :]
    seen_BAT = (slots_T <= slots_A[:, None] - places) & batch.real_BT[:, None]
    return seen_BAT | (slots_T == slots_A[:, None])[None] & ~seen_BAT.any(-1, keepdim=True)


def keys_values(heads: HydraHeads | EagleLayer, h_BTC: Tensor, turn_T1P: Tensor) -> tuple[Tensor, Tensor]:
    """Turned keys and values [B, KVH, T, D] of these rows."""
    c, layer = heads.config, heads.layer
    weight = layer.qkv.weight[c.num_heads * c.head_dim :]
    kv_BTI = F.linear(layer.attn_norm(h_BTC), weight)
    key_BTHD, value_BTHD = kv_BTI.view(*kv_BTI.shape[:2], -1, c.head_dim).chunk(2, dim=2)
    return rotate(key_BTHD.float().contiguous(), turn_T1P).transpose(1, 2), value_BTHD.float().transpose(1, 2)


def run_layer(
    heads: HydraHeads | EagleLayer, h_BAC: Tensor, turn_A1P: Tensor, key_BHTD: Tensor, value_BHTD: Tensor,
    seen_BAT: Tensor, own: Sequence[tuple[Tensor, ...]],
) -> Tensor:  # fmt: skip
    """The layer on rows h_BAC. They see rows of the text as seen_BAT says, and one row each of every pair in `own`
    (its keys and values [B, KVH, A, D])."""
    c, layer = heads.config, heads.layer
    groups = c.num_heads // c.num_kv_heads
    q_BAI = F.linear(layer.attn_norm(h_BAC), layer.qkv.weight[: c.num_heads * c.head_dim])
    q_BAHD = rotate(q_BAI.float().view(*q_BAI.shape[:2], -1, c.head_dim), turn_A1P) * c.head_dim**-0.5
    q_BHGAD = q_BAHD.view(*q_BAI.shape[:2], -1, groups, c.head_dim).permute(0, 2, 3, 1, 4)
    scores = [(q_BHGAD @ key_BHTD[:, :, None].mT).float().masked_fill(~seen_BAT[:, None, None], float("-inf"))]
    scores += [(q_BHGAD * key[:, :, None]).sum(-1, keepdim=True) for key, _ in own]
    share = torch.cat(scores, dim=-1).softmax(dim=-1)
    text = key_BHTD.shape[2]
    mixed = (share[..., :text] @ value_BHTD[:, :, None]).float()
    for i, (_, value) in enumerate(own):
        mixed = mixed + share[..., text + i, None] * value[:, :, None]
    h_BAC = h_BAC + layer.out(mixed.flatten(1, 2).transpose(1, 2).flatten(2))
    gate, up = layer.gate_up(layer.ffn_norm(h_BAC)).chunk(2, dim=-1)
    h_BAC = h_BAC + layer.down(F.silu(gate) * up)
    return h_BAC


class HeadLoss(torch.autograd.Function):
    """`distil_loss` behind a frozen head, with its gradient made on the way: laws over K live for CHUNK rows only."""

    @staticmethod
    def forward(ctx: Any, state_MC: Tensor, head_KC: Tensor, batch: Batch) -> Tensor:
        """Mean loss of rows that the head reads; head_KC gets no gradient."""
        slope_MC = torch.empty_like(state_MC)
        total, whole = state_MC.new_zeros(()), batch.weight_M.sum()
        for start in range(0, len(state_MC), CHUNK):
            at = slice(start, start + CHUNK)
            known_MJ = batch.target_MJ[at] >= 0
            p_MJ, target_MJ = batch.p_MJ[at] * known_MJ, batch.target_MJ[at].clamp(min=0)
            logits_MK = F.linear(state_MC[at].to(head_KC.dtype), head_KC)
            best_M1, first_M1 = logits_MK.max(dim=-1, keepdim=True)
            q_MK = logits_MK.softmax(dim=-1)
            logq_MJ = (logits_MK.gather(1, target_MJ) - best_M1).float() + q_MK.gather(1, first_M1).float().log()
            q_MJ = logq_MJ.exp()
            rest_p_M, rest_q_M = (1 - p_MJ.sum(-1)).clamp(min=0), 1 - (q_MJ * known_MJ).sum(-1)
            safe_q_M, weight_M1 = rest_q_M.clamp(min=LEAST), (batch.weight_M[at] / whole)[:, None]
            loss_M = -(p_MJ * logq_MJ).sum(-1) - rest_p_M * safe_q_M.log()
            total += (loss_M * weight_M1[:, 0]).sum()
            free_M1 = (rest_p_M / safe_q_M * (rest_q_M >= LEAST))[:, None]
            own_MJ = (free_M1 * q_MJ * known_MJ - p_MJ) * weight_M1
            q_MK.mul_(-own_MJ.sum(-1, keepdim=True)).scatter_add_(1, target_MJ, own_MJ.to(q_MK.dtype))
            slope_MC[at] = q_MK @ head_KC
        ctx.save_for_backward(slope_MC)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The saved slope, scaled."""
        (slope_MC,) = ctx.saved_tensors
        return grad * slope_MC, None, None


head_loss = cast(Callable[[Tensor, Tensor, Batch], Tensor], HeadLoss.apply)


def loss_of(heads: Heads, words: Words, batch: HeadBatch) -> Tensor:
    """`distil_loss` of every place that is trained, summed with weights that fall by a tenth a place.

    Places behind the first are judged at every second slot, which saves a third of the work.
    """
    eagle = isinstance(heads, EagleLayer)
    losses = []
    with torch.autocast(batch.ids_BT.device.type, torch.bfloat16):
        states = states_of(heads, words, batch, STEPS if eagle else heads.config.reach)
    for k, state_BAC in enumerate(states):
        from_answer_BA = earlier((batch.weight_BA > 0).float(), k) > 0
        at_BA = (batch.weight_BA > 0) & from_answer_BA
        if k:
            at_BA &= (torch.arange(batch.width, device=at_BA.device) + torch.randint(2, ()).item()) % 2 == 0
        loss = head_loss(state_BAC[at_BA].float(), words.head_KC, batch.judged(at_BA))
        if eagle:
            miss = (state_BAC[at_BA].float() - batch.goal_BAC[at_BA]) / heads.feature_C
            loss = loss + FEATURE_LOSS * F.smooth_l1_loss(miss, torch.zeros_like(miss))
        losses.append(0.9**k * loss)
    return torch.stack(losses).sum()
