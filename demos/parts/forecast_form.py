"""What forecasting asks for: a series of ours or of the visitor's file, where its context ends, and targets by kind."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from backend.catalog import ASSETS, HUB_ID, Catalog, Entry
from backend.codecs.series import (
    LARGEST_FILE,
    LEAST_VALUES,
    LONGEST_HORIZON,
    MOST_ROWS,
    Series,
    Table,
    check_ask,
    read_series,
    to_csv,
)
from backend.codecs.series_scale import Scale
from backend.codecs.series_tokens import MOST_PATHS as MOST_TOKEN_PATHS
from backend.errors import UserError
from backend.protocols import (
    PROTOCOL_NAMES,
    BandSession,
    FleetSession,
    ForecastSession,
    LookaheadSession,
    PathSession,
)
from backend.registry import Strategy, strategies
from backend.series.chaos import SYSTEMS
from backend.series.synthetic import FAMILIES
from backend.trace import Trace
from backend.types import Request
from demos.parts import knobs
from demos.parts.form import PRECISIONS, lanes_of, sampling_of, seed_of

SERIES = ASSETS / "series"
BASELINE = "recursive"
PROTOCOLS = ("forecast", "causal", "masked")  # kinds of targets, in the order of the menu
OF_FORECASTER = (PathSession, LookaheadSession, BandSession)  # what our forecaster speaks
OWN = "own"  # the visitor's file
HOLD, BEYOND = "hold back the last steps as truth", "forecast behind the end"
LONGEST_CONTEXT = 512
NUMBERS: Mapping[str, tuple[float, float, float, float]] = {  # name: low, high, default, step
    "horizon": (1, LONGEST_HORIZON, 96, 1),
    "context": (16, LONGEST_CONTEXT, LONGEST_CONTEXT, 1),
    "back": (0, MOST_ROWS, 0, 1),
    "season": (0, LONGEST_CONTEXT, 0, 1),
    "paths": (2, 256, 64, 1),
    "temperature": (0.0, 2.0, 1.0, 0.05),
    "seed": (0, 2**31 - 1, 7, 1),
}
LABELS = {
    "horizon": "Horizon: steps to forecast",
    "context": "Context: steps to look back on, at most",
    "back": "Move the origin back by",
    "season": "Season in steps (0: as found)",
    "paths": "Sample paths, where a strategy draws them",
    "temperature": "Temperature: spread of the paths (0 is the middle)",
}


@dataclass(frozen=True)
class House:
    """A series that we ship. provenance: of its file."""

    id: str
    group: str
    title: str
    path: Path
    provenance: str


@dataclass(frozen=True)
class Example:
    """A series on a chip, how far it is to be continued, and what is worth seeing on it: strategies and their knobs."""

    kind: str
    series: str
    horizon: int
    shown: Sequence[tuple[str, Mapping[str, Any]]]

    @property
    def lanes(self) -> list[dict[str, Any]]:
        """Lanes 2 and on."""
        return [{"strategy": strategy, "models": {}, "knobs": dict(settings)} for strategy, settings in self.shown]


EXAMPLES = (
    Example(
        "trend and season", "trend_season", 96, [("speculative_patches", {}), ("noise_jacobi", {}), ("direct", {})]
    ),
    Example(
        "CO2", "co2", 104,
        [("lookahead_heads", {}), ("rolled_direct", {"feedback": "median", "head": 2}), ("rolled_direct", {"head": 2})],
    ),
    Example(
        "temperature", "san_francisco_temp", 96,
        [("speculative_patches", {}), ("classical_draft", {"model": "seasonal_naive"}), ("recursive_point", {})],
    ),
    Example("chaos", "lorenz", 96, [("speculative_patches", {}), ("noise_jacobi", {}), ("multi_resolution", {})]),
    Example("noise", "ar1", 64, [("noise_jacobi", {}), ("classical_draft", {"model": "ar"}), ("direct", {})]),
)  # fmt: skip
TITLES = {
    "co2": "CO2 at Mauna Loa, weekly",
    "sunspots": "Sunspots, yearly",
    "sea_surface": "El Nino sea surface temperature, monthly",
    "nile": "Flow of the Nile, yearly",
    "realgdp": "US gross domestic product, quarterly",
    "realinv": "US investment, quarterly",
    "cpi": "US consumer prices, quarterly",
    "unemp": "US unemployment, quarterly",
    "seattle_temp_max": "Seattle, daily highest temperature",
    "seattle_precipitation": "Seattle, daily precipitation",
    "san_francisco_temp": "San Francisco, hourly temperature",
}


# ------------------------------------------------------------------------------------------------------------- series
@cache
def house() -> dict[str, House]:
    """Our series by id: measured ones first, then made ones."""
    files = json.loads((SERIES / "index.json").read_text(encoding="utf-8"))["files"]
    return {name: _house(name, item) for item in files for name in item["series"]}


def _house(name: str, item: Mapping[str, Any]) -> House:
    group = {"synthetic.csv": "Synthetic", "chaos.csv": "Chaos"}.get(item["file"], "Measured")
    title = TITLES.get(name, name)
    if group == "Synthetic" and name in FAMILIES:
        title = FAMILIES[name].title
    if group == "Chaos" and name in SYSTEMS:
        title = f"{name.replace('_', ' ')}, Lyapunov exponent {SYSTEMS[name].exponent:.2g}"
    return House(name, group, f"{title[:1].upper()}{title[1:]}", SERIES / item["file"], item["provenance"])


def choices() -> list[tuple[str, str]]:
    """What the menu of series offers."""
    return [(f"{h.group} · {h.title}", h.id) for h in house().values()] + [("Your own data", OWN)]


@lru_cache(maxsize=16)
def shipped(path: Path) -> Table:
    """A file of ours, read once."""
    return read_series(path)


@lru_cache(maxsize=8)
def pasted(csv: str) -> Table:
    """What a visitor's text holds. Raises UserError."""
    return read_series(csv)


