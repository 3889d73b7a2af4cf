"""Conversations that SmolLM2 writes by itself, with its next-token odds at every position: training data of its draft.

Three quarters of the users' turns are written by the model as well (the chat template is opened at the user's turn),
the others come from `smollm2_prompts`. Many conversations advance together, one token each per step; a finished one is
replaced at once. Prompt tokens go through the same steps, so their odds are recorded too. Shards are numbered .npz
files, and writing resumes behind the last one.

Letters: B conversations in flight, S slots of the cache, C features, D numbers in a head, P positions of a shard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from backend.models.house.layers import norm_floor, rotary_turns, unit_norm
from backend.models.house.llama import Llama
from backend.train.smollm2_prompts import KINDS, instruction

SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
USER, ASSISTANT = SYSTEM + "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
END = 2  # <|im_end|>
TOP = 32  # odds kept per position
SLOTS = 320  # most tokens of a conversation
GIVEN, ASKED, GREEDY, SAMPLED = range(4)  # who wrote a token: template or grammar, the model as user, as assistant


@dataclass
class Conversation:
    """One conversation while it is written.

    Args:
        kind: of the instruction, or "self". ids: tokens so far; roles: who wrote each. forced: ids still to be given.
        temperature: of the assistant's turn. limit: most tokens of it. asking: the model still writes the user's turn.
        answer: tokens of the assistant's turn so far. top_ids, top_logp: odds of the token behind each, [TOP].
    """

    kind: str
    rng: Random
    ids: list[int]
    roles: list[int]
    forced: list[int]
    temperature: float
    limit: int
    asking: bool
    answer: int = 0
    top_ids: list[np.ndarray] = field(default_factory=list)
    top_logp: list[np.ndarray] = field(default_factory=list)


class BatchDecoder:
    """One token of each of B conversations per step, with SmolLM2's packed weights and a static cache.

    Every conversation begins with the same tokens, `prefix`; their keys and values are computed once.
    """

    def __init__(self, model: Llama, batch: int, prefix: list[int]) -> None:
        assert model.packed is not None
        self.config, self.packed, self.speed_P = model.config, model.packed, model.speed_P
        c = model.config
        size = (c.num_layers, 2, batch, c.num_kv_heads, SLOTS, c.head_dim)
        self.kv_LZBHSD = torch.zeros(size, device=model.device)  # float32: the quicker batched attention on CPUs
        cache = model.open_cache(len(prefix))
        slots_N = torch.arange(len(prefix), device=model.device)
        model.forward_rows(torch.tensor(prefix, device=model.device), slots_N, cache, last=1)
        self.kv_LZBHSD[:, :, :, :, : len(prefix)] = cache.kv_LZHSD[:, :, None].float()
        self.row_B = torch.arange(batch, device=model.device)
        self.slot_S = torch.arange(SLOTS, device=model.device)

    @torch.inference_mode()
    def step(self, ids_B: Tensor, slots_B: Tensor) -> tuple[Tensor, Tensor]:
        """Feed one token a conversation at its slot. Returns ids [B, TOP] and float32 log-odds [B, TOP], best first."""
        c, packed = self.config, self.packed
        batch = len(ids_B)
        h_BC = packed.embed_VC[ids_B].float()
        turn_B1P = rotary_turns(slots_B, self.speed_P, h_BC.dtype)
        floor = norm_floor(c.dim, c.norm_eps, h_BC)
        used = int(slots_B.max()) + 1
        bias_BS = torch.zeros(batch, used, device=ids_B.device)
        bias_BS.masked_fill_(self.slot_S[:used] > slots_B[:, None], float("-inf"))
        for layer, kv_ZBHSD in zip(packed.layers, self.kv_LZBHSD, strict=True):
            heads_BHD = layer.qkv(unit_norm(h_BC, floor).to(packed.dtype)).float().view(batch, -1, c.head_dim)
            turned_BHD = heads_BHD[:, : c.num_heads + c.num_kv_heads]
            torch.view_as_complex(turned_BHD.view(batch, c.num_heads + c.num_kv_heads, -1, 2)).mul_(turn_B1P)
            kv_ZBHSD[0][self.row_B, :, slots_B] = turned_BHD[:, c.num_heads :]
            kv_ZBHSD[1][self.row_B, :, slots_B] = heads_BHD[:, c.num_heads + c.num_kv_heads :]
            key_BHSD, value_BHSD = kv_ZBHSD[:, :, :, :used].unbind(0)
            query_BHGD = heads_BHD[:, : c.num_heads].view(batch, c.num_kv_heads, -1, c.head_dim)
            mixed = F.scaled_dot_product_attention(query_BHGD, key_BHSD, value_BHSD, bias_BS[:, None, None])
            h_BC = h_BC + layer.out(mixed.flatten(1).to(packed.dtype))
            gate, up = layer.gate_up(unit_norm(h_BC, floor).to(packed.dtype)).chunk(2, dim=-1)
            h_BC = h_BC + layer.down(F.silu(gate) * up)
        hidden_BC = unit_norm(h_BC, floor) * packed.norm_scale_C
        logits_BV = packed.head(hidden_BC.to(packed.dtype))
        total_B1 = torch.logsumexp(logits_BV.float(), dim=-1, keepdim=True)
        top_BK = logits_BV.topk(TOP + 8, dim=-1).indices
        # bfloat16 logits tie often, so the best ones are computed once more in float32
        exact_BK = torch.einsum("bkc,bc->bk", packed.embed_VC[top_BK].float(), hidden_BC.to(packed.dtype).float())
        logp_BK, order_BK = (exact_BK - total_B1).topk(TOP, dim=-1)
        return top_BK.gather(1, order_BK), logp_BK


class Writer:
    """Writes conversations and yields them finished.

    Args:
        model: SmolLM2, packed. tokenizer: its own. seed: of all choices. batch: B.
    """

    def __init__(self, model: Llama, tokenizer: Tokenizer, seed: int, batch: int) -> None:
        self.tokenizer, self.seed, self.number = tokenizer, seed, 0
        self.device = model.device
        self.passages: list[str] = []
        self.prefix, self.assistant = tokenizer.encode(USER).ids, tokenizer.encode(ASSISTANT).ids
        self.decoder = BatchDecoder(model, batch, self.prefix)
        self.running = [self._open() for _ in range(batch)]

    def _open(self) -> Conversation:
        """The next conversation: its user's turn given by the grammar, or left to the model."""
        self.number += 1
        rng = Random(f"{self.seed}/{self.number}")
        asking = rng.random() < 0.75
        kind = "self" if asking else rng.choice(KINDS)
        asked = "" if asking else instruction(rng, kind, self.passages) + ASSISTANT
        ids, forced = list(self.prefix), self.tokenizer.encode(asked).ids[: SLOTS - 64 - len(self.prefix)]
        temperature = 0.0 if rng.random() < 0.8 else rng.uniform(0.7, 1.0)
        return Conversation(kind, rng, ids, [GIVEN] * len(ids), forced, temperature, rng.randint(64, 112), asking)

    def step(self) -> Iterator[Conversation]:
        """Advance every conversation by one token; yield those that end and open others in their places."""
        ids_B = torch.tensor([c.ids[-1] for c in self.running], device=self.device)
        slots_B = torch.tensor([len(c.ids) - 1 for c in self.running], device=self.device)
        top, logp = (x.cpu().numpy() for x in self.decoder.step(ids_B, slots_B))
        for b, talk in enumerate(self.running):
            talk.top_ids.append(top[b].astype(np.uint16))
            talk.top_logp.append(logp[b].astype(np.float16))
            if not self._advance(talk, top[b], logp[b]):
                yield talk
                self._remember(talk)
                self.running[b] = self._open()

    def _advance(self, talk: Conversation, top_K: np.ndarray, logp_K: np.ndarray) -> bool:
        """Append the next token, given or drawn; False when the conversation has ended."""
        if talk.forced:
            talk.ids.append(talk.forced.pop(0))
            talk.roles.append(GIVEN)
            return True
        temperature = 0.9 if talk.asking else talk.temperature
        token = int(top_K[0])
        if temperature:
            odds = np.exp(logp_K.astype(np.float64) / temperature)
            token = int(top_K[np.searchsorted(np.cumsum(odds / odds.sum()), talk.rng.random()).clip(max=TOP - 1)])
        talk.ids.append(token)
        if talk.asking:
            talk.roles.append(ASKED)
            if token == END:
                talk.asking, talk.forced = False, list(self.assistant[1:])
            return len(talk.ids) < SLOTS - 160
        talk.roles.append(SAMPLED if talk.temperature else GREEDY)
        talk.answer += 1
        return token != END and talk.answer < talk.limit and len(talk.ids) < SLOTS

    def _remember(self, talk: Conversation) -> None:
        """Keep a part of a prose answer as a passage for later instructions."""
        if talk.kind not in ("self", "chat", "story") or talk.answer < 40:
            return
        sentences = self.tokenizer.decode(talk.ids[-talk.answer :]).replace("\n", " ").split(". ")
        passage = ". ".join(sentences[: talk.rng.randint(2, 6)]).strip()
        if 100 < len(passage) < 700:
            self.passages.append(passage if passage.endswith(".") else passage + ".")
            del self.passages[:-2000]


