"""What painting asks for beyond text: prompts with a part of a picture to paint again, targets of several kinds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backend.catalog import Catalog
from backend.codecs.image import UNKNOWN
from backend.codecs.of_models import codec_of_style, style_of_model
from backend.codecs.styles import PIXEL, STYLES
from backend.errors import UserError
from backend.protocols import PROTOCOL_NAMES, base
from backend.registry import strategies
from backend.trace import Trace
from backend.types import Request
from demos.parts import knobs
from demos.parts.brush import brush_of, brushed
from demos.parts.films import codec_of, given_canvas, is_picture
from demos.parts.form import BASELINE, PRECISIONS, lanes_of, sampling_of, seed_of
from demos.parts.subjects import GUIDED, LOOKS, one_style, read

RACE, SEEDS = "One picture a lane", "Four seeds of lane {}"
MODES = (RACE, *(SEEDS.format(lane) for lane in range(1, 5)))
OWN = "each painter's own"
SCHEDULES = (OWN, "constant", "linear", "cosine")
CHOICES = {"style": tuple(LOOKS), "mode": MODES, "schedule": SCHEDULES, "precision": PRECISIONS}
GROWING = ("causal", "scale")  # kinds whose guidance can grow over a picture
SCALE = re.compile(r"@cfg=([0-9.]+)(?:-(constant|linear|cosine))?$", re.ASCII)
NUMBERS: Mapping[str, tuple[float, float, float, float]] = {  # name: low, high, default, step
    "guidance": (0.0, 10.0, 2.0, 0.25),
    "temperature": (0.0, 2.0, 1.0, 0.05),
    "top_k": (0, 128, 0, 1),
    "top_p": (0.05, 1.0, 1.0, 0.01),
    "share": (1, 100, 100, 1),
    "seed": (0, 2**31 - 4, 0, 1),
}
LABELS = {
    "guidance": "Guidance: how closely it follows the words (1 is off)",
    "temperature": "Temperature (0 is greedy)",
    "top_k": "Top-k: only the k most likely (0 is off)",
    "top_p": "Top-p: smallest set with this probability (1 is off)",
    "share": "How much of the picture is painted, in percent",
}


def requests_of(form: Mapping[str, Any], catalog: Catalog) -> list[Request]:
    """One request a lane, the baseline first; or one strategy with four seeds. Raises UserError."""
    read(form["prompt"] or "", style_of(form))
    prompt = prompt_of(form)
    lanes = [{"strategy": BASELINE, "models": {}, "knobs": {}}, *form["lanes"]]
    seed = seed_of(form)
    if form["mode"] == RACE:
        return [request_of(lane, prompt, form, catalog, seed) for lane in lanes if lane]
    number = MODES.index(form["mode"])
    if not lanes[number - 1]:
        raise UserError(f"Four seeds of lane {number} were asked for, but no strategy is chosen there; choose one.")
    first = request_of(lanes[number - 1], prompt, form, catalog, seed)
    return [replace(first, seed=seed + i) for i in range(4)]


def prompt_of(form: Mapping[str, Any]) -> Any:
    """The prompt, with the picture and the mask of the brush where there is one."""
    brush = brushed(form.get("brush") or "")
    return {"prompt": form["prompt"], **brush} if brush else form["prompt"]


def request_of(lane: Mapping[str, Any], prompt: Any, form: Mapping[str, Any], catalog: Catalog, seed: int) -> Request:
    """A lane's request: the painter of its kind, guided, and cells enough for the asked share of the picture."""
    scale, schedule = form["guidance"], schedule_of(lane["strategy"], form)
    models = {
        role: guided(model, scale, schedule) if _paints(lane["strategy"], role) else model
        for role, model in lane["models"].items()
    }
    target = target_for(lane["strategy"], form, catalog)
    if target:
        strong = guided(target, scale, schedule) if _paints(lane["strategy"], "target") else target
        models = {"target": strong, **models}
    _refuse_mixed(models, style_of(form))
    request = Request(lane["strategy"], prompt, models, lane["knobs"], sampling_of(form), 1, seed)
    return replace(request, budget=max(1, math.ceil(cells_of(request) * form["share"] / 100)))


def style_of(form: Mapping[str, Any]) -> str:
    """The style that a form asks for; links of before there were several name none."""
    return str(form.get("style") or PIXEL)


def _refuse_mixed(models: Mapping[str, str], style: str) -> None:
    """Raise UserError where a painter that was named paints another style: its pictures could not be compared."""
    for model in models.values():
        other = style_of_model(model)
        if other != style:
            raise UserError(
                f"The style is {STYLES[style].title}, but {model} paints {STYLES[other].title}; all lanes of a race "
                "paint the same style, so choose another model or change the style."
            )


