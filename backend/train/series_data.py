"""Makes assets/series: self-generated series, chaotic systems, and public-domain series read from installed packages.

    python -m backend.train.series_data exponents    # Lyapunov exponents of the twelve systems, minutes
    python -m backend.train.series_data files        # the series, their provenance and index.json

Needs statsmodels and vega_datasets to be installed for the public-domain ones; they are found, never imported, and
where one is missing its files stay as they are.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.codecs.dates import Floats
from backend.codecs.series import read_series
from backend.series import chaos
from backend.series.synthetic import FAMILIES

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "series"
SEED = 2026
LENGTH = 420  # of synthetic series
CHAOS_LENGTH = 400
DIGITS = 6  # significant ones

Rows = Iterator[tuple[str, str, float]]  # unique_id, ds, y


@dataclass(frozen=True)
class Source:
    """Where a file comes from: a package, a file inside it, how its rows are read, and one line of provenance."""

    package: str
    path: str
    read: Callable[[list[dict[str, str]]], Rows]
    provenance: str


def _co2(rows: list[dict[str, str]]) -> Rows:
    for row in rows:
        date = row["date"]
        yield "co2", f"{date[:4]}-{date[4:6]}-{date[6:]}", _number(row["co2"])


def _elnino(rows: list[dict[str, str]]) -> Rows:
    for row in rows:
        for month, value in enumerate(list(row.values())[1:], 1):
            yield "sea_surface", f"{row['YEAR']}-{month:02}-01", _number(value)


def _economy(rows: list[dict[str, str]]) -> Rows:
    for name in ("realgdp", "realinv", "cpi", "unemp"):
        for row in rows:
            month = 3 * int(float(row["quarter"])) - 2
            yield name, f"{int(float(row['year']))}-{month:02}-01", _number(row[name])


def _seattle(rows: list[dict[str, str]]) -> Rows:
    for name in ("temp_max", "precipitation"):
        for row in rows:
            yield f"seattle_{name}", row["date"].replace("/", "-"), _number(row[name])


def _san_francisco(rows: list[dict[str, str]]) -> Rows:
    for row in rows[: 24 * 120]:
        yield "san_francisco_temp", row["date"].replace("/", "-"), _number(row["temp"])


SOURCES = {
    "co2": Source("statsmodels", "datasets/co2/co2.csv", _co2,
                  "Weekly CO2 at Mauna Loa 1958-2001, ppm: Keeling and Whorf, Oak Ridge National Laboratory, US "
                  "Department of Energy; public domain as stated by statsmodels 0.15, from which it was read."),
    "sunspots": Source("statsmodels", "datasets/sunspots/sunspots.csv",
                       lambda rows: (("sunspots", row["YEAR"], _number(row["SUNACTIVITY"])) for row in rows),
                       "Yearly sunspot numbers 1700-2008: NOAA National Geophysical Data Center; public domain as "
                       "stated by statsmodels 0.15, from which it was read."),
    "elnino": Source("statsmodels", "datasets/elnino/elnino.csv", _elnino,
                     "Monthly sea surface temperature of the region Nino 1+2, 1950-2010, degrees Celsius: NOAA "
                     "National Weather Service; public domain as stated by statsmodels 0.15, from which it was read."),
    "nile": Source("statsmodels", "datasets/nile/nile.csv",
                   lambda rows: (("nile", row["year"], _number(row["volume"])) for row in rows),
                   "Yearly flow of the Nile at Aswan 1871-1970, 10^8 cubic metres: Cobb 1978; public domain as "
                   "stated by statsmodels 0.15, from which it was read."),
    "economy": Source("statsmodels", "datasets/macrodata/macrodata.csv", _economy,
                      "Quarterly US GDP, investment, consumer prices and unemployment 1959-2009: Federal Reserve Bank "
                      "of St. Louis and US Bureau of Labor Statistics; public domain as stated by statsmodels 0.15, "
                      "from which it was read."),
    "seattle": Source("vega_datasets", "_data/seattle-weather.csv", _seattle,
                      "Daily highest temperature and precipitation in Seattle 2012-2015: NOAA; public domain as "
                      "stated by vega_datasets 0.9, from which it was read."),
    "san_francisco": Source("vega_datasets", "_data/sf-temps.csv", _san_francisco,
                            "Hourly temperature in San Francisco, January to April 2010, degrees Fahrenheit: NOAA; "
                            "public domain as stated by vega_datasets 0.9, from which it was read."),
}  # fmt: skip


def _number(text: str) -> float:
    return float(text) if text.strip() else float("nan")


def _write(name: str, rows: Rows) -> None:
    lines = ["unique_id,ds,y"]
    lines += [f"{i},{ds},{'' if np.isnan(y) else f'{y:.{DIGITS}g}'}" for i, ds, y in rows]
    (FOLDER / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _dated(name: str, y_T: Floats, start: str, unit: str) -> Rows:
    first = np.array(start, dtype=f"datetime64[{unit}]")[()]
    for t, y in enumerate(y_T):
        day = str((first + t).astype("datetime64[D]")) if unit == "M" else str(first + t)
        yield name, day if unit != "h" else f"{day.replace('T', ' ')}:00:00", float(y)


def synthetic() -> Rows:
    """All families, each from a stream of its own."""
    for i, (name, family) in enumerate(FAMILIES.items()):
        y_T = family.make(np.random.default_rng(SEED + i), LENGTH)
        yield from _dated(name, y_T, family.start, family.unit)


def chaotic() -> Rows:
    """One series of every system."""
    for name, system in chaos.SYSTEMS.items():
        for t, y in enumerate(chaos.series(system, 1, CHAOS_LENGTH, SEED)[0], 1):
            yield name, str(t), float(y)


def make_files() -> None:
    """Write every file whose source is there, and the index of all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, source in SOURCES.items():
        found = importlib.util.find_spec(source.package)
        if found is None or not found.submodule_search_locations:
            print(f"{source.package} is not installed, so {name}.csv stays as it is")
            continue
        path = Path(found.submodule_search_locations[0]) / source.path
        with path.open(encoding="utf-8", newline="") as file:
            _write(name, source.read(list(csv.DictReader(file))))
    _write("synthetic", synthetic())
    _write("chaos", chaotic())
    (FOLDER / "index.json").write_text(json.dumps(index(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def index() -> dict[str, object]:
    """What the files hold: provenance of each, and frequency, season and length of every series."""
    own = {
        "synthetic": f"Made by backend.series.synthetic with seed {SEED}; free for any use.",
        "chaos": f"Integrated by backend.series.chaos with seed {SEED}; free for any use.",
    }
    provenance = {name: source.provenance for name, source in SOURCES.items()} | own
    files = []
    for name, line in provenance.items():
        table = read_series(FOLDER / f"{name}.csv")
        assert not table.problems, table.problems
        series = {
            s.name: {"frequency": s.frequency.name, "season": s.season, "length": len(s), "from": s.ds[0]}
            for s in table.series.values()
        }
        files.append({"file": f"{name}.csv", "provenance": line, "series": series})
    return {"files": files}


def measure_exponents(folder: Path = FOLDER) -> None:
    """Write lyapunov.json, system by system; those that are there with the same settings are not measured again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lyapunov.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    out = {}
    for name, system in chaos.SYSTEMS.items():
        settings = {
            "step": system.step, "period": round(system.period, 6), "span": system.span, "settle": system.settle,
            "trajectories": 8 if name == "lorenz96" else 64, "literature": system.exponent, "source": system.source,
        }  # fmt: skip
        before = known.get(name, {})
        if {key: value for key, value in before.items() if key != "exponent"} != settings:
            before = settings | {"exponent": round(chaos.lyapunov(system, int(str(settings["trajectories"]))), 5)}
            print(name, before["exponent"], "literature", system.exponent, flush=True)
        out[name] = before
        path.write_text(json.dumps(known | out, indent=1) + "\n", encoding="utf-8")
    path.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.series_data", description=__doc__)
    parser.add_argument("what", choices=("exponents", "files"))
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the exponents, to measure all anew")
    asked = parser.parse_args()
    make_files() if asked.what == "files" else measure_exponents(asked.out)


if __name__ == "__main__":
    main()
