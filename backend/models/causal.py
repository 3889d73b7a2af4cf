"""A causal language model as the catalog hands it out: a backbone, a codec, and sessions over them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from backend.errors import UserError
from backend.meter import Meter
from backend.models.extended import Mixer, MixingTrie, SkippingTrie
from backend.models.fleet import Fleet
from backend.models.house.blocks import BlockChain, BlockDraft
from backend.models.house.draft import Draft
from backend.models.house.llama import Llama
from backend.models.house.nested import NestedChain, NestedDraft
from backend.models.house.two_level import TwoLevelDecoder
from backend.models.session import Backbone, TrieSession
from backend.models.two_level import TwoLevelTrie
from backend.protocols import (
    BlockSession,
    CausalSession,
    FleetSession,
    MixingSession,
    NestedSession,
    Prompt,
    SkippingSession,
    TwoLevelSession,
)
from backend.types import Sampling

if TYPE_CHECKING:
    from backend.codecs.text import TextCodec
    from backend.models.house.cache import KVCache
    from backend.models.house.raster import Raster


SESSIONS: Mapping[type, tuple[type, type]] = {  # by protocol: its sessions, what their backbone can do
    CausalSession: (TrieSession, object),
    SkippingSession: (SkippingTrie, Llama),
    MixingSession: (MixingTrie, Mixer),
    FleetSession: (Fleet, Llama),
    NestedSession: (NestedChain, NestedDraft),
    BlockSession: (BlockChain, BlockDraft),
    TwoLevelSession: (TwoLevelTrie, TwoLevelDecoder),
}


class CausalModel:
    """Loaded weights behind the causal protocol and its extensions. Shared by all sessions, never written."""

    def __init__(self, model_id: str, backbone: Backbone, codec: TextCodec, num_params: int) -> None:
        self.id = model_id
        self.backbone = backbone
        self.codec = codec
        self.num_params = num_params
        self.context = backbone.context
        self.speaks = frozenset(p for p, (_, needs) in SESSIONS.items() if isinstance(backbone, needs))
        self._vocab_size = min(backbone.vocab_size, codec.size)  # heads are often padded beyond the tokenizer

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> Any:
        """A session on the prompt. Raises UserError if the prompt has tokens that the model does not know."""
        assert protocol in self.speaks, protocol
        size = self._vocab_size
        unknown = [token for token in prompt.tokens if not 0 <= token < size]
        if unknown or not prompt.tokens:
            raise UserError(
                f"{self.id} knows tokens 0 to {size - 1}, but the prompt holds {unknown[:1] or 'none at all'}."
            )
        session, _ = SESSIONS[protocol]
        if protocol is FleetSession:
            return session(self.backbone, self.id, size, prompt.texts, sampling, meter)
        if len(prompt.texts) > 1:
            raise UserError(
                f"{len(prompt.texts)} prompts were given, but this strategy writes one text; "
                "give one prompt, or pick temporal_fusion."
            )
        return session(self.backbone, self.id, size, prompt.tokens, sampling, meter, room)


class SomeLayers:
    """A backbone that runs only some layers of another: its twin for self-speculation. Shares the weights."""

    def __init__(self, llama: Llama | Draft | Raster, layers: Sequence[int]) -> None:
        """layers: numbers of the layers that run, ascending."""
        self._llama = llama
        self.layers = tuple(layers)
        self.vocab_size = llama.vocab_size
        self.context = llama.context
        self.device = llama.device
        self.ids_K = llama.ids_K if isinstance(llama, Draft) else None

    def open_cache(self, capacity: int) -> KVCache:
        """A cache of its own: skipped layers leave other keys and values behind."""
        return self._llama.open_cache(capacity)

    def forward_rows(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cache: KVCache,
        visible_NS: Tensor | None = None,
        last: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Backbone.forward_rows`."""
        return self._llama.forward_rows(ids_N, positions_N, cache, visible_NS, last, self.layers)


def pick_layers(variant: str, num_layers: int, model_id: str) -> list[int]:
    """Layers that a twin runs.

    "exit8" means the first 8, "skip10" all but 10 spread over the middle, "skip" all but a third of them, and
    "skip3-5-9" all but those three. Raises UserError for anything else.
    """
    if re.fullmatch(r"exit[0-9]{1,3}", variant) and 1 <= int(variant[4:]) < num_layers:
        return list(range(int(variant[4:])))
    if re.fullmatch(r"skip[0-9]{0,3}", variant):
        count = int(variant[4:] or num_layers // 3)
        if 1 <= count <= num_layers - 2:
            gone = {round(1 + (i + 0.5) * (num_layers - 2) / count - 0.5) for i in range(count)}
            return [i for i in range(num_layers) if i not in gone]
    if re.fullmatch(r"skip[0-9]{1,3}(-[0-9]{1,3})+", variant):
        named = [int(part) for part in variant[4:].split("-")]
        if max(named) < num_layers and len(set(named)) == len(named) < num_layers:
            return [i for i in range(num_layers) if i not in named]
    raise UserError(
        f"{model_id} has {num_layers} layers and no twin '{variant}'; "
        "write exitN for its first N layers, skipN to leave out N of them, or skip3-5-9 to name them."
    )


def cpu_has_amx() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in tiles, which makes bfloat16 the faster type."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
