"""What a model of short stories is worth: its held-out loss, what it writes by itself, how often a draft agrees."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.chance import Seeded
from backend.codecs.text import TextCodec
from backend.meter import Meter
from backend.models.causal import CausalModel
from backend.models.house.llama import Llama
from backend.models.house.two_level import TwoLevel
from backend.protocols import CausalSession, Prompt
from backend.types import Sampling

if TYPE_CHECKING:
    from backend.train.tales import Shelf

Laws = Callable[[Llama | TwoLevel, Tensor], tuple[Tensor, Tensor]]

OPENINGS, OPENING, ROOM = 16, 16, 240  # stories that are continued, tokens given of each, most tokens written
TEMPERATURE = 0.8


@torch.inference_mode()
def held_out_loss(model: Llama | TwoLevel, shelf: Shelf, laws: Laws) -> dict[str, Any]:
    """Loss on held-out stories, their first tokens left out; in a block, position by position."""
    device = next(model.parameters()).device
    nats: list[Tensor] = []
    places: list[Tensor] = []
    for story in shelf.held:
        logits_MV, target_M = laws(model, torch.tensor([[*story, *[-100] * (-len(story) % 4)]], device=device))
        nats.append(F.cross_entropy(logits_MV, target_M, reduction="none"))
        places.append(torch.arange(1, len(story)) % 4)
    nats_M, place_M = torch.cat(nats).cpu(), torch.cat(places)
    size = sum(len(shelf.tokenizer.decode(story[1:]).encode()) for story in shelf.held)
    return {
        "stories": len(shelf.held),
        "tokens": len(nats_M),
        "nats_per_token": round(float(nats_M.mean()), 4),
        "bits_per_byte": round(float(nats_M.sum()) / math.log(2) / size, 4),
        "nats_by_place_in_4": [round(float(nats_M[place_M == place].mean()), 4) for place in range(4)],
    }


def what_it_writes(model: Llama | TwoLevel, shelf: Shelf) -> dict[str, Any]:
    """Stories continued from held-out beginnings, beside SmolLM2's own continuations: repetition, words, ends."""
    packed = model.pack(torch.float32)
    codec = TextCodec(shelf.tokenizer, end=[0])
    causal = CausalModel("house/tales", packed, codec, packed.num_params)
    own, theirs = [], []
    for i, story in enumerate(shelf.held[:OPENINGS]):
        own.append(continuation(causal, story[:OPENING], i))
        theirs.append(list(story[OPENING:]))
    known = words(shelf.tokenizer.decode([token for story in shelf.told for token in story]))
    written = [word for text in own for word in re.findall(r"[a-z']+", shelf.tokenizer.decode(text).lower())]
    return {
        "stories": len(own),
        "temperature": TEMPERATURE,
        "mean_tokens": round(sum(map(len, own)) / len(own), 1),
        "end_reached": round(sum(text[-1:] == [0] for text in own) / len(own), 3),
        "words_known": round(sum(word in known for word in written) / len(written), 4),
        **{f"distinct_{n}": [distinct(own, n), distinct(theirs, n)] for n in (1, 2, 4)},
        "about": "distinct_n is the share of different runs of n tokens within a story, of this model and of SmolLM2; "
        "words_known the share of written words that occur in the training stories; end_reached the share of stories "
        f"that came to an end within {ROOM} tokens.",
    }


def continuation(model: CausalModel, opening: Sequence[int], seed: int) -> list[int]:
    """What the model writes behind an opening, up to its end token or ROOM tokens."""
    sampling = Sampling(temperature=TEMPERATURE)
    session = model.open(CausalSession, Prompt(tuple(opening)), sampling, Meter(), ROOM)
    chance = Seeded(seed)
    while len(session.tokens) < len(opening) + ROOM and session.tokens[-1] != 0:
        session.commit([chance.pick(session.score().p_NV[0])])
    return list(session.tokens[len(opening) :])


def words(text: str) -> set[str]:
    """The different words of a text, in lower case."""
    return set(re.findall(r"[a-z']+", text.lower()))


def distinct(texts: Sequence[Sequence[int]], n: int) -> float:
    """Mean over texts: different runs of n tokens, as a share of all."""
    shares = [
        len({tuple(text[i : i + n]) for i in range(len(text) - n + 1)}) / (len(text) - n + 1)
        for text in texts
        if len(text) >= n
    ]
    return round(sum(shares) / len(shares), 3)


@torch.inference_mode()
def agreement(draft: Llama | TwoLevel, target: Llama | TwoLevel, shelf: Shelf, laws: Laws) -> dict[str, float]:
    """How often both think the same token best, and the overlap sum(min(p, q)) at temperature 1; held-out stories."""
    device = next(draft.parameters()).device
    same: list[Tensor] = []
    overlap: list[Tensor] = []
    for story in shelf.held:
        ids_1T = torch.tensor([[*story, *[-100] * (-len(story) % 4)]], device=device)
        q_MV, p_MV = (laws(model, ids_1T)[0].softmax(-1) for model in (draft, target))
        same.append(q_MV.argmax(-1) == p_MV.argmax(-1))
        overlap.append(torch.minimum(p_MV, q_MV).sum(-1))
    return {
        "agreement": round(float(torch.cat(same).float().mean()), 4),
        "overlap_temperature_1": round(float(torch.cat(overlap).mean()), 4),
    }
