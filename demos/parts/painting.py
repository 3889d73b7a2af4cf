"""What painting asks for beyond text: prompts with a part of a picture to paint again, targets of several kinds."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from backend.catalog import Catalog, Entry
from backend.codecs.caption_words import TITLES
from backend.codecs.captions import read
from backend.codecs.image import LARGEST, UNKNOWN, data_url
from backend.codecs.portraits import BACKGROUNDS, CLOTHES_COLOURS, EYE_COLOURS, HAIR_COLOURS, SKINS, held_out
from backend.errors import UserError
from backend.protocols import PROTOCOL_NAMES, base
from backend.registry import strategies
from backend.trace import Trace
from backend.types import Request
from demos.parts import knobs
from demos.parts.films import codec_of, given_canvas, is_picture, palette_codec
from demos.parts.form import BASELINE, PRECISIONS, lanes_of, sampling_of, seed_of

GUIDED = ("causal", "masked", "scale", "coarse")  # kinds of painters that can be guided
PROTOCOLS = (*GUIDED, "distilled")  # all kinds, in the order of the menu
EMPTY = "null"  # what a brush without a picture holds
RACE, SEEDS = "One picture a lane", "Four seeds of lane {}"
MODES = (RACE, *(SEEDS.format(lane) for lane in range(1, 5)))
OWN = "each painter's own"
SCHEDULES = (OWN, "constant", "linear", "cosine")
CHOICES = {"mode": MODES, "schedule": SCHEDULES, "precision": PRECISIONS}
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
TINTS = {  # colours that attributes stand for
    "skin": SKINS,
    "hair_color": HAIR_COLOURS,
    "eyes": EYE_COLOURS,
    "hat_color": CLOTHES_COLOURS,
    "clothing_color": CLOTHES_COLOURS,
    "background": BACKGROUNDS,
}


@dataclass(frozen=True)
class Portrait:
    """A prompt on a chip."""

    kind: str
    prompt: str


EXAMPLES = (
    Portrait("glasses", "brown skin, short blue hair, round glasses, smile, red shirt, mint background"),
    Portrait(
        "hat",
        "a laughing woman with long red hair, a green cap, blue eyes and a striped purple shirt, yellow background",
    ),
    Portrait("beard", "dark skin, bald, full black beard, sunglasses, neutral, grey vest, white background"),
    Portrait("few words", "a portrait with a pink mohawk"),
    Portrait("never seen", "pale skin, blue bob, brown eyes, smirk, yellow shirt, lavender background"),
)


def reading(prompt: str) -> dict[str, Any]:
    """What a prompt was understood to say, for the chips below it: attributes, words left out, or the error."""
    try:
        found = read(prompt or "")
    except UserError as error:
        return {"chips": [], "ignored": [], "note": "", "error": str(error)}
    said = [(name, getattr(found.attributes, name)) for name in TITLES if name != "style"]
    chips = [
        {"title": TITLES[name], "value": value, "tint": TINTS.get(name, {}).get(value, "")}
        for name, value in said
        if value not in ("any", "none")
    ]
    absent = [TITLES[name] for name, value in said if value == "none" and not name.endswith("_color")]
    chips += [{"title": title, "value": "none", "tint": ""} for title in absent]
    note = "This combination was held out of training." if held_out(found.attributes) else ""
    return {"chips": chips, "ignored": list(found.ignored), "note": note, "error": ""}


def requests_of(form: Mapping[str, Any], catalog: Catalog) -> list[Request]:
    """One request a lane, the baseline first; or one strategy with four seeds. Raises UserError."""
    read(form["prompt"] or "")
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
    request = Request(lane["strategy"], prompt, models, lane["knobs"], sampling_of(form), 1, seed)
    return replace(request, budget=max(1, math.ceil(cells_of(request) * form["share"] / 100)))


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

    A painter can if there are models for the other roles beside it.
    """
    found = strategies().get(strategy_id)
    if found is None:
        return ""
    described = found.describe()
    helpers = [role for role in found.roles if role != "target"]
    models = knobs.models_for(catalog, described["roles"]["target"], modality="image")
    able = [e.id for e in models if all(_has(catalog, role, e.id) for role in helpers)]
    chosen = form.get(f"model_{described['protocol']}") or ""
    known, whole = {e.id for e in catalog.entries()}, chosen.partition("@")[0]
    return chosen if whole in able or (chosen and whole not in known) else next(iter(able), chosen)


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


