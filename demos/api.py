"""The public endpoints: few, typed, stable. Everything else that the page calls is private."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
from PIL import Image

from backend.codecs.image import data_url
from backend.codecs.of_models import style_of_model
from backend.codecs.portraits import enlarge
from backend.registry import strategies
from backend.trace import Trace
from backend.types import Request, Sampling
from demos.parts.fans import SHOWN, is_forecast, opened
from demos.parts.films import developed, is_picture
from demos.parts.forecast_form import target_for as forecaster_for
from demos.parts.lab import DEVICE, WAITING_ROOM, Lab
from demos.parts.painting import cells_of, paints, target_for
from demos.parts.race import Race
from demos.parts.subjects import PROTOCOLS

MAX_LANES = 4
USUAL_BUDGET = 64  # new tokens


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
        prompt: str | dict,  # type: ignore[type-arg]
        strategy: str = "autoregressive",
        model: str = "",
        models: dict | None = None,  # type: ignore[type-arg]
        knobs: dict | None = None,  # type: ignore[type-arg]
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        budget: int | None = None,
        seed: int = 0,
        chat: bool = True,
    ) -> dict:  # type: ignore[type-arg]
        """Decode one prompt to its end. models: by role, e.g. {"draft": ...}; knobs: see list_strategies.

        A painter, such as house/portraits or house/thumbs, takes a description in the words of its style, or
        {"prompt": ..., "image": ..., "mask": ...} with pictures as data URLs to paint a part of one again; guidance is
        named with the model (house/portraits@cfg=2).
        budget: new tokens, 64 if left out; cells of a picture, the whole of it if left out; steps of a forecast.
        A forecaster takes {"csv": ..., "series": name, "until": steps known, "season": steps}, or {"y": [numbers]};
        give it a temperature of 1 for paths that spread as they should.

        Returns the strategy, its text, picture (rows of colours and a PNG as a data URL) or forecast (dates, quantiles
        by level, and scores where the table goes on behind `until`), the measures (names as in vLLM where it has
        them), how it ended, and the environment it was measured in.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        request = _request(lab, strategy, prompt, model, models, knobs, sampling, budget, seed, chat)
        race = lab.race([request], "auto", f"api-{id(request)}")
        for _ in race.start().watch():
            pass
        result = _results(race)[0]
        if result["state"] == "error":
            raise gr.Error(result["message"], print_exception=False)
        return {**result, "environment": lab.catalog().environment()}

    def race(
        prompt: str | dict,  # type: ignore[type-arg]
        strategies: list[str],
        model: str = "",
        temperature: float = 0.0,
        budget: int | None = None,
        seed: int = 0,
        chat: bool = True,
    ) -> Iterator[dict]:  # type: ignore[type-arg]
        """Race up to four strategies with their default knobs; put `autoregressive` first to compare with it.

        Pictures as in `run`; with a painter as model each strategy gets the one of its own kind.

        Yields {"state", "lanes"} a few times a second, every time with all that is known; the last one is final.
        """
        if not 1 <= len(strategies) <= MAX_LANES:
            raise gr.Error(
                f"A race takes 1 to {MAX_LANES} strategies, but {len(strategies)} were given.", print_exception=False
            )
        requests = [
            _request(lab, s, prompt, model, None, None, Sampling(temperature), budget, seed, chat) for s in strategies
        ]
        running = lab.race(requests, "auto", f"api-{id(requests)}")
        for _ in running.start().watch():
            state = "done" if running.over else "running"
            yield {"state": state, "lanes": _results(running)}

    for endpoint in (list_strategies, list_models, health):
        gr.api(endpoint, api_name=endpoint.__name__, queue=False)
    for compute in (run, race):
        gr.api(compute, api_name=compute.__name__, concurrency_id=DEVICE, concurrency_limit=WAITING_ROOM)


