"""House models of series: which module loads which, the usual target of a protocol, and who drafts for whom."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from backend.entries import ASSETS, EVENTS, FITTED, FORECASTERS, FRACAST, builds
from backend.errors import UserError
from backend.protocols import (
    BandSession,
    EventSession,
    ExampleSession,
    ForecastSession,
    LagsSession,
    LookaheadSession,
    LoopSession,
    Model,
    PathSession,
    ReorderingPathSession,
    SegmentSession,
    SeriesDiffusionSession,
)

TARGETS: dict[type, str] = {  # the model to use where none is named
    ForecastSession: "house/forecaster",
    PathSession: "house/forecaster",
    LookaheadSession: "house/forecaster",
    ReorderingPathSession: "house/forecaster",
    BandSession: "house/forecaster",
    LagsSession: "house/series-lags",
    LoopSession: "house/series-space",
    SegmentSession: "house/series-hierarchy",
    ExampleSession: "house/series-segments",
    SeriesDiffusionSession: "house/series-diffusion",
    EventSession: "house/events",
}
PARTNERS: dict[tuple[str, str], str] = {  # by role and target
    ("draft", "house/forecaster"): "house/forecaster-draft",
    ("draft", "house/series-tokens"): "house/series-tokens-draft",
    ("draft", "house/events"): "house/events-draft",
    ("twin", "house/series-tokens"): "house/series-tokens@skip",
}


def partner(role: str, target: str) -> str:
    """The model that usually plays a role beside a house model of series. Raises UserError if there is none."""
    if (role, target) not in PARTNERS:
        raise UserError(f"There is no {role.replace('_', ' ')} model for {target}; pick a model that has one.")
    return PARTNERS[role, target]


def load(model_id: str, device: torch.device) -> Model:
    """A house model of series, or Fracast. Raises UserError where its weights are not there."""
    if model_id == FRACAST:
        from backend.models.hub.forecast import load_fracast

        return load_fracast(device)
    if model_id in FITTED:
        from backend.models.series_lags import LagsModel

        return LagsModel(model_id)
    path = _weights(model_id)
    if model_id in EVENTS:
        from backend.models.events import load_events

        return load_events(model_id, path, device)
    if model_id == "house/series-space":
        from backend.models.series_space import load_series_space

        return load_series_space(model_id, path, device)
    if model_id == "house/series-hierarchy":
        from backend.models.series_hierarchy import load_series_hierarchy

        return load_series_hierarchy(model_id, path, device)
    if model_id == "house/series-segments":
        from backend.models.series_segments import load_series_segments

        return load_series_segments(model_id, path, device)
    if model_id == "house/series-diffusion":
        from backend.models.series_diffusion import load_series_diffusion

        return load_series_diffusion(model_id, path, device)
    if model_id.startswith("house/series-tokens") or model_id == "house/series-masked":
        from backend.models.series_tokens import load_series_tokens

        return load_series_tokens(model_id, path, device)
    if kind_of(path) == "forecaster cell":
        from backend.models.forecaster_cell import load_cell

        return load_cell(model_id, path, device)
    from backend.models.forecaster import load_forecaster

    return load_forecaster(model_id, path, device)


def kind_of(path: Path) -> str | None:
    """What a file of weights says that it holds; None where it says nothing."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("kind")


def _weights(model_id: str) -> Path:
    path = ASSETS / f"{model_id}.safetensors"
    if model_id not in (*FORECASTERS, *EVENTS) or not path.exists():
        raise UserError(f"{model_id} is not in assets/house; build it with: {builds(model_id)}")
    return path
