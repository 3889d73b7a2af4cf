"""Any causal language model of the hub: our lean forward where it knows the architecture, transformers elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor

from backend.codecs.text import TextCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.models.causal import CausalModel
from backend.models.house.llama import SUPPORTED
from backend.models.local import load_llama
from backend.protocols import CausalSession, MixingSession, Prompt
from backend.types import Sampling

PROBE_TOLERANCE = 0.01  # total variation; rounding of bfloat16 stays below


class HubCache:
    """The cache of transformers as rows addressed by slot. All layers keep all rows; masks do the sliding."""

    def __init__(self) -> None:
        from transformers import DynamicCache

        self.inner = DynamicCache()
        self.length = 0
        self.positions_S = torch.empty(0, dtype=torch.long)  # of every row: a guess's slot is not its position

    def truncate(self, length: int) -> None:
        """Forget the rows behind `length`."""
        if length < self.length:
            self._select(slice(0, length))
            self.length = length

    def keep(self, slots: Sequence[int]) -> None:
        """Make the rows of these slots rows 0, 1, ... and forget the others."""
        self._select(torch.tensor(list(slots), dtype=torch.long))
        self.length = len(slots)

    def _select(self, rows: Any) -> None:
        for layer in self.inner.layers:
            if layer.keys is not None:
                layer.keys, layer.values = layer.keys[:, :, rows], layer.values[:, :, rows]
        self.positions_S = self.positions_S[rows]


class HubCausal:
    """A transformers model behind the backbone interface of `TrieSession`."""

    def __init__(self, model: Any) -> None:
        """model: a `PreTrainedModel` with a language-modelling head, in eval mode."""
        self._model = model
        config = model.config.get_text_config()
        self.vocab_size = int(model.get_output_embeddings().weight.shape[0])
        self.context = int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 2048)
        self.device: torch.device = model.device
        self.num_params = sum(p.numel() for p in model.parameters())
        self._kinds = sorted(set(getattr(config, "layer_types", None) or ()))
        self._window = getattr(config, "sliding_window", None)

    def open_cache(self, capacity: int) -> HubCache:
        """An empty cache; it grows as needed, so `capacity` is only a hint."""
        return HubCache()

    @torch.inference_mode()
    def forward_rows(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cache: HubCache,
        visible_NS: Tensor | None = None,
        last: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Backbone.forward_rows`."""
        num, start = len(ids_N), cache.length
        if visible_NS is None:
            visible_NS = torch.ones(num, start + num, dtype=torch.bool, device=self.device).tril(start)
        cache.positions_S = torch.cat((cache.positions_S.to(self.device), positions_N))
        out = self._model(
            **self._inputs(ids_N),
            position_ids=positions_N[None],
            attention_mask=self._masks(visible_NS, cache.positions_S),
            past_key_values=cache.inner,
            use_cache=True,
            output_hidden_states=True,
            logits_to_keep=last or 0,
        )
        cache.length = start + num
        return out.logits[0].float(), out.hidden_states[-1][0]

    @torch.inference_mode()
    def embeddings(self, ids_N: Tensor) -> Tensor:
        """What the model reads of these tokens, [N, C], float32."""
        embedded_NC: Tensor = self._model.get_input_embeddings()(ids_N)
        return embedded_NC.float()

    def _inputs(self, ids_N: Tensor) -> dict[str, Tensor]:
        if ids_N.is_floating_point():
            return {"inputs_embeds": ids_N[None].to(self._model.dtype)}
        return {"input_ids": ids_N[None]}

    def _masks(self, visible_NS: Tensor, positions_S: Tensor) -> Any:
        """Additive masks; one for each kind of layer where the model has several."""
        if not self._kinds and not self._window:
            return self._additive(visible_NS)
        near_NS = visible_NS
        if self._window:
            near_NS = visible_NS & (positions_S[-len(visible_NS) :, None] - positions_S[None] < self._window)
        if not self._kinds:
            return self._additive(near_NS)
        return {k: self._additive(near_NS if "sliding" in k or "chunked" in k else visible_NS) for k in self._kinds}

    def _additive(self, visible_NS: Tensor) -> Tensor:
        zero = torch.zeros(visible_NS.shape, dtype=self._model.dtype, device=self.device)
        return zero.masked_fill(~visible_NS, torch.finfo(self._model.dtype).min)[None, None]


def load_folder(model_id: str, folder: Path, dtype: torch.dtype, device: torch.device) -> CausalModel:
    """The causal model in a folder of the hub's layout: lean where the architecture allows, else transformers.

    Raises UserError if it cannot be loaded, or if its rows do not equal one-by-one decoding (see `probe`).
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        codec = TextCodec.from_folder(folder)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if getattr(config, "quantization_config", None):
            raise UserError(f"{model_id} holds quantised weights, which are not read here; pick the plain checkpoint.")
        if config.model_type in SUPPORTED:
            try:
                llama = load_llama(folder, dtype, device)
                return CausalModel(model_id, llama, codec, llama.num_params)
            except UserError:
                pass  # a variant the lean forward does not know; transformers may
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, attn_implementation="sdpa"
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, TemplateError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise UserError(f"{model_id} cannot be loaded as a causal language model ({reason}); pick another.") from error
    backbone = HubCausal(model.to(device).eval())
    loaded = CausalModel(model_id, backbone, codec, backbone.num_params)
    probe(loaded)
    if not mixes(loaded):
        loaded.speaks -= {MixingSession}
    return loaded


def probe(model: CausalModel) -> None:
    """Compare a tree behind a cache with plain forward passes; raises UserError if they differ.

    Recurrent states, positions counted by slot and windows inside the model break guesses without an error; their
    text would look right and follow another law.
    """
    prompt, tokens, parents = [5, 3, 7, 2, 6, 4], [8, 9, 3, 5, 7, 2], [-1, -1, 0, 0, 1, 2]
    try:
        session = model.open(CausalSession, Prompt(tuple(prompt)), Sampling(temperature=1.0), Meter(), 16)
        session.score(tokens, parents)
        session.commit([8, 5, 6])
        ours = session.score([4, 1], [-1, -1]).p_NV[2]
        theirs = model.open(CausalSession, Prompt((*prompt, 8, 5, 6, 1)), Sampling(temperature=1.0), Meter(), 1).score()
        apart = float((ours - theirs.p_NV[0]).abs().sum()) / 2
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{model.id} does not decode with guesses ({type(error).__name__}); pick another.") from error
    if apart > PROBE_TOLERANCE:
        raise UserError(
            f"{model.id} gives other laws for guesses than for text (total variation {apart:.2g}), so no strategy "
            "would be exact on it; pick a model with plain attention."
        )


def mixes(model: CausalModel) -> bool:
    """Whether embeddings can take the place of tokens: some models read more of a token than its embedding."""
    prompt = Prompt((5, 3, 7, 2))
    try:
        ours = model.open(MixingSession, prompt, Sampling(temperature=1.0), Meter(), 4).blend([6], [1.0]).p_NV[0]
        theirs = model.open(CausalSession, prompt, Sampling(temperature=1.0), Meter(), 4).score([6]).p_NV[1]
    except Exception:
        return False
    return float((ours - theirs).abs().sum()) / 2 < PROBE_TOLERANCE