def cells_of(request: Request) -> int:
    """Slots that a request has to fill for a whole picture: open cells, or all those of a model of scales."""
    codec = codec_of(request)
    return codec.length if hasattr(codec, "pyramid") else max(1, given_canvas(codec, request).count(UNKNOWN))


def paints(strategy_id: str, model: str, prompt: Any) -> bool:
    """Whether what is asked for is a picture: by its fields, its model, or else its strategy."""
    fields = isinstance(prompt, Mapping) and "prompt" in prompt
    return fields or is_picture(Trace(Request(strategy_id, prompt, {"target": model} if model else {})))


def _paints(strategy_id: str, role: str) -> bool:
    """Whether a role's painter is to be guided: one that can be, and no draft, of which more is kept without."""
    found = strategies().get(strategy_id)
    return (
        found is not None
        and role != "draft"
        and role in found.roles
        and PROTOCOL_NAMES[base(found.roles[role])] in GUIDED
    )


def target_for(strategy_id: str, form: Mapping[str, Any], catalog: Catalog) -> str:
    """The painter that a strategy gets: the chosen one of its kind where that can do what it asks, else the first.

    A painter can if there are models for the other roles beside it. Where none of the style can, it is any of them,
    whose lane then says what is missing.
    """
    found, style = strategies().get(strategy_id), style_of(form)
    if found is None:
        return ""
    own, described = one_style(catalog, style), found.describe()
    helpers = [role for role in found.roles if role != "target"]
    models = knobs.models_for(own, described["roles"]["target"], modality="image")
    able = [e.id for e in models if all(_has(own, role, e.id) for role in helpers)]
    chosen = form.get(f"model_{described['protocol']}") or ""
    known, whole = {e.id for e in catalog.entries()}, chosen.partition("@")[0]
    if whole in able or (chosen and whole not in known):
        return str(chosen)
    others = [e.id for e in own.entries() if e.modality == "image" and e.available and style != PIXEL]
    return next(iter([*able, *([chosen] if style_of_model(chosen) == style else []), *others]), "")


def _has(catalog: Catalog, role: str, target: str) -> bool:
    """Whether there is a model that usually plays a role beside a target."""
    try:
        return bool(catalog.default(role, target))
    except UserError:
        return False


def guided(model: str, scale: float, schedule: str = "") -> str:
    """The model under guidance of this scale; one that names its own keeps it."""
    if not model or scale == 1 or "@cfg=" in model or "@refine=" in model:
        return model
    return f"{model}@cfg={scale:g}" + (f"-{schedule}" if schedule else "")


def schedule_of(strategy_id: str, form: Mapping[str, Any]) -> str:
    """The schedule of guidance that a form asks of a strategy's painter; empty for the painter's own."""
    found, schedule = strategies().get(strategy_id), form.get("schedule", OWN)
    kind = PROTOCOL_NAMES[found.base] if found is not None else ""
    return "" if schedule == OWN or kind not in GROWING else str(schedule)


def form_of(traces: Sequence[Trace]) -> dict[str, Any]:
    """The form that would paint these pictures again."""
    first = traces[0].request
    raw = first.prompt if isinstance(first.prompt, Mapping) else {"prompt": first.prompt}
    told = SCALE.search(first.models.get("target", ""))
    form: dict[str, Any] = {"prompt": str(raw.get("prompt", "")), "seed": first.seed}
    form |= {"guidance": float(told[1]) if told else 1.0, "schedule": (told and told[2]) or OWN}
    form |= {name: getattr(first.sampling, name) for name in ("temperature", "top_k", "top_p")}
    form |= {"style": style_of_model(first.models.get("target", ""))}
    form |= {"share": 100, "mode": RACE, "brush": brush_of(raw, _codec_of(traces)), "lanes": lanes_of(traces)}
    for trace in traces:
        found = strategies().get(trace.request.strategy)
        if found is not None:
            target = SCALE.sub("", trace.request.models.get("target", ""))
            form.setdefault(f"model_{found.describe()['protocol']}", target)
    if len({trace.request.seed for trace in traces}) > 1:
        form |= {"mode": SEEDS.format(1 if first.strategy == BASELINE else 2)}
        form["lanes"] = [] if first.strategy == BASELINE else form["lanes"][:1]
    return form


def _codec_of(traces: Sequence[Trace]) -> Any:
    """What the brush of a race is read with: the cells of its pictures, of maps those of the finest."""
    return codec_of_style(style_of_model(traces[0].request.models.get("target", "")))