def _request(
    lab: Lab,
    strategy: str,
    prompt: str | dict[str, Any],
    model: str,
    models: dict[str, str] | None,
    knobs: dict[str, Any] | None,
    sampling: Sampling,
    budget: int | None,
    seed: int,
    chat: bool,
) -> Request:
    """One request; a mistake in it is told when its lane opens."""
    target = {"target": model} if model else {}
    if is_forecast(Trace(Request(strategy, prompt, {"target": model} if model else {}))):
        chosen = forecaster_for(strategy, {"model": model}, lab.catalog())
        named = {"target": model or chosen} if model or chosen else {}
        steps = USUAL_BUDGET if budget is None else budget
        return Request(strategy, prompt, {**named, **(models or {})}, knobs or {}, sampling, steps, seed)
    if paints(strategy, model, prompt):
        named = {f"model_{protocol}": model for protocol in PROTOCOLS}
        chosen = target_for(strategy, {**named, "style": style_of_model(model)}, lab.catalog())
        target = {"target": chosen} if chosen else target
        request = Request(strategy, prompt, {**target, **(models or {})}, knobs or {}, sampling, seed=seed)
        return replace(request, budget=cells_of(request) if budget is None else budget)
    raw: Any = prompt if chat or isinstance(prompt, dict) else {"text": prompt, "chat": False}
    tokens = USUAL_BUDGET if budget is None else budget
    return Request(strategy, raw, {**target, **(models or {})}, knobs or {}, sampling, tokens, seed)


def _results(race: Race) -> list[dict[str, Any]]:
    """Each lane as plain data."""
    return [
        {
            "strategy": lane.request.strategy,
            "state": lane.state.value,
            "message": lane.message,
            "text": "" if lane.trace is None or _shows(lane.trace) else written(lane.trace),
            "picture": picture_of(lane.trace),
            "forecast": forecast_of(lane.trace),
            "summary": None if lane.trace is None else _plain(lane.trace.summary().to_json()),
            "worth": {} if lane.trace is None else dict(lane.trace.worth),
            "end": "" if lane.trace is None else lane.trace.end,
        }
        for lane in race.lanes
    ]


def picture_of(trace: Trace | None) -> dict[str, Any] | None:
    """The picture that a trace has painted: rows of colours, and a PNG as a data URL. None where it paints none."""
    if trace is None or is_forecast(trace) or not is_picture(trace):
        return None
    pixels = developed(trace).picture
    rows = [[f"#{bytes(pixel.tolist()).hex()}" for pixel in row] for row in pixels]
    return {"rows": rows, "png": data_url(Image.fromarray(enlarge(pixels)))}


def forecast_of(trace: Trace | None) -> dict[str, Any] | None:
    """The forecast of a trace: dates, quantiles by level, paths if it has some, scores. None where it is none."""
    if trace is None or not is_forecast(trace):
        return None
    made = opened(trace)
    forecast, past = made.forecast, made.asked.past
    quantiles_QH = forecast.quantiles(SHOWN) if len(made.values_RH) > 1 else made.values_RH
    levels = SHOWN if len(made.values_RH) > 1 else (0.5,)
    known = [(level, row_H) for level, row_H in zip(levels, quantiles_QH, strict=True) if row_H[0] == row_H[0]]
    return {
        "unique_id": past.name,
        "ds": past.future(made.asked.horizon),
        "quantiles": {f"{level:g}": numbers(row_H) for level, row_H in known},
        "paths": [numbers(row_H) for row_H in made.values_RH] if forecast.joint else [],
        "scores": made.scores(trace),
    }


def numbers(values: Any) -> list[float | None]:
    """Values as plain numbers, None where one is missing."""
    return [float(f"{x:.8g}") if x == x else None for x in values.tolist()]


def _shows(trace: Trace) -> bool:
    return is_picture(trace) or is_forecast(trace)


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """Data whose keys are all strings, as JSON has them."""
    return dict(json.loads(json.dumps(data)))


def written(trace: Trace) -> str:
    """The text of a trace, from its pieces."""
    return "".join(trace.pieces.get(token, "") for token in trace.written())