def painters(catalog: Catalog, protocol: str) -> list[Entry]:
    """The models of pictures of a kind that can be a target."""
    return [e for e in knobs.models_for(catalog, protocol, modality="image") if not e.id.endswith("-draft")]


def form_of(traces: Sequence[Trace]) -> dict[str, Any]:
    """The form that would paint these pictures again."""
    first = traces[0].request
    raw = first.prompt if isinstance(first.prompt, Mapping) else {"prompt": first.prompt}
    told = SCALE.search(first.models.get("target", ""))
    form: dict[str, Any] = {"prompt": str(raw.get("prompt", "")), "seed": first.seed}
    form |= {"guidance": float(told[1]) if told else 1.0, "schedule": (told and told[2]) or OWN}
    form |= {name: getattr(first.sampling, name) for name in ("temperature", "top_k", "top_p")}
    form |= {"share": 100, "mode": RACE, "brush": brush_of(raw), "lanes": lanes_of(traces)}
    for trace in traces:
        found = strategies().get(trace.request.strategy)
        if found is not None:
            target = SCALE.sub("", trace.request.models.get("target", ""))
            form.setdefault(f"model_{found.describe()['protocol']}", target)
    if len({trace.request.seed for trace in traces}) > 1:
        form |= {"mode": SEEDS.format(1 if first.strategy == BASELINE else 2)}
        form["lanes"] = [] if first.strategy == BASELINE else form["lanes"][:1]
    return form


# -------------------------------------------------------------------------------------------------------------- brush
def loaded(path: str) -> str:
    """An uploaded picture for the brush. Raises UserError where it is none, too large or not square."""
    side = palette_codec().tokenizer.side
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as opened:
            if max(opened.size) > LARGEST:
                found = "x".join(map(str, opened.size))
                raise UserError(f"The picture is {found} pixels; the largest that is read is {LARGEST}x{LARGEST}.")
            seen = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError("This file is no picture that can be read; give a PNG, JPEG or WebP.") from error
    width, height = seen.size
    if width != height or width % side:
        raise UserError(
            f"The picture is {width}x{height} pixels; it must be square, with a side that is a multiple of {side}, "
            f"such as {4 * side}x{4 * side}."
        )
    flat = np.asarray(Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB"))
    step = width // side
    return _packed(flat[step // 2 :: step, step // 2 :: step], np.zeros((side, side), dtype=np.uint8))


def brushed(brush: str) -> dict[str, str]:
    """Fields of a prompt for what the brush holds: {} for nothing. Raises UserError where it cannot be read."""
    if brush in ("", EMPTY):
        return {}
    try:
        held = json.loads(brush)
        side = int(held["side"])
        if not 1 <= side <= 64:
            raise ValueError
        picture = np.frombuffer(base64.b64decode(held["picture"]), np.uint8).reshape(side, side, 3)
        mask = np.frombuffer(base64.b64decode(held["mask"]), np.uint8).reshape(side, side)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError("The picture to paint over cannot be read; remove it and load it again.") from error
    return {"image": data_url(Image.fromarray(picture)), "mask": data_url(Image.fromarray(mask * np.uint8(255)))}


def brush_of(raw: Mapping[str, Any]) -> str:
    """What the brush held for this prompt, as far as the codec's canvas tells; EMPTY where it held nothing."""
    if not raw.get("image") or not raw.get("mask"):
        return EMPTY
    codec = palette_codec()
    canvas = np.asarray(given_canvas(codec, Request("", dict(raw))))
    if not (canvas != UNKNOWN).any():
        return EMPTY
    side, mask = codec.tokenizer.side, (canvas == UNKNOWN).reshape(codec.grid)
    every = codec.sizes[0] // side
    return _packed(codec.decode(canvas.tolist())[::every, ::every], mask.astype(np.uint8))


def _packed(picture: Any, mask: Any) -> str:
    told = {"side": len(picture), "picture": np.ascontiguousarray(picture).tobytes(), "mask": mask.tobytes()}
    packed = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in told.items()}
    return json.dumps(packed, separators=(",", ":"))
