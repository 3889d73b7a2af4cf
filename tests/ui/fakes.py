"""A catalog without weights: a random causal table with a word-like vocabulary, so that the UI is tested in seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from backend.catalog import Entry
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import CausalSession, Prompt, Scores
from backend.sampling import distribution
from backend.types import Sampling

HOSTILE = (
    "${alert(1)}",
    "`tick`",
    "<img src=x onerror=alert(1)>",
    "مرحبا",
    "a\u200bb",
    "\u202edrow",
    "\\u0041",
    "{{x}}",
)
WORDS = " the a of and to in is it that river mountain small large model token draft runs, flows. reads writes counts"
PIECES = (*HOSTILE, "\n", *(f" {w}" for w in WORDS.split()), *(f" word{i}" for i in range(160)))


class FakeCodec:
    """Every character of the prompt is a token; every token prints as a word."""

    modality = "text"
    vocabulary = "fake"
    end = frozenset[int]()

    def encode(self, raw: Any) -> Prompt:
        text = raw["text"] if isinstance(raw, dict) else raw
        if not text.strip():
            raise UserError("The prompt is empty; type something to continue.")
        return Prompt(tuple(ord(c) % len(PIECES) for c in text))

    def decode(self, canvas: Sequence[int]) -> str:
        return "".join(PIECES[t] for t in canvas)

    def piece(self, token: int) -> str:
        return PIECES[token]


class FakeSession:
    """The next token's logits are a fixed random function of the last two tokens."""

    def __init__(self, model: FakeModel, tokens: Sequence[int], sampling: Sampling, meter: Meter) -> None:
        self.tokens = list(tokens)
        self._model, self._sampling, self._meter = model, sampling, meter

    def score(self, draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> Scores:
        paths: list[list[int]] = [self.tokens[-2:]]
        for i, token in enumerate(draft):
            paths.append([*paths[i if parents is None else parents[i] + 1], token])
        with self._meter.call(len(paths)):
            time.sleep(self._model.seconds)
            raw = torch.stack([self._model.logits(path) for path in paths])
        if self._model.broken:
            raise UserError(f"{self._model.id} returned numbers that are no probabilities (NaN or infinity).")
        return Scores(distribution(raw, self._sampling, []), raw)

    def commit(self, tokens: Sequence[int]) -> None:
        self.tokens.extend(tokens)


class FakeModel:
    speaks = frozenset[type]({CausalSession})
    codec = FakeCodec()
    num_params = 1_000_000
    context = 8192

    def __init__(self, model_id: str, seconds: float, noise: float, broken: bool = False) -> None:
        self.id, self.seconds, self.broken = model_id, seconds, broken
        base = torch.randn(len(PIECES), len(PIECES), generator=torch.Generator().manual_seed(1)) * 3
        self._table = base + noise * torch.randn(base.shape, generator=torch.Generator().manual_seed(2))

    def logits(self, path: Sequence[int]) -> torch.Tensor:
        shift = path[-2] % 7 if len(path) > 1 else 0
        return self._table[path[-1]].roll(shift)

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> FakeSession:
        return FakeSession(self, prompt.tokens, sampling, meter)


class FakeCatalog:
    """What `backend.catalog.Catalog` offers, for two fake models and one broken one."""

    def __init__(self, seconds: float = 0.0, load_seconds: float = 0.0) -> None:
        self.lock = threading.Lock()
        self._load_seconds = load_seconds
        self._models = {
            "local/fake": FakeModel("local/fake", seconds, 0.0),
            "house/fake-draft": FakeModel("house/fake-draft", seconds / 8, 0.7),
            "house/broken": FakeModel("house/broken", seconds, 0.0, broken=True),
        }
        self._loaded: set[str] = set()

    def entries(self) -> list[Entry]:
        return [
            Entry(model.id, model.id, model.id.split("/")[0], "text", "causal", model.num_params, "A fake.", True)
            for model in self._models.values()
        ]

    def get(self, model_id: str, progress: Callable[[str, float], None] | None = None) -> FakeModel:
        if model_id.partition("@")[0] not in self._models:
            raise UserError(f"There is no model {model_id!r}; pick one of {', '.join(self._models)}.")
        if model_id not in self._loaded:
            for i in range(5):
                if progress:
                    progress(f"reading {model_id}", i / 5)
                time.sleep(self._load_seconds / 5)
            self._loaded.add(model_id)
        return self._models[model_id.partition("@")[0]]

    def loaded(self, model_id: str) -> bool:
        return model_id in self._loaded

    def default_target(self, protocol: type) -> str:
        return "local/fake"

    def default(self, role: str, target: str) -> str:
        return "local/fake" if role == "twin" else "house/fake-draft"

    def sync(self) -> None:
        return None

    def environment(self) -> dict[str, Any]:
        return {"device": "cpu", "cpu": "fake", "cores": 2, "threads": 1, "dtype": "float32", "torch": "2"}

    def describe(self) -> list[dict[str, Any]]:
        return [{"id": entry.id} for entry in self.entries()]