def series_of(form: Mapping[str, Any]) -> Series:
    """The series that the form asks for. Raises UserError."""
    if form.get("data") in house():
        return shipped(house()[form["data"]].path).series[form["data"]]
    csv = form.get("csv") or ""
    if not csv.strip():
        raise UserError("There is no data yet: paste or upload a CSV with unique_id, ds, y, or pick one of our series.")
    table = pasted(csv)
    name = form.get("own") or next(iter(table.series))
    if name not in table.series:
        raise UserError(f"The file has no usable series {name!r}; it has {', '.join(list(table.series)[:9])}.")
    return table.series[name]


def loaded(path: str) -> str:
    """The text of an uploaded file. Raises UserError where it is too large or no text."""
    file = Path(path)
    if file.stat().st_size > LARGEST_FILE:
        raise UserError(f"{file.name} has {file.stat().st_size} bytes; files up to {LARGEST_FILE} bytes are read.")
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file.name} is no text in UTF-8 (byte {error.start}); save it as CSV in UTF-8.") from error


# ------------------------------------------------------------------------------------------------------------- window
@dataclass(frozen=True)
class Window:
    """The part of a series that a race sees: a context, and the truth behind it where there is one.

    csv: of that part alone. series: as it is read from there. until: steps of it that are known. season: 1 without one.
    """

    csv: str
    series: Series
    until: int
    season: int
    horizon: int

    @property
    def prompt(self) -> dict[str, Any]:
        """What codecs of series encode; truth included, so that a trace can be held against it later."""
        return {"csv": self.csv, "series": self.series.name, "until": self.until, "season": self.season}

    @classmethod
    def cut(cls, series: Series, first: int, until: int, last: int, season: int, horizon: int) -> Window:
        """Steps `first` to `last` of a series, of which those before `until` are known."""
        pairs = zip(series.ds[first:last], series.y_T[first:last].tolist(), strict=True)
        numbered = series.numbered
        csv = to_csv([
            {"unique_id": series.name, "ds": int(ds) if numbered else ds, "y": "" if y != y else float(f"{y:.10g}")}
            for ds, y in pairs
        ])  # fmt: skip
        part = next(iter(read_series(csv).series.values()))
        length = int(np.searchsorted(part.times_T, series.times_T[until - 1])) + 1
        return cls(csv, part, length, season, horizon)


def window_of(form: Mapping[str, Any]) -> Window:
    """Where the form puts origin, context and truth. Raises UserError with what does not fit."""
    series = series_of(form)
    asked = {name: _whole(form, name) for name in ("horizon", "context", "back", "season")}
    horizon, held = asked["horizon"], form.get("truth") != BEYOND
    check_ask(series, horizon)
    until = len(series) - asked["back"] - (horizon if held else 0)
    if until < LEAST_VALUES:
        taken = " and ".join(
            text for on, text in ((held, f"{horizon} held back"), (asked["back"], f"{asked['back']} moved back")) if on
        )
        left = f"{max(until, 0)} {'is' if until == 1 else 'are'} left to look back on"
        raise UserError(
            f"'{series.name}' has {len(series)} steps; with {taken}, {left}, and {LEAST_VALUES} are needed: "
            "take a shorter horizon, or forecast behind the end."
        )
    first = max(0, until - asked["context"])
    known = np.isfinite(series.y_T)
    first += int(known[first:until].argmax())
    last = max(int(np.nonzero(known[: until + horizon])[0][-1]) + 1, first + 1)
    until = min(until, last)
    if known[first:until].sum() < LEAST_VALUES:
        raise UserError(
            f"The context of '{series.name}' has {int(known[first:until].sum())} values between {series.ds[first]} and "
            f"{series.ds[until - 1]}; at least {LEAST_VALUES} are needed: take a longer one."
        )
    Scale.of(series.y_T[first:until])
    return Window.cut(series, first, until, last, _season(series, asked["season"], until - first), horizon)


