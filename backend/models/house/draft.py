"""A small model with a trimmed vocabulary that speaks its target's token ids: the draft of speculative decoding.

Its file holds `ids_K`, the target id of each token it can predict, and its sizes as metadata. A target token that it
cannot predict is still read: it takes one of the `extra_inputs` rows of the embedding, chosen by its id, so that
frequent names and rare words differ. Logits come out over the draft's own K tokens; sessions spread the laws.
The last `masks` of these rows stand for no token: drafts that guess a whole block read them where text is missing.
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
from backend.models.house import rounded
from backend.models.house.cache import KVCache
from backend.models.house.layers import ByteMap
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.house.single import RowCache, SingleRow
from backend.sampling import distribution
from backend.types import Sampling


def input_rows(ids_K: Tensor, target_vocab: int, extra_inputs: int) -> Tensor:
    """Embedding row of each target token, [target_vocab]: its own if it is in ids_K, else one of the shared rows."""
    rows_V = len(ids_K) + torch.arange(target_vocab) % extra_inputs
    rows_V[ids_K] = torch.arange(len(ids_K))
    return rows_V


class Draft:
    """A packed Llama over a trimmed vocabulary, with the interface of a `Llama` over the target's.

    Args:
        model: packed; its vocabulary has K tokens. ids_K: their ids in the target. target_vocab: V.
        masks: rows of the embedding that no token takes.
    """

    def __init__(self, model: Llama, ids_K: Tensor, target_vocab: int, masks: int = 0) -> None:
        self.model = model
        self.masks = masks
        self.vocab_size = target_vocab
        self.context = model.context
        self.num_params = model.num_params
        self.device = model.device
        self.ids_K = ids_K.to(model.device)
        self.rows_V = input_rows(ids_K, target_vocab, model.config.extra_inputs - masks).to(model.device)
        in_bytes = isinstance(model.weights().head, ByteMap) and model.dtype == torch.float32
        self._single = SingleRow(model) if in_bytes else None

    def open_cache(self, capacity: int) -> KVCache:
        """An empty cache for one sequence."""
        return (self._single or self.model).open_cache(capacity)

    def forward_rows(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cache: KVCache,
        visible_NS: Tensor | None = None,
        last: int | None = None,
        layers: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Llama.forward_rows`; ids are the target's, logits those of the tokens `ids_K`."""
        rows_N = self.rows_V[ids_N]
        if len(rows_N) == 1 and visible_NS is None and layers is None and isinstance(cache, RowCache) and self._single:
            return self._single.run(int(rows_N), int(positions_N), cache)
        return self.model.forward_rows(rows_N, positions_N, cache, visible_NS, last, layers)

    def spread(self, small_NK: Tensor) -> Tensor:
        """Logits over the draft's vocabulary as logits over the target's, [N, V]."""
        logits_NV = small_NK.new_full((small_NK.shape[0], self.vocab_size), float("-inf"))
        return logits_NV.scatter_(1, self.ids_K.expand_as(small_NK), small_NK)

    def laws(self, raw_NK: Tensor, sampling: Sampling, text: Sequence[int], vocab_size: int) -> Tensor:
        """p_NV of logits after a text, over the first `vocab_size` tokens of the target."""
        seen: list[list[int]] = []
        if sampling.repetition_penalty != 1.0:
            rows = self.rows_V[torch.tensor(text, device=self.device)]
            seen = [rows[rows < len(self.ids_K)].tolist()] * len(raw_NK)
        p_NK = distribution(raw_NK, sampling, seen)
        return p_NK.new_zeros(len(p_NK), vocab_size).scatter_(1, self.ids_K.expand_as(p_NK), p_NK)


def save_draft(
    path: Path, model: Llama, ids_K: Tensor, target_vocab: int, masks: int = 0, bits: float = 16, embed_bits: float = 8
) -> None:
    """Write an unpacked draft.

    bits: of its matrices, 16 (float16, as all else then) or fewer (see `rounded`), then with embed_bits for the
    embedding, which is the head too and loses most by rounding.
    """
    state = {name: weight.detach() for name, weight in model.state_dict().items()}
    if bits == 16:
        state = {name: weight.to(torch.float16).contiguous() for name, weight in state.items()}
    else:
        state = rounded.in_bits(state, bits, ("embed.weight",), embed_bits)
    metadata = {"config": json.dumps(asdict(model.config)), "target_vocab": str(target_vocab), "masks": str(masks)}
    save_file({**state, "ids_K": ids_K.to(torch.int32)}, path, metadata=metadata)


def load_draft(
    path: Path,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    in_bytes: bool = False,
    kind: type[Draft] = Draft,
) -> Draft:
    """The draft in a file of `save_draft`, packed for decoding in dtype. Raises UserError if there is no such file.

    in_bytes: weights of one byte, products in bfloat16 and all else in float32, whatever dtype says; the quickest on a
    CPU. kind: its class.
    """
    draft = read_draft(path, device)
    model = draft.model.pack(torch.float32 if in_bytes else dtype, in_bytes)
    return kind(model, draft.ids_K, draft.vocab_size, draft.masks)


def read_draft(path: Path, device: torch.device | str = "cpu") -> Draft:
    """The same with its weights as they were trained, float32, not packed."""
    if not path.is_file():
        raise UserError(f"There is no draft model at {path}: train it with python -m backend.train.smollm2_draft.")
    with safe_open(path, framework="pt", device=str(device)) as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    ids_K = state.pop("ids_K").long().cpu()
    model = Llama(LlamaConfig(**json.loads(metadata["config"]))).to(device)
    model.load_state_dict(rounded.from_bytes(state))
    return Draft(model, ids_K, int(metadata["target_vocab"]), int(metadata.get("masks", 0)))
