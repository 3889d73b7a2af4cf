"""What the benchmarks of all tabs share: prompts, lanes that can be timed on them, and measuring them in turn.

A lane is written as a strategy with what is set of it, `spectr:drafts=8:gamma=4`; the names of its roles set models, as
in `speculative:draft=house/smollm2-draft`.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from backend.catalog import ASSETS, Catalog
from backend.chance import Ask, Seeded
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import CausalSession
from backend.registry import find
from backend.run import decode
from backend.trace import Trace
from backend.types import Request, Sampling

PROMPTS = ASSETS / "prompts.jsonl"
BASELINE = "autoregressive"
BARE = "bare loop"


@dataclass(frozen=True)
class Prompted:
    """A prompt of the set, and what kind of task it is."""

    text: str
    kind: str


@dataclass(frozen=True)
class Timed:
    """One prompt through one lane: new tokens, seconds, and the trace where the lane is ours.

    wall: from the prompt as text to the finished trace, which is what a peer's own call is compared with. seconds: of
    the steps alone, which is what our lanes are compared by. calls: seconds in model calls.
    """

    tokens: tuple[int, ...]
    seconds: float
    wall: float
    trace: Trace | None = None
    calls: float = 0.0


class Lane(Protocol):
    """Something that can be timed on a prompt."""

    @property
    def name(self) -> str: ...

    @property
    def peer(self) -> str | None: ...

    @property
    def dtype(self) -> str: ...

    def run(self, prompt: Prompted, seed: int) -> Timed: ...


@dataclass
class OurLane:
    """A strategy of this project; its name may set knobs and models, as in `spectr:drafts=8:gamma=4`.

    model: id of the target, where the name sets none. budget: new tokens; None: as many as the target can hold.
    """

    name: str
    catalog: Catalog
    model: str
    sampling: Sampling
    budget: int | None
    draft: str | None = None
    peer: str | None = None

    @property
    def dtype(self) -> str:
        return self.catalog.dtype

    def run(self, prompt: Prompted, seed: int) -> Timed:
        """Decode the prompt."""
        request = self.request(prompt.text, seed)
        start = time.perf_counter()
        with decode(request, self.catalog) as run:
            for _ in run:
                pass
            trace = run.trace
            wall = time.perf_counter() - start
        calls = sum(sum(step.spent.values()) for step in trace.steps)
        return Timed(tuple(trace.written()), sum(step.seconds for step in trace.steps), wall, trace, calls)

    def request(self, prompt: str, seed: int) -> Request:
        """What the lane asks of a prompt."""
        strategy_id, knobs = read_lane(self.name)
        models = {"target": self.model}
        if self.draft and "draft" in find(strategy_id).roles:
            models["draft"] = self.draft
        models |= read_models(self.name)
        budget = self.catalog.get(models["target"]).context if self.budget is None else self.budget
        return Request(strategy_id, prompt, models, knobs, self.sampling, budget, seed)


@dataclass
class BareLane:
    """Plain decoding without runner, steps, marks or trace: what those are measured against."""

    catalog: Catalog
    model: str
    sampling: Sampling
    budget: int
    name: str = BARE
    peer: str | None = None

    @property
    def dtype(self) -> str:
        return self.catalog.dtype

    def run(self, prompt: Prompted, seed: int) -> Timed:
        """Decode the prompt."""
        start = time.perf_counter()
        model, meter = self.catalog.get(self.model), Meter(self.catalog.sync)
        encoded = model.codec.encode(prompt.text)
        session = model.open(CausalSession, encoded, self.sampling, meter, self.budget)
        ask = Ask(self.budget, Seeded(seed), model.codec.end)
        while ask.open:
            slot = len(session.tokens)
            session.commit(ask.take([ask.chance.pick(session.score().p_NV[0], slot)]))
        wall = time.perf_counter() - start
        return Timed(tuple(session.tokens[len(encoded.tokens) :]), wall, wall, calls=meter.seconds)


def read_lane(name: str) -> tuple[str, dict[str, Any]]:
    """Strategy and knobs that a lane's name sets. Raises UserError for a knob that is unknown or no value of its kind.

    >>> read_lane("spectr:drafts=8")
    ('spectr', {'drafts': 8})
    """
    strategy_id, *parts = name.split(":")
    options, knobs = find(strategy_id).knobs, dict[str, Any]()
    for knob, _, text in (part.partition("=") for part in parts):
        if knob in find(strategy_id).roles:
            continue
        if knob not in options:
            raise UserError(f"{strategy_id} has no knob {knob!r}; its knobs are: {', '.join(options) or 'none'}.")
        try:
            kind = options[knob].kind
            knobs[knob] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError) as error:
            raise UserError(f"{knob} of {strategy_id} cannot be {text!r}.") from error
    find(strategy_id).settle(knobs)
    return strategy_id, knobs


def read_models(name: str) -> dict[str, str]:
    """Model ids by role that a lane's name sets.

    >>> read_models("speculative:gamma=4:target=house/portraits@cfg=3")
    {'target': 'house/portraits@cfg=3'}
    """
    strategy_id, *parts = name.split(":")
    set_here = (part.partition("=") for part in parts)
    return {role: model_id for role, _, model_id in set_here if role in find(strategy_id).roles}


def read_prompts(source: str, kinds: Sequence[str] = (), shipped: Path = PROMPTS) -> list[Prompted]:
    """N shipped prompts, spread over all kinds, or all of a JSONL file of lines with a `prompt`. Raises UserError."""
    path = shipped if source.isdigit() else Path(source)
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        prompts = [Prompted(str(line["prompt"]), str(line.get("kind", "prompt"))) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as JSON lines with a field 'prompt' ({error}).") from error
    prompts = [prompt for prompt in prompts if not kinds or prompt.kind in kinds]
    if source.isdigit():
        count = min(int(source), len(prompts))
        if not count and prompts:
            raise UserError("The number of prompts must be at least 1, but 0 was given.")
        prompts = [prompts[i * len(prompts) // count] for i in range(count)]  # spread over all kinds
    if not prompts:
        raise UserError(f"{path} holds no prompt of the kinds asked for; leave out --kinds to take all.")
    return prompts


def measure(
    lanes: Sequence[Lane],
    prompts: Sequence[Prompted],
    repeats: int,
    tell: Callable[[str], None],
    warm: bool = True,
) -> dict[str, list[list[Timed]]]:
    """Results by lane name: a list a repeat, an entry a prompt.

    warm: run each lane on the first prompt before, untimed; False where that was done.
    """
    results: dict[str, list[list[Timed]]] = {lane.name: [] for lane in lanes}
    for lane in lanes if warm else ():
        tell(f"warming up {lane.name}")
        lane.run(prompts[0], seed=0)
    for repeat in range(repeats):
        for lane in lanes:
            results[lane.name].append([])
        for i, prompt in enumerate(prompts):
            tell(f"repeat {repeat + 1} of {repeats}, prompt {i + 1} of {len(prompts)}")
            shift = (i + repeat) % len(lanes)
            for lane in [*lanes[shift:], *lanes[:shift]]:  # every lane gets every place in the order
                results[lane.name][repeat].append(lane.run(prompt, seed=i))
    return results


def quartiles(values: Sequence[float]) -> list[float]:
    """The first and the third."""
    if len(values) < 2:
        return [values[0], values[0]]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [low, high]
