"""Exact models in float64, small enough that everything about them is known in closed form: tokens, and shared parts.

Models of vectors, pixels and series are in `toys_continuous`.

Each toy is a `Model`. Its sessions count their own calls and rows, apart from the meter, and obey the costs that real
sessions have: nothing is evaluated twice, the prompt is evaluated with the first call. Sessions that were opened are
kept in `model.sessions`, newest last, so that a test can look behind the strategy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import CausalSession, MaskedSession, Prompt, ScaleSession, Scores
from backend.sampling import distribution
from backend.types import Sampling

Law = Callable[[tuple[int, ...]], Sequence[float]]  # the next token's probabilities after a prefix


# ---------------------------------------------------------------------------------------------------- shared pieces
@dataclass(frozen=True)
class ToyCodec:
    """Prompts are digits with blanks between them: "0 1 2"; an empty prompt is refused where the toy needs one."""

    modality: str = "text"
    vocabulary: str = "toy-3"
    end: frozenset[int] = frozenset()
    size: int = 3
    least: int = 1

    def encode(self, raw: Any) -> Prompt:
        """The tokens of the digits, and the raw prompt itself for toys that start from something else."""
        if isinstance(raw, str):
            tokens = tuple(int(word) for word in raw.split())
            if len(tokens) < self.least:
                raise UserError("The prompt is empty; type the digits of some tokens.")
            return Prompt(tokens)
        return Prompt((), {"raw": raw})

    def decode(self, canvas: Sequence[int]) -> str:
        """The digits."""
        return " ".join(map(str, canvas))

    def piece(self, token: int) -> str:
        """The token in angle brackets."""
        return f"<{token}>"


class Counting:
    """Counts of a session's calls and rows, kept beside the meter that the runner reads."""

    def __init__(self, meter: Meter) -> None:
        self.calls = 0
        self.rows = 0
        self._meter = meter

    def charge(self, rows: int) -> None:
        """One forward pass over `rows` positions."""
        with self._meter.call(rows):
            self.calls += 1
            self.rows += rows


class Toy:
    """What all toys share. `make` opens a session: (prompt, sampling, meter, room) -> session."""

    def __init__(self, model_id: str, protocol: type, codec: ToyCodec, context: int = 64) -> None:
        self.id = model_id
        self.protocol = protocol
        self.speaks = frozenset({protocol})
        self.codec = codec
        self.num_params = 1
        self.context = context
        self.sessions: list[Any] = []

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> Any:
        """A session, remembered in `sessions`."""
        assert protocol is self.protocol, (self.id, protocol)
        session = self.make(prompt, sampling, meter, room)
        self.sessions.append(session)
        return session

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> Any:
        """Open a session."""
        raise NotImplementedError


def mix(seed: int, numbers: Sequence[int]) -> int:
    """One number of many; the same in every process."""
    for number in numbers:
        seed = (seed * 1_000_003 + number + 12_345) % (1 << 61)
    return seed


def random_law(seed: int, size: int, zeros: float) -> Tensor:
    """A law over `size` tokens; each but the likeliest is 0 with chance `zeros`."""
    stream = torch.Generator().manual_seed(seed)
    law_V = torch.empty(size, dtype=torch.float64).exponential_(generator=stream)
    gone_V = torch.rand(size, generator=stream, dtype=torch.float64) < zeros
    gone_V[law_V.argmax()] = False
    law_V[gone_V] = 0.0
    return law_V / law_V.sum()


def filtered(law_NV: Tensor, sampling: Sampling, seen: Sequence[Sequence[int]] = ()) -> Tensor:
    """The law through the processors that real sessions use: log p are the logits."""
    return distribution(law_NV.log(), sampling, seen)


# ----------------------------------------------------------------------------------------------------------- causal
class ToyCausal(Toy):
    """A table: the next token's law given the whole text, or its last `order` tokens.

    Args:
        seed: of the table. zeros: chance of a probability 0. like: another toy that this one imitates, half and half
            with its own table, as a draft imitates its target. fixed: a law that no text changes, or a function.
    """

    def __init__(
        self,
        model_id: str = "toy/target",
        seed: int = 1,
        size: int = 3,
        order: int | None = None,
        zeros: float = 0.25,
        end: frozenset[int] = frozenset(),
        like: ToyCausal | None = None,
        fixed: Law | Sequence[float] | None = None,
        context: int = 64,
    ) -> None:
        super().__init__(model_id, CausalSession, ToyCodec("text", f"toy-{size}", end, size), context)
        self.size = size
        self.order = order
        self._seed = seed
        self._zeros = zeros
        self._like = like
        self._fixed = fixed
        self._laws: dict[tuple[int, ...], Tensor] = {}
        self._rows: dict[tuple[tuple[int, ...], Sampling], Tensor] = {}

    def law(self, prefix: Sequence[int]) -> Tensor:
        """p_V after a prefix, temperature 1, no filters: the truth that tests compare with."""
        key = tuple(prefix if self.order is None else prefix[len(prefix) - self.order :])
        if key not in self._laws:
            self._laws[key] = self._make_law(key)
        return self._laws[key]

    def row(self, prefix: Sequence[int], sampling: Sampling) -> Tensor:
        """p_V after a prefix as sessions return it."""
        key = (tuple(prefix), sampling)
        if key not in self._rows:
            self._rows[key] = filtered(self.law(prefix)[None], sampling, [tuple(prefix)])[0]
        return self._rows[key]

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyCausalSession:
        return ToyCausalSession(self, prompt.tokens, sampling, meter, room)

    def _make_law(self, key: tuple[int, ...]) -> Tensor:
        if self._fixed is not None:
            return torch.tensor(self._fixed(key) if callable(self._fixed) else self._fixed, dtype=torch.float64)
        own_V = random_law(mix(self._seed, key), self.size, self._zeros)
        if self._like is None:
            return own_V
        # where the own table has zeros so has the mixture, else the model that is imitated could not be wrong
        mixed_V = torch.where(own_V > 0, (own_V + self._like.law(key)) / 2, 0.0)
        return mixed_V / mixed_V.sum()


