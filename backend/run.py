"""From a request to stamped steps: open the sessions, run the strategy, count what it cost.

`decode(request)` yields steps and keeps the trace that they make; `record(request)` runs it to the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from types import TracebackType
from typing import cast

import torch

from backend.catalog import Catalog, default_catalog
from backend.chance import Ask, Seeded
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import PROTOCOL_NAMES, Model, Prompt
from backend.registry import Strategy, compatible, find
from backend.trace import Trace
from backend.types import Request, Step

MAX_BUDGET = 4096
COLDEST = 0.001  # the smallest temperature that is not 0
LIMITS = {  # field of Sampling: lowest, highest
    "temperature": (0.0, 5.0),
    "top_k": (0, 1_000_000),
    "top_p": (1e-6, 1.0),
    "min_p": (0.0, 0.999),
    "repetition_penalty": (0.5, 2.0),
}


class Run(Iterator[Step]):
    """One decode under way. Iterate for steps; `trace` holds everything up to the last one.

    Close it (or leave its `with` block) to stop early: the strategy ends at once and the sessions are freed.
    """

    def __init__(
        self, request: Request, catalog: Catalog, progress: Callable[[str, float], None] | None = None
    ) -> None:
        """Check the request, load the models and open the sessions. Raises UserError where that cannot be done.

        progress: told what is being loaded and how far it is, from 0 to 1.
        """
        strategy = find(request.strategy)
        knobs = strategy.settle(request.knobs)
        _check(request)
        ids = _resolve(strategy, request, catalog)
        with _memory_errors(request):
            models = {role: catalog.get(model_id, progress) for role, model_id in ids.items()}
            _check_models(strategy, models)
            target = models["target"]
            prompt = target.codec.encode(request.prompt)
            _check_room(max(map(len, prompt.texts)), request.budget // len(prompt.texts), models)
            self._meters = {role: Meter(catalog.sync) for role in models}
            sessions = {
                role: model.open(strategy.roles[role], prompt, request.sampling, self._meters[role], request.budget)
                for role, model in models.items()
            }
        self._catalog = catalog
        self._codec = target.codec
        self._ask = Ask(request.budget, Seeded(request.seed), target.codec.end)
        self._steps = cast(Generator[Step, None, None], strategy.run(**sessions, ask=self._ask, **knobs))
        self._pieces = {token: target.codec.piece(token) for token in prompt.tokens}
        self._stamped: list[Step] = []
        self._counts: dict[str, tuple[int, int, float]] = {}
        self._trace = Trace(
            request=replace(request, models=ids, knobs=knobs),
            prompt=prompt.tokens,
            pieces=self._pieces,
            environment=catalog.environment(),
            scale=_scale_of(prompt),
        )
        self._end = ""

    @property
    def trace(self) -> Trace:
        """Everything so far, as a value."""
        return replace(self._trace, steps=tuple(self._stamped), pieces=dict(self._pieces), end=self._end)

    @property
    def text(self) -> object:
        """What was written so far, decoded: a string for text."""
        return self._codec.decode(self.trace.written())

    def __next__(self) -> Step:
        if self._end:
            raise StopIteration
        start = time.perf_counter()
        try:
            with _memory_errors(self._trace.request):
                step = next(self._steps)
        except StopIteration:
            self._end = self._natural_end()
            raise
        except UserError as error:
            self._end = f"error: {error}"
            self._steps.close()
            raise
        except Exception as error:  # our bug: the trace must not look complete
            self._end = f"error: {type(error).__name__}: {error}"
            raise
        self._catalog.sync()
        stamped = self._stamp(step, time.perf_counter() - start)
        self._stamped.append(stamped)
        return stamped

    def close(self) -> None:
        """Stop. Steps taken so far stay in the trace."""
        self._steps.close()
        self._end = self._end or ("stopped" if self._ask.open else self._natural_end())

    def _natural_end(self) -> str:
        return "end token" if self._ask.ended else "budget"

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _all_meters(self) -> Iterator[tuple[str, Meter]]:
        for role, meter in self._meters.items():
            yield role, meter
            yield from ((f"{role}.{name}", part) for name, part in meter.parts.items())

    def _stamp(self, step: Step, seconds: float) -> Step:
        calls, rows, spent = {}, {}, {}
        for role, meter in self._all_meters():
            before = self._counts.get(role, (0, 0, 0.0))
            self._counts[role] = (meter.calls, meter.rows, meter.seconds)
            calls[role] = meter.calls - before[0]
            rows[role] = meter.rows - before[1]
            spent[role] = meter.seconds - before[2]
        for mark in step.marks:
            for token in (mark.token, *(token for token, _ in mark.options)):
                if token is not None and token not in self._pieces:
                    self._pieces[token] = self._codec.piece(token)
        figures = {**step.figures, **(step.measure() if step.measure else {})}
        stamps = replace(step, index=len(self._stamped), calls=calls, rows=rows, seconds=seconds, spent=spent)
        return replace(stamps, figures=figures, measure=None)


def decode(
    request: Request, catalog: Catalog | None = None, progress: Callable[[str, float], None] | None = None
) -> Run:
    """Start a decode; iterate over the result for its steps.

    >>> for step in decode(Request("speculative", "Name three rivers.")): ...  # doctest: +SKIP
    """
    return Run(request, catalog or default_catalog(), progress)


def record(request: Request, catalog: Catalog | None = None) -> Trace:
    """Run a request to its end and return the trace. Raises UserError where it cannot run."""
    with decode(request, catalog) as run:
        for _ in run:
            pass
        return run.trace


def _check(request: Request) -> None:
    if type(request.budget) is not int or not 1 <= request.budget <= MAX_BUDGET:
        raise UserError(
            f"The budget must lie between 1 and {MAX_BUDGET} new tokens, cells or steps, but {request.budget!r} "
            "was asked for."
        )
    if type(request.seed) is not int or not 0 <= request.seed < 1 << 32:
        raise UserError(f"The seed must be a whole number from 0 to 2^32 - 1, but {request.seed!r} was given.")
    for name, (low, high) in LIMITS.items():
        value = getattr(request.sampling, name)
        kinds = (int,) if name == "top_k" else (int, float)
        if type(value) not in kinds or not low <= value <= high:
            raise UserError(f"{name} must lie between {low} and {high}, but {value!r} was given.")
    if 0 < request.sampling.temperature < COLDEST:
        raise UserError(f"temperature must be 0 or at least {COLDEST}, but {request.sampling.temperature!r} was given.")


def _resolve(strategy: Strategy, request: Request, catalog: Catalog) -> dict[str, str]:
    unknown = [role for role in request.models if role not in strategy.roles]
    if unknown:
        raise UserError(f"{strategy.id} has no model role {unknown[0]!r}; its roles are: {', '.join(strategy.roles)}.")
    for role, model_id in request.models.items():
        if not isinstance(model_id, str):
            raise UserError(f"The {role} must be the id of a model, but {model_id!r} was given.")
    target = request.models.get("target") or catalog.default_target(strategy.protocol)
    try:
        return {
            role: target if role == "target" else request.models.get(role) or catalog.default(role, target)
            for role in strategy.roles
        }
    except UserError:
        _check_models(strategy, {"target": catalog.get(target)})  # a wrong target says more than a missing partner
        raise


def _check_models(strategy: Strategy, models: dict[str, Model]) -> None:
    target = models["target"]
    for role, model in models.items():
        if strategy.roles[role] not in model.speaks:
            wanted = PROTOCOL_NAMES[strategy.roles[role]]
            spoken = ", ".join(PROTOCOL_NAMES[p] for p in model.speaks)
            others = ", ".join(s.id for s in compatible(model.speaks)) or "none yet"
            raise UserError(
                f"{strategy.id} needs a {wanted} model as {role}, but {model.id} speaks {spoken}; "
                f"strategies for that model: {others}."
            )
        if model.codec.vocabulary != target.codec.vocabulary:
            raise UserError(
                f"{model.id} cannot be the {role} of {target.id} because their tokenizers differ; "
                f"pick a {role} with the tokenizer of {target.id}."
            )


def _scale_of(prompt: Prompt) -> dict[str, float]:
    """What the numbers of a series are written in, so that its trace can be read without its model."""
    scale = prompt.extras.get("scale")
    if scale is None:
        return {}
    length = len(prompt.extras["context"])
    return {"location": scale.location, "spread": scale.spread, "bent": float(scale.bent), "context": float(length)}


def _check_room(num_prompt: int, budget: int, models: dict[str, Model]) -> None:
    for model in models.values():
        if num_prompt + budget > model.context:
            raise UserError(
                f"The prompt has {num_prompt} tokens and the budget is {budget}, but {model.id} holds {model.context} "
                f"in all; shorten the prompt or the budget by {num_prompt + budget - model.context}."
            )


class _memory_errors:  # noqa: N801 - reads as a statement
    """Turn running out of memory into a sentence."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        short = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
            isinstance(error, RuntimeError) and "memory" in str(error) and "alloc" in str(error)
        )
        if short:
            model = self._request.models.get("target", "the default model")
            raise UserError(
                f"{self._request.strategy} on {model} ran out of memory; lower the budget or pick a smaller model."
            ) from error
