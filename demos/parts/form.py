"""The form of a tab that races strategies: how it is read and filled; ranges and requests of the one for text."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from backend.catalog import Catalog
from backend.errors import UserError
from backend.registry import strategies
from backend.trace import Trace
from backend.types import Request, Sampling
from demos.parts import knobs, links, snapshot
from demos.parts.knobs import LaneForm

BASELINE = "autoregressive"
SEVERAL = "fleet"  # protocol of targets that write several texts at once
PRECISIONS = ("auto", "float32", "bfloat16")
CHOICES: Mapping[str, Sequence[str]] = {"mode": ("Chat", "Complete"), "precision": PRECISIONS}
MAX_TOKENS = 512  # of a race in the app; the library allows more
NUMBERS: Mapping[str, tuple[float, float, float, float]] = {  # name: low, high, default, step
    "temperature": (0.0, 2.0, 0.0, 0.05),
    "top_k": (0, 200, 0, 1),
    "top_p": (0.05, 1.0, 1.0, 0.01),
    "min_p": (0.0, 0.5, 0.0, 0.01),
    "repetition_penalty": (1.0, 1.5, 1.0, 0.01),
    "budget": (1, MAX_TOKENS, 96, 1),
    "seed": (0, 2**31 - 1, 0, 1),
}
LABELS = {
    "temperature": "Temperature (0 is greedy)",
    "top_k": "Top-k: only the k most likely (0 is off)",
    "top_p": "Top-p: smallest set with this probability (1 is off)",
    "min_p": "Min-p: at least this share of the best (0 is off)",
    "repetition_penalty": "Repetition penalty (1 is off)",
    "budget": "New tokens a lane, at most",
}


@dataclass
class Form:
    """Every input of the tab, and how to read and fill it."""

    plain: dict[str, Any]  # component by name: prompt, precision, the numbers, lock, and others that the tab has
    lanes: list[LaneForm]
    sizes: dict[str, int]
    menus: knobs.Menus
    numbers: Mapping[str, tuple[float, float, float, float]] = field(default_factory=lambda: NUMBERS)
    texts: Sequence[str] = ("prompt", "model")
    choices: Mapping[str, Sequence[str]] = field(default_factory=lambda: CHOICES)

    @property
    def inputs(self) -> list[Any]:
        """What handlers get, in the order that `read` expects."""
        return [*self.plain.values(), *(c for lane in self.lanes for c in lane.inputs)]

    @property
    def outputs(self) -> list[Any]:
        """What `fill` updates."""
        return [*self.plain.values(), *(c for lane in self.lanes for c in _lane_outputs(lane))]

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """The form as plain data: the plain inputs by name, and "lanes"."""
        form: dict[str, Any] = dict(zip(self.plain, values, strict=False))
        rest, width = list(values[len(self.plain) :]), len(self.lanes[0].inputs)
        chunks = [rest[i * width : (i + 1) * width] for i in range(len(self.lanes))]
        form["lanes"] = [knobs.read(chunk, self.sizes) for chunk in chunks]
        return form

    def fill(self, form: Mapping[str, Any]) -> list[Any]:
        """Updates that put plain data into the form; what is unknown or out of range is ignored or clamped."""
        plain = {name: gr.skip() for name in self.plain}
        for name in self.texts:
            if isinstance(form.get(name), str):
                plain[name] = form[name][:20_000]
        for name, offered in self.choices.items():
            if isinstance(form.get(name), str) and form[name] in offered:
                plain[name] = form[name]
        for name, (low, high, default, step) in self.numbers.items():
            if name in form:
                plain[name] = links.number(form, name, low, high, int(default) if step == 1 else default)
        if "seed" in form:
            plain["lock"] = True
        given = form.get("lanes")
        lanes = given if isinstance(given, list) else []
        updates = [
            u for i in range(len(self.lanes)) for u in self._fill_lane(lanes[i] if i < len(lanes) else None, given)
        ]
        return [*plain.values(), *updates]

    def _fill_lane(self, lane: Any, given: Any) -> list[Any]:
        setting = clean(lane)
        if given is None or (lane is not None and setting is None):
            return [gr.skip()] * (3 + sum(self.sizes.values()))
        if setting is None:
            return [knobs.NONE, *knobs.show(knobs.NONE, self.sizes, menus=self.menus)]
        return [setting["strategy"], *knobs.show(setting["strategy"], self.sizes, setting, self.menus)]


def form_of(traces: Sequence[Trace]) -> dict[str, Any]:
    """The form that would make these runs again."""
    first = traces[0].request
    raw = next((t.request.prompt for t in traces if isinstance(t.request.prompt, Mapping)), first.prompt)
    sampling = {name: getattr(first.sampling, name) for name in NUMBERS if hasattr(first.sampling, name)}
    return {
        "prompt": snapshot.prompt_text(raw),
        "mode": "Complete" if isinstance(raw, Mapping) and raw.get("chat") is False else "Chat",
        **sampling,
        "budget": first.budget,
        "seed": first.seed,
        "lanes": lanes_of(traces),
    }


def lanes_of(traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """The settings of lanes 2 and on that made these runs."""
    return [
        {"strategy": r.strategy, "knobs": dict(r.knobs), "models": {k: v for k, v in r.models.items() if k != "target"}}
        for r in (trace.request for trace in traces[1:])
    ]


def make_requests(form: Mapping[str, Any]) -> list[Request]:
    """One request a lane, the baseline first. Raises UserError where the form cannot be run at all."""
    text = form["prompt"] or ""
    if not split_texts(text):
        raise UserError("The prompt is empty: type a question, or press one of the examples below the box.")
    if not 1 <= (form["budget"] or 0) <= MAX_TOKENS:
        raise UserError(f"The budget must lie between 1 and {MAX_TOKENS} new tokens, but it is {form['budget']}.")
    seed, sampling = seed_of(form), sampling_of(form)
    lanes = [{"strategy": BASELINE, "models": {}, "knobs": {}}, *(lane for lane in form["lanes"] if lane)]
    target = {"target": form["model"]} if form["model"] else {}
    texts, chat = split_texts(text), form["mode"] == "Chat"
    return [
        Request(
            lane["strategy"],
            prompt_for(lane["strategy"], texts, chat),
            {**target, **lane["models"]},
            lane["knobs"],
            sampling,
            int(form["budget"]),
            seed,
        )
        for lane in lanes
    ]


def seed_of(form: Mapping[str, Any]) -> int:
    """The seed, or a new one where it is not kept."""
    return int(form["seed"] or 0) if form["lock"] else random.SystemRandom().randrange(2**31)


def sampling_of(form: Mapping[str, Any]) -> Sampling:
    """Temperature and filters, those that the form has."""
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    filters = {name: form[name] for name in names if name in form}
    return Sampling(**{**filters, "top_k": int(filters.get("top_k", 0))})


def split_texts(text: str) -> list[str]:
    """The prompts in a text: lines that hold nothing but --- stand between them."""
    parts = [part.strip("\n") for part in re.split(r"(?m)^\s*---\s*$", text)]
    return [part for part in parts if part.strip()]


def prompt_for(strategy_id: str, texts: Sequence[str], chat: bool) -> Any:
    """What a strategy is given: all prompts where it answers several at once, else the first."""
    found = strategies().get(strategy_id)
    if len(texts) > 1 and found is not None and found.describe()["roles"]["target"] == SEVERAL:
        return {"texts": list(texts), "chat": chat}
    return texts[0] if chat else {"text": texts[0], "chat": False}


def fitted(requests: Sequence[Request], catalog: Catalog) -> list[Request]:
    """The requests, without the chosen target where a strategy needs a kind of model that the target is not.

    Such a lane gets the usual model of that kind, if this machine has one.
    """
    kinds = {entry.id: entry.protocol for entry in catalog.entries()}
    out = []
    for request in requests:
        found = strategies().get(request.strategy)
        needs = found.describe()["roles"]["target"] if found else "causal"
        chosen = request.models.get("target", "")
        if needs != "causal" and needs in kinds.values() and kinds.get(chosen, needs) != needs:
            request = replace(request, models={r: m for r, m in request.models.items() if r != "target"})
        out.append(request)
    return out


def clean(lane: Any) -> dict[str, Any] | None:
    """A lane of a link, with everything unknown or out of range left out."""
    found = strategies().get(lane.get("strategy", "")) if isinstance(lane, dict) else None
    if found is None:
        return None
    given: Any = lane.get("knobs")
    settings: dict[str, Any] = {}
    for name, option in found.knobs.items():
        if isinstance(given, dict) and name in given:
            try:
                settings[name] = option.check(found.id, name, given[name])
            except UserError:
                continue
    models: Any = lane.get("models")
    roles = (
        {r: m for r, m in models.items() if r in found.roles and isinstance(m, str)} if isinstance(models, dict) else {}
    )
    return {"strategy": found.id, "models": roles, "knobs": settings}


def _lane_outputs(lane: LaneForm) -> list[Any]:
    return [lane.strategy, lane.promise, lane.options, *lane.slots]