def _season(series: Series, asked: int, length: int) -> int:
    """The season that was asked for, or that of the series where it fits twice into the context. Raises UserError."""
    if not asked:
        return series.season if 2 * series.season <= length else 1
    if asked >= length:
        raise UserError(
            f"A season of {asked} steps does not fit into the context of '{series.name}', which has {length}; "
            f"give one below {length}, or 0 to have it found."
        )
    return asked


def _whole(form: Mapping[str, Any], name: str) -> int:
    low, high = (int(x) for x in NUMBERS[name][:2])
    value = form.get(name)
    if not isinstance(value, int | float) or value != int(value) or not low <= value <= high:
        label = re.split(r"[:,(]", LABELS[name])[0].strip().lower()
        given = "nothing" if value is None else repr(value)
        raise UserError(f"The {label} must be a whole number from {low} to {high}, but {given} was given.")
    return int(value)


def reading(form: Mapping[str, Any]) -> dict[str, Any]:
    """What was read, for the card under the menu: a line about the series, its curve, problems of the file, errors."""
    told: dict[str, Any] = {"title": "", "facts": [], "provenance": "", "problems": [], "error": "", "curve": []}
    try:
        if form.get("data") not in house() and (form.get("csv") or "").strip():
            told["problems"] = list(pasted(form["csv"]).problems)
        series = series_of(form)
    except UserError as error:
        return told | {"error": str(error)}
    told |= {"title": series.name, "facts": _facts(series)}
    if form.get("data") in house():
        told["provenance"] = house()[form["data"]].provenance
    try:
        window = window_of(form)
    except UserError as error:
        return told | {"error": str(error)} | _curve(series, None, None)
    times_T = window.series.times_T
    first, last = (int(np.searchsorted(series.times_T, end)) for end in (times_T[0], times_T[window.until - 1]))
    told["facts"].append(f"season {window.season}" if window.season > 1 else "no season")
    told["facts"].append(f"origin {window.series.ds[window.until - 1].removesuffix(':00')}")
    return told | _curve(series, first, last, window.horizon)


def _facts(series: Series) -> list[str]:
    names = {"h": "hourly", "D": "daily", "B": "business days", "W": "weekly", "MS": "monthly", "ME": "monthly"}
    names |= {"QS": "quarterly", "QE": "quarterly", "YS": "yearly", "YE": "yearly", "1": "numbered"}
    gaps = int((~np.isfinite(series.y_T)).sum())
    every = names.get(series.frequency.name, f"every {series.frequency.name}") if series.frequency.name else "irregular"
    return [f"{len(series)} steps", every, *([f"{gaps} gap{'s' if gaps > 1 else ''}"] if gaps else [])]


