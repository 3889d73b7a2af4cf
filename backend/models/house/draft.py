"""A small model with a trimmed vocabulary that speaks its target's token ids: the draft of speculative decoding.

Its file holds `ids_K`, the target id of each token it can predict, and its sizes as metadata. A target token that it
cannot predict is still read: it takes one of the `extra_inputs` rows of the embedding, chosen by its id, so that
frequent names and rare words differ. Logits come out over the target's vocabulary, -inf where it has no token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from backend.errors import UserError
from backend.models.house.cache import KVCache
from backend.models.house.llama import Llama, LlamaConfig


def input_rows(ids_K: Tensor, target_vocab: int, extra_inputs: int) -> Tensor:
    """Embedding row of each target token, [target_vocab]: its own if it is in ids_K, else one of the shared rows."""
    rows_V = len(ids_K) + torch.arange(target_vocab) % extra_inputs
    rows_V[ids_K] = torch.arange(len(ids_K))
    return rows_V


class Draft:
    """A packed Llama over a trimmed vocabulary, with the interface of a `Llama` over the target's.

    Args:
        model: packed; its vocabulary has K tokens. ids_K: their ids in the target. target_vocab: V.
    """

    def __init__(self, model: Llama, ids_K: Tensor, target_vocab: int) -> None:
        self.model = model
        self.vocab_size = target_vocab
        self.context = model.context
        self.num_params = model.num_params
        self.device = model.device
        self.ids_K = ids_K.to(model.device)
        self.rows_V = input_rows(ids_K, target_vocab, model.config.extra_inputs).to(model.device)

    def open_cache(self, capacity: int) -> KVCache:
        """An empty cache for one sequence."""
        return self.model.open_cache(capacity)

    @torch.inference_mode()
    def forward_rows(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cache: KVCache,
        visible_NS: Tensor | None = None,
        last: int | None = None,
        layers: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Llama.forward_rows`; ids and logits are the target's, -inf where the draft has no token."""
        small, hidden = self.model.forward_rows(self.rows_V[ids_N], positions_N, cache, visible_NS, last, layers)
        logits = small.new_full((small.shape[0], self.vocab_size), float("-inf"))
        return logits.scatter_(1, self.ids_K.expand_as(small), small), hidden


def save_draft(path: Path, model: Llama, ids_K: Tensor, target_vocab: int) -> None:
    """Write an unpacked draft in float16."""
    state = {name: weight.detach().to(torch.float16).contiguous() for name, weight in model.state_dict().items()}
    metadata = {"config": json.dumps(asdict(model.config)), "target_vocab": str(target_vocab)}
    save_file({**state, "ids_K": ids_K.to(torch.int32)}, path, metadata=metadata)


def load_draft(path: Path, dtype: torch.dtype, device: torch.device | str = "cpu", in_bytes: bool = False) -> Draft:
    """The draft in a file of `save_draft`, packed for decoding in dtype. Raises UserError if there is no such file.

    in_bytes: weights of one byte and products in bfloat16, whatever dtype says; the quickest on a CPU.
    """
    draft = read_draft(path, device)
    model = draft.model.pack(torch.bfloat16 if in_bytes else dtype, in_bytes)
    return Draft(model, draft.ids_K, draft.vocab_size)


def read_draft(path: Path, device: torch.device | str = "cpu") -> Draft:
    """The same with its weights as they were trained, float32, not packed."""
    if not path.is_file():
        raise UserError(f"There is no draft model at {path}: train it with python -m backend.train.smollm2_draft.")
    with safe_open(path, framework="pt", device=str(device)) as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    ids_K = state.pop("ids_K").long().cpu()
    model = Llama(LlamaConfig(**json.loads(metadata["config"]))).to(device)
    model.load_state_dict(state)
    return Draft(model, ids_K, int(metadata["target_vocab"]))