class ToyCausalSession(Counting):
    """A causal session on the table; knows which prefixes were evaluated, as a cache of keys and values would.

    Its hidden states are the laws of the table.
    """

    def __init__(
        self, model: ToyCausal, prompt: Sequence[int], sampling: Sampling, meter: Meter, room: int = 1_000
    ) -> None:
        super().__init__(meter)
        self.tokens: list[int] = list(prompt)
        self.scored: list[tuple[int, ...]] = []  # drafts of all calls, for tests that ask what was sent
        self._model = model
        self._sampling = sampling
        self._limit = len(prompt) + room
        self._known: set[tuple[int, ...]] = set()
        self._passed_MV: Tensor | None = None

    def score(self, draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> Scores:
        """See `CausalSession.score`."""
        assert all(0 <= token < self._model.size for token in draft), f"draft {draft} leaves the vocabulary"
        text = tuple(self.tokens)
        paths = [text]
        for i, token in enumerate(draft):
            parent = i - 1 if parents is None else parents[i]
            assert -1 <= parent < i, f"node {i} of {parents} comes before its parent"
            paths.append((*paths[parent + 1], token))
        new = {path[:i] for path in paths for i in range(1, len(path) + 1)} - self._known
        if new:
            if len(text) > 1 and text[:1] not in self._known:
                self._passed_MV = torch.stack([self._model.law(text[:i]) for i in range(1, len(text))])
            self.charge(len(new))
            self._known |= new
        self.scored.append(tuple(draft))
        p_NV = torch.stack([self._model.row(path, self._sampling) for path in paths])
        hidden_NV = torch.stack([self._model.law(path) for path in paths])
        return Scores(p_NV, hidden_NV.log(), hidden_NV, self._passed_MV)

    def commit(self, tokens: Sequence[int]) -> None:
        """See `CausalSession.commit`."""
        self.tokens.extend(tokens)
        assert len(self.tokens) <= self._limit, "committed more than the session was opened for"
        text = tuple(self.tokens)
        self._passed_MV = None
        self._known = {path for path in self._known if path == text[: len(path)]}


# ----------------------------------------------------------------------------------------------------------- masked
class ToyMasked(Toy):
    """A joint table over all canvases of `length` slots: every conditional is exact, whatever is known.

    Where the known slots cannot occur together (an earlier parallel guess went wrong) the law is even.
    """

    def __init__(
        self, model_id: str = "toy/masked", seed: int = 3, length: int = 3, size: int = 3, zeros: float = 0.25
    ) -> None:
        super().__init__(model_id, MaskedSession, ToyCodec("image", f"toy-{size}", size=size, least=0), length)
        self.length = length
        self.size = size
        canvases = size**length
        self.joint = random_law(seed, canvases, zeros).reshape([size] * length)
        self._rows: dict[tuple[tuple[int, ...], Sampling], Tensor] = {}

    def given(self, canvas_L: Sequence[int]) -> Tensor:
        """p_LV: the marginal of every slot given the known ones; known slots are one-hot."""
        at = tuple(slice(None) if token < 0 else slice(token, token + 1) for token in canvas_L)
        joint = torch.zeros_like(self.joint)
        joint[at] = self.joint[at]
        if joint.sum() == 0:
            joint[at] = 1.0
        rows = []
        for slot, token in enumerate(canvas_L):
            row_V = joint.movedim(slot, 0).reshape(self.size, -1).sum(1) / joint.sum()
            rows.append(row_V if token < 0 else torch.eye(self.size, dtype=torch.float64)[token])
        return torch.stack(rows)

    def rows(self, canvas_L: Sequence[int], sampling: Sampling) -> Tensor:
        """p_LV as sessions return it."""
        key = (tuple(canvas_L), sampling)
        if key not in self._rows:
            self._rows[key] = filtered(self.given(canvas_L), sampling, [[]] * len(canvas_L))
        return self._rows[key]

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyMaskedSession:
        return ToyMaskedSession(self, prompt.tokens, sampling, meter)


class ToyMaskedSession(Counting):
    """A masked session on the joint table."""

    def __init__(self, model: ToyMasked, given: Sequence[int], sampling: Sampling, meter: Meter) -> None:
        super().__init__(meter)
        self.canvas_L: Sequence[int] = (*given, *[-1] * (model.length - len(given)))
        self._model = model
        self._sampling = sampling

    def denoise(self, canvas_L: Sequence[int]) -> Tensor:
        """See `MaskedSession.denoise`."""
        assert len(canvas_L) == self._model.length
        self.charge(len(canvas_L))
        return self._model.rows(canvas_L, self._sampling)


# ------------------------------------------------------------------------------------------------------------ scale
class ToyScale(Toy):
    """Maps written coarse to fine: a joint table for each map given all coarser ones.

    Without partial knowledge the slots of a map are drawn from their marginals, each for itself; that is the law of
    such models. With `partial_N` the laws are conditionals of the joint.
    """

    def __init__(
        self,
        model_id: str = "toy/scale",
        seed: int = 5,
        sizes: Sequence[tuple[int, int]] = ((1, 1), (1, 2), (2, 2)),
        size: int = 2,
        zeros: float = 0.2,
    ) -> None:
        slots = sum(h * w for h, w in sizes)
        super().__init__(model_id, ScaleSession, ToyCodec("image", f"toy-{size}", size=size, least=0), slots)
        self.sizes = tuple(sizes)
        self.size = size
        self._seed = seed
        self._zeros = zeros
        self._tables: dict[tuple[int, ...], ToyMasked] = {}

    def table(self, coarser: Sequence[int], at: int) -> ToyMasked:
        """The joint table of scale `at` given all tokens of coarser scales."""
        h, w = self.sizes[at]
        if (at, *coarser) not in self._tables:
            seed = mix(self._seed, coarser)
            self._tables[at, *coarser] = ToyMasked(seed=seed, length=h * w, size=self.size, zeros=self._zeros)
        return self._tables[at, *coarser]

    def given(self, coarser: Sequence[int], at: int, partial_N: Sequence[int] | None = None) -> Tensor:
        """p_NV of the slots of scale `at` given all tokens of coarser scales and the known ones of this one."""
        table = self.table(coarser, at)
        return table.given(partial_N if partial_N is not None else [-1] * table.length)

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyScaleSession:
        assert not prompt.tokens, "this toy writes whole images"
        return ToyScaleSession(self, sampling, meter)


class ToyScaleSession(Counting):
    """A scale session on the tables. `written` holds everything committed, coarse to fine."""

    def __init__(self, model: ToyScale, sampling: Sampling, meter: Meter) -> None:
        super().__init__(meter)
        self.sizes = model.sizes
        self.at = 0
        self.written: list[int] = []
        self._model = model
        self._sampling = sampling

    def score(self) -> Tensor:
        """See `ScaleSession.score`."""
        return self.told()

    def told(self, partial_N: Sequence[int] | None = None) -> Tensor:
        """p_NV of the current scale given the known ones of its tokens, for one call."""
        table = self._model.table(self.written, self.at)
        self.charge(table.length)
        return table.rows(partial_N if partial_N is not None else [-1] * table.length, self._sampling)

    def commit(self, tokens_N: Sequence[int]) -> None:
        """See `ScaleSession.commit`."""
        h, w = self.sizes[self.at]
        assert len(tokens_N) == h * w
        self.written.extend(tokens_N)
        self.at += 1


# ---------------------------------------------------------------------------------------------------------- catalog
@dataclass
class ToyCatalog:
    """The part of `catalog.Catalog` that the runner uses, over toys. partners: model id by role, for the default."""

    models: Sequence[Toy]
    partners: dict[str, str] = field(default_factory=dict)

    def entries(self) -> list[Toy]:
        """All toys."""
        return list(self.models)

    def get(self, model_id: str, progress: Callable[[str, float], None] | None = None) -> Toy:
        """The toy of that id."""
        for model in self.models:
            if model.id == model_id:
                return model
        raise UserError(f"There is no model {model_id!r}; pick one of {', '.join(m.id for m in self.models)}.")

    def default_target(self, protocol: type) -> str:
        """The first toy of the protocol."""
        return next(model.id for model in self.models if protocol in model.speaks)

    def default(self, role: str, target: str) -> str:
        """The partner for the role."""
        if role not in self.partners:
            raise UserError(f"There is no default model for the role '{role}' beside {target}; name one.")
        return self.partners[role]

    def sync(self) -> None:
        """Nothing to wait for."""

    def environment(self) -> dict[str, Any]:
        """What a trace says about the machine."""
        return {"device": "table", "dtype": "float64"}


def causal_pair(
    size: int = 3, seed: int = 1, kind: type[ToyCausal] = ToyCausal, **options: Any
) -> tuple[ToyCausal, ToyCausal]:
    """A target, of that kind, and a draft that imitates it; options go to both."""
    target = kind("toy/target", seed=seed, size=size, **options)
    return target, ToyCausal("toy/draft", seed=seed + 1_000, size=size, like=target, **options)


def canvases(size: int, length: int) -> list[tuple[int, ...]]:
    """Every canvas of that length."""
    return list(itertools.product(range(size), repeat=length))