def write_shards(
    model: Llama, tokenizer: Tokenizer, folder: Path, tokens: int, seed: int, batch: int, shard: int = 10_000
) -> None:
    """Write shards until the folder holds `tokens` positions; each shard has about `shard` of them.

    A shard: ids uint16 [P], roles uint8 [P], starts int64 of its conversations, kinds, top_ids uint16 [P, TOP] and
    top_logp float16 [P, TOP]: the model's odds for the token behind each position.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = sorted(folder.glob("[0-9]*.npz"))
    held = sum(len(np.load(path)["ids"]) for path in made)
    writer = Writer(model, tokenizer, seed + len(made), batch)
    talks: list[Conversation] = []
    began, index = time.monotonic(), len(made)
    fresh = 0
    while held < tokens:
        talks.extend(writer.step())
        if sum(len(talk.top_ids) for talk in talks) < shard:
            continue
        size = _save(folder / f"{index:05d}.npz", talks)
        talks, index, held, fresh = [], index + 1, held + size, fresh + size
        speed = fresh / (time.monotonic() - began)
        print(f"{held:,} of {tokens:,} positions, {speed:.0f} a second", flush=True)


def _save(path: Path, talks: list[Conversation]) -> int:
    """Write finished conversations as one shard, by a temporary name. Odds of -inf: not known (prefix, last token)."""
    ends = np.cumsum([0, *(len(talk.ids) for talk in talks)])

    def padded(talk: Conversation, rows: list[np.ndarray], value: float) -> np.ndarray:
        before = len(talk.ids) - 1 - len(rows)
        return np.pad(np.stack(rows), ((before, 1), (0, 0)), constant_values=value)

    scratch = path.with_suffix(".part")
    with scratch.open("wb") as file:
        np.savez(
            file,
            ids=np.concatenate([np.array(talk.ids, np.uint16) for talk in talks]),
            roles=np.concatenate([np.array(talk.roles, np.uint8) for talk in talks]),
            starts=ends[:-1],
            kinds=np.array([talk.kind for talk in talks]),
            top_ids=np.concatenate([padded(talk, talk.top_ids, 0) for talk in talks]),
            top_logp=np.concatenate([padded(talk, talk.top_logp, -np.inf) for talk in talks]),
        )
    scratch.rename(path)
    return int(ends[-1])
