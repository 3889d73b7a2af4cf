"""The series in assets/series, by name. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from backend.codecs.series import Series, read_series

FOLDER = Path(__file__).resolve().parent.parent.parent / "assets" / "series"
GROUPS = {"synthetic.csv": "synthetic", "chaos.csv": "chaos"}  # others were measured


@dataclass(frozen=True, eq=False)
class Shipped:
    """A series of ours. group: "measured", "synthetic" or "chaos". provenance: of its file."""

    series: Series
    group: str
    provenance: str


@cache
def shipped() -> Mapping[str, Shipped]:
    """Every series that ships, in the order of the index: measured ones, then those made by our own code."""
    files = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))["files"]
    return {
        name: Shipped(series, GROUPS.get(item["file"], "measured"), item["provenance"])
        for item in files
        for name, series in read_series(FOLDER / item["file"]).series.items()
    }


@cache
def exponents() -> Mapping[str, float]:
    """The largest Lyapunov exponents of the chaotic series, as measured by our own code, per step of the series."""
    told = json.loads((FOLDER / "lyapunov.json").read_text(encoding="utf-8"))
    return {name: item["exponent"] * item["period"] for name, item in told.items()}