def _curve(series: Series, first: int | None, last: int | None, horizon: int = 0, most: int = 360) -> dict[str, Any]:
    """At most `most` values of the whole series, lowest and highest of each stretch; and what is looked back on."""
    size = max(1, -(-2 * len(series) // most)) if len(series) > most else 1
    points: list[list[float | None]] = []
    for start in range(0, len(series), size):
        part = series.y_T[start : start + size]
        known = np.nonzero(np.isfinite(part))[0]
        at = sorted({int(known[part[known].argmin()]), int(known[part[known].argmax()])}) if len(known) else []
        points += [[start + i, float(f"{part[i]:.5g}")] for i in at] or [[start, None]]
    return {"curve": points, "length": len(series), "first": first, "last": last, "horizon": horizon}


# ----------------------------------------------------------------------------------------------------------- requests
def requests_of(form: Mapping[str, Any], catalog: Catalog) -> list[Request]:
    """One request a lane, the baseline first. Raises UserError."""
    window = window_of(form)
    paths = _whole(form, "paths")
    prompt, seed = window.prompt, seed_of(form)
    lanes = [{"strategy": BASELINE, "models": {}, "knobs": {}}, *form["lanes"]]
    return [_request(lane, prompt, window.horizon, paths, seed, form, catalog) for lane in lanes if lane]


def _request(
    lane: Mapping[str, Any], prompt: dict[str, Any], horizon: int, paths: int, seed: int, form: Mapping[str, Any],
    catalog: Catalog,
) -> Request:  # fmt: skip
    found = strategies().get(lane["strategy"])
    settings = {**lane["knobs"], **({"paths": paths} if found and "paths" in found.knobs else {})}
    budget = horizon
    if found and found.protocol is FleetSession:  # paths are texts that are written together
        texts = min(paths, MOST_TOKEN_PATHS)
        prompt, budget = {**prompt, "paths": texts}, horizon * texts
    target = target_for(lane["strategy"], form, catalog)
    models = {**({"target": target} if target else {}), **lane["models"]}
    return Request(lane["strategy"], prompt, models, settings, sampling_of(form), budget, seed)


def forecasters(catalog: Catalog, protocol: str = "paths") -> list[Entry]:
    """The models of series of a kind that can be a target."""
    return [e for e in knobs.models_for(catalog, protocol, modality="series") if not e.id.endswith("-draft")]


def models_of_menu(catalog: Catalog) -> list[Entry]:
    """The forecasters of the menu: those of paths, then those which give bands alone, such as published ones."""
    paths, bands = forecasters(catalog), forecasters(catalog, PROTOCOL_NAMES[BandSession])
    return [*paths, *(e for e in bands if e not in paths)]


def target_for(strategy_id: str, form: Mapping[str, Any], catalog: Catalog) -> str:
    """The model that a strategy gets: the chosen one where it can do what the strategy asks for, else the usual one.

    A model can if there are models for the other roles beside it.
    """
    found = strategies().get(strategy_id)
    if found is None:
        return ""
    models = sorted(forecasters(catalog, PROTOCOL_NAMES[found.protocol]), key=lambda e: not e.available)
    helpers = [role for role in found.roles if role != "target"]
    able = [e.id for e in models if all(_has(catalog, role, e.id) for role in helpers)]
    chosen = form.get("model") or ""
    if found.base is ForecastSession and chosen in able:
        return chosen
    if found.protocol is BandSession and HUB_ID.fullmatch(chosen):  # any forecaster of the hub; its loader judges it
        return chosen
    usual = _usual(catalog, found.protocol)
    return usual if usual in able else next(iter(able), "")


def _usual(catalog: Catalog, protocol: type) -> str:
    try:
        return catalog.default_target(protocol)
    except UserError:
        return ""


def _has(catalog: Catalog, role: str, target: str) -> bool:
    try:
        return bool(catalog.default(role, target))
    except UserError:
        return False


def offered(catalog: Catalog) -> list[Strategy]:
    """The strategies of the menu, the baseline first: those of the forecaster, and others whose models are here."""
    known = knobs.playable(knobs.offered(*PROTOCOLS, modality="series"), catalog, "series")
    shown = [
        s for s in known
        if s.protocol in OF_FORECASTER or any(e.available for e in forecasters(catalog, PROTOCOL_NAMES[s.protocol]))
    ]  # fmt: skip
    return sorted(shown, key=lambda s: s.id != BASELINE)


def form_of(traces: Sequence[Trace]) -> dict[str, Any]:
    """The form that would make these forecasts again."""
    first = traces[0].request
    raw = first.prompt if isinstance(first.prompt, Mapping) else {"csv": first.prompt}
    form: dict[str, Any] = {"horizon": first.budget, "seed": first.seed, "truth": HOLD}
    form |= {"temperature": first.sampling.temperature, "lanes": lanes_of(traces)}
    form |= {"paths": paths} if (paths := first.knobs.get("paths")) else {}
    if target := first.models.get("target"):
        form["model"] = target
    table = pasted(raw["csv"]) if "csv" in raw else None
    if table is None:
        return form
    name = str(raw.get("series") or next(iter(table.series)))
    part, until = table.series[name], int(raw.get("until") or len(table.series[name]))
    ours = shipped(house()[name].path).series[name] if name in house() else None
    if ours is not None and part.times_T[until - 1] in ours.times_T:
        last = int(np.searchsorted(ours.times_T, part.times_T[until - 1])) + 1
        form |= {"data": name, "back": max(0, len(ours) - first.budget - last)}
    else:
        form |= {"data": OWN, "csv": raw["csv"], "own": name, "back": max(0, len(part) - first.budget - until)}
    form["context"] = min(LONGEST_CONTEXT, max(int(NUMBERS["context"][0]), until))
    form["truth"] = HOLD if len(part) > until else BEYOND
    return form


CHOICES = {"data": [*house(), OWN], "truth": (HOLD, BEYOND), "precision": PRECISIONS}
