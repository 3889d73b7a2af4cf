"""The public endpoints: few, typed, stable. Everything else that the page calls is private."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gradio as gr

from backend.registry import strategies
from backend.types import Request, Sampling
from demos.parts.lab import DEVICE, WAITING_ROOM, Lab
from demos.parts.race import Race

MAX_LANES = 4


def mount(lab: Lab) -> None:
    """Add the endpoints to the page under construction."""

    def list_strategies() -> list[dict]:  # type: ignore[type-arg]
        """All strategies: id, title, protocol, roles, knobs with ranges, guarantee, paper, family, what it does."""
        return [s.describe() for s in strategies().values()]

    def list_models() -> list[dict]:  # type: ignore[type-arg]
        """The models that are offered here. Any hub/<owner>/<name> of a causal language model works too."""
        return lab.catalog().describe()

    def health() -> dict:  # type: ignore[type-arg]
        """Whether the server is up, what it runs on, which models are in memory, how many races wait."""
        catalog = lab.catalog()
        loaded = [entry.id for entry in catalog.entries() if catalog.loaded(entry.id)]
        return {
            "ok": True,
            "environment": catalog.environment(),
            "loaded": loaded,
            "running": lab.running,
            "waiting": lab.line.length,
        }

    def run(
        prompt: str,
        strategy: str = "autoregressive",
        model: str = "",
        models: dict | None = None,  # type: ignore[type-arg]
        knobs: dict | None = None,  # type: ignore[type-arg]
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        budget: int = 64,
        seed: int = 0,
        chat: bool = True,
    ) -> dict:  # type: ignore[type-arg]
        """Decode one prompt to its end. models: by role, e.g. {"draft": ...}; knobs: see list_strategies.

        Returns the strategy, its text, the measures (names as in vLLM where it has them), how it ended, and the
        environment it was measured in.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        request = _request(strategy, prompt, model, models, knobs, sampling, budget, seed, chat)
        race = lab.race([request], "auto", f"api-{id(request)}")
        for _ in race.start().watch():
            pass
        result = _results(race, lab)[0]
        if result["state"] == "error":
            raise gr.Error(result["message"], print_exception=False)
        return {**result, "environment": lab.catalog().environment()}

    def race(
        prompt: str,
        strategies: list[str],
        model: str = "",
        temperature: float = 0.0,
        budget: int = 64,
        seed: int = 0,
        chat: bool = True,
    ) -> Iterator[dict]:  # type: ignore[type-arg]
        """Race up to four strategies with their default knobs; put `autoregressive` first to compare with it.

        Yields {"state", "lanes"} a few times a second, every time with all that is known; the last one is final.
        """
        if not 1 <= len(strategies) <= MAX_LANES:
            raise gr.Error(
                f"A race takes 1 to {MAX_LANES} strategies, but {len(strategies)} were given.", print_exception=False
            )
        requests = [
            _request(s, prompt, model, None, None, Sampling(temperature), budget, seed, chat) for s in strategies
        ]
        running = lab.race(requests, "auto", f"api-{id(requests)}")
        for _ in running.start().watch():
            state = "done" if running.over else "running"
            yield {"state": state, "lanes": _results(running, lab)}

    for endpoint in (list_strategies, list_models, health):
        gr.api(endpoint, api_name=endpoint.__name__, queue=False)
    for compute in (run, race):
        gr.api(compute, api_name=compute.__name__, concurrency_id=DEVICE, concurrency_limit=WAITING_ROOM)


def _request(
    strategy: str,
    prompt: str,
    model: str,
    models: dict[str, str] | None,
    knobs: dict[str, Any] | None,
    sampling: Sampling,
    budget: int,
    seed: int,
    chat: bool,
) -> Request:
    """One request; a mistake in it is told when its lane opens."""
    raw: Any = prompt if chat else {"text": prompt, "chat": False}
    target = {"target": model} if model else {}
    return Request(strategy, raw, {**target, **(models or {})}, knobs or {}, sampling, budget, seed)


def _results(race: Race, lab: Lab) -> list[dict[str, Any]]:
    """Each lane as plain data."""
    return [
        {
            "strategy": lane.request.strategy,
            "state": lane.state.value,
            "message": lane.message,
            "text": "" if lane.trace is None else written(lane.trace),
            "summary": None if lane.trace is None else _plain(lane.trace.summary().to_json()),
            "end": "" if lane.trace is None else lane.trace.end,
        }
        for lane in race.lanes
    ]


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """Data whose keys are all strings, as JSON has them."""
    return dict(json.loads(json.dumps(data)))


def written(trace: Any) -> str:
    """The text of a trace, from its pieces."""
    return "".join(trace.pieces.get(token, "") for token in trace.written())
