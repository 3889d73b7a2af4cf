"""Model ids to loaded models: local and house weights, hub checkpoints, and variants of each that share its weights.

Ids: `local/<name>`, `house/<name>`, `hub/<owner>/<name>`; `<id>@exitN` or `<id>@skipN` for a twin that runs only some
layers of <id>; `<id>@cfg=S` for a model of pictures under guidance of scale S (convention A: 1 is none), which may be a
twin; and `house/portraits-weak@refine=W` for guidance beyond what its net can do. Loading is lazy, once, under a lock.

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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from backend import forecasters, painters
from backend.codecs.of_models import style_of_model
from backend.codecs.styles import PIXEL
from backend.entries import ASSETS as ASSETS
from backend.entries import BLOCKS as BLOCKS
from backend.entries import COARSE as COARSE
from backend.entries import CODEC as CODEC
from backend.entries import DRAFT as DRAFT
from backend.entries import EAGLE as EAGLE
from backend.entries import EVENTS as EVENTS
from backend.entries import FLEX as FLEX
from backend.entries import FORECASTERS as FORECASTERS
from backend.entries import FRACAST as FRACAST
from backend.entries import HEADS as HEADS
from backend.entries import HUB as HUB
from backend.entries import JUDGE as JUDGE
from backend.entries import LOCAL as LOCAL
from backend.entries import MASKED as MASKED
from backend.entries import OUTSIDE as OUTSIDE
from backend.entries import PAINTERS as PAINTERS
from backend.entries import PORTRAITS as PORTRAITS
from backend.entries import REFINERS as REFINERS
from backend.entries import SCALES as SCALES
from backend.entries import SORTED as SORTED
from backend.entries import STORE as STORE
from backend.entries import STUDENT as STUDENT
from backend.entries import TALES as TALES
from backend.entries import VERIFIER as VERIFIER
from backend.entries import WEAK as WEAK
from backend.entries import Entry as Entry
from backend.entries import builds, card, entries, preferred
from backend.errors import UserError
from backend.models.causal import CausalModel, SomeLayers, cpu_has_amx, pick_layers
from backend.models.local import PACKAGE
from backend.protocols import (
    PROTOCOL_NAMES,
    CausalSession,
    MaskedSession,
    Model,
    RedrawingSession,
    ScaleSession,
    TwoLevelSession,
    base,
)

Progress = Callable[[str, float], None]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HUB_ID = re.compile(r"hub/[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
TWIN = "skip"  # what self-speculation drafts with by default: a third of the layers left out


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
        return entries()

    def default_target(self, protocol: type) -> str:
        """The model to use where none is named."""
        if protocol is TwoLevelSession:
            return "house/tales-block"
        if base(protocol) is CausalSession:
            return LOCAL if importlib.util.find_spec(PACKAGE) else HUB
        if base(protocol) is MaskedSession:
            return preferred(MASKED)
        if protocol in painters.TARGETS:
            return painters.TARGETS[protocol]
        if protocol in forecasters.TARGETS:
            return forecasters.TARGETS[protocol]
        if base(protocol) is ScaleSession:
            return "house/portraits-redraw" if protocol is RedrawingSession else FLEX
        raise UserError(f"There is no {PROTOCOL_NAMES[protocol]} model yet; name one under the role 'target'.")

    def default(self, role: str, target: str) -> str:
        """The model that usually plays a role beside a target. Raises UserError if there is none."""
        whole, scale = target.partition("@")[0], painters.GUIDANCE.search(target)
        guidance = scale.group() if scale else ""
        if whole in FORECASTERS or whole in EVENTS or whole in OUTSIDE:
            return forecasters.partner(role, whole)
        if role == "twin":
            return f"{whole}@{TWIN}{guidance}"
        style = style_of_model(whole)
        if role == "verifier" and (whole in PORTRAITS or whole in PAINTERS) and style == PIXEL:
            return VERIFIER
        if role == "feature_draft" and whole == painters.PAINTER:
            return EAGLE
        if role == "refiner" and whole in REFINERS:
            return f"{REFINERS[whole]}{guidance}"
        if whole in TALES or whole in PORTRAITS or whole in PAINTERS or whole in SCALES:
            if role == "draft" and whole not in PAINTERS and whole not in SCALES:
                # also of a guided model: guided itself, at 3, twice as many of its guesses are refused
                painter = painters.PAINTER if style == PIXEL else f"house/{style}"
                return f"{painter}-draft" if whole in PORTRAITS else "house/tales-draft"
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
        base, at, variant = model_id.rpartition("@")
        if at and variant.startswith("refine"):
            return painters.load_refined(model_id, base, self._shelf(progress))
        if at and variant.startswith("cfg"):
            return painters.load_guided(model_id, base, self._shelf(progress))
        if at:
            return self._load_twin(model_id, base, variant, progress)
        if model_id == LOCAL:
            return self._load_local(progress)
        if model_id in (DRAFT, SORTED, BLOCKS):
            return self._load_draft(model_id)
        if model_id in TALES:
            return self._load_tales(model_id)
        if model_id in painters.OURS:
            return painters.load(model_id, self._shelf(progress))
        if model_id in FORECASTERS or model_id in EVENTS or model_id == FRACAST:
            return forecasters.load(model_id, self.device)
        if model_id == STORE:
            return self._load_store()
        if model_id == JUDGE:
            return self._load_judge()
        if model_id in HEADS.values():
            return self._load_heads(model_id, progress)
        if HUB_ID.fullmatch(model_id):
            from backend.models.hub.loading import load

            return load(model_id, DTYPES[self.dtype], self.device, progress)
        known = ", ".join(entry.id for entry in self.entries())
        raise UserError(f"There is no model {model_id!r}; pick one of {known}, or any hub/<owner>/<name>.")

    def _shelf(self, progress: Progress) -> painters.Shelf:
        """What painters are loaded with."""
        return painters.Shelf(ASSETS, DTYPES[self.dtype], self.device, lambda model_id: self.get(model_id, progress))

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
            raise UserError(f"{model_id} is not in assets/house; build it with: {builds(model_id)}")
        kind = {DRAFT: Draft, SORTED: NestedDraft, BLOCKS: BlockDraft}[model_id]
        draft = load_draft(path, DTYPES[self.dtype], self.device, self._draft_in_bytes, kind)
        return CausalModel(model_id, draft, TextCodec.from_folder(CODEC), draft.num_params)

    def _load_tales(self, model_id: str) -> Model:
        from backend.codecs.text import TextCodec
        from backend.models.house.own import load_own

        path = ASSETS / f"{model_id}.safetensors"
        if not path.exists():
            raise UserError(f"{model_id} is not in assets/house; build it with: {builds(model_id)}")
        model = load_own(path, DTYPES[self.dtype], self.device, card("house/tales-twin").get("config"))
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
        from backend.models.house.raster import Raster
        from backend.models.raster import RasterModel

        whole = self.get(base, progress)
        if not isinstance(whole, CausalModel | RasterModel) or not isinstance(whole.backbone, Llama | Draft | Raster):
            raise UserError(f"{base} cannot run only some of its layers; twins need a Llama-family model.")
        llama = whole.backbone.model if isinstance(whole.backbone, Draft) else whole.backbone
        twin = SomeLayers(whole.backbone, pick_layers(variant, llama.config.num_layers, base))
        if isinstance(whole, RasterModel):
            return RasterModel(model_id, twin, whole.codec, whole.num_params)
        return CausalModel(model_id, twin, whole.codec, whole.num_params)

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
