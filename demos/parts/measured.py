"""What the benchmarks of pictures and of forecasts measured, as rows for the gallery."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend import forecast_table, image_report
from backend.catalog import ASSETS
from backend.registry import strategies
from demos.parts.links import make_link
from demos.parts.parade import SCHEMA, cost_of, head
from demos.parts.why import why_slower


@dataclass(frozen=True)
class Tab:
    """A tab whose lanes were measured.

    Args:
        id, title: of the tab that a row's link opens, and in the switch of the gallery. path: what was measured.
        read: the result as rows. unit, base: what is written, one of it, and the lane that ratios are against.
        labels: of the columns that texts call otherwise. hint: what the ratios are.
    """

    id: str
    title: str
    path: Path
    read: Callable[[Mapping[str, Any]], dict[str, Any]]
    unit: str
    base: str
    labels: Mapping[str, str]
    hint: str


BENCH = ASSETS / "bench"
TABS = (
    Tab(
        "image", "Images", BENCH / "image.json", image_report.for_gallery, "cell", "autoregressive",
        {"length": "tokens / call", "rate": "pictures/s", "text": "pictures"},
        "× is against plain decoding, per picture. Press a name for details.",
    ),
    Tab(
        "forecast", "Forecasts", BENCH / "forecasting.json", forecast_table.for_gallery, "value", "recursive",
        {"length": "steps / call", "rate": "forecasts/s", "text": "error"},
        "× is against the plain way to unroll the same kind of model, per forecast. Press a name for details.",
    ),
)  # fmt: skip


def others() -> list[dict[str, Any]]:
    """The values that the gallery can be switched to, one a tab that was measured: {"id", "title", "value"}."""
    found = [(tab, tab_rows(tab)) for tab in TABS]
    return [{"id": tab.id, "title": tab.title, "value": value} for tab, value in found if value is not None]


def tab_rows(tab: Tab) -> dict[str, Any] | None:
    """All lanes of a tab; None where nothing was measured."""
    if not tab.path.is_file():
        return None
    result = tab.read(json.loads(tab.path.read_text(encoding="utf-8")))
    env, known = result["environment"], strategies()
    rows = [r for r in result["rows"] if r["strategy"] in known]
    plain = {r["lane"]: r for r in rows}
    where = f"{env.get('cores')}-core {env.get('cpu')}" if env.get("device") == "cpu" else str(env.get("device"))
    what = "prompts" if tab.unit == "cell" else f"series, {env['horizon']} steps ahead"
    asked = f"{env['prompts']} {what}"
    return {
        "schema": SCHEMA,
        "rev": 1,
        "run_id": f"recorded-{tab.id}",
        "recorded": f"on {env.get('date')}, {where}, {env.get('dtype')}: {asked}, medians",
        "state": "done",
        "at": len(rows),
        "ahead": 0,
        "wall": 0.0,
        "prompt": "",
        "temperature": env.get("temperature", 1.0),
        "budget": env.get("new_tokens", 0),
        "labels": dict(tab.labels),
        "hint": tab.hint,
        "rows": [_row(tab, r, plain.get(r.get("against", tab.base))) for r in rows],
    }


def _row(tab: Tab, r: Mapping[str, Any], base: Mapping[str, Any] | None) -> dict[str, Any]:
    others_calls = sum(n for role, n in r["calls_by_role"].items() if role.partition(".")[0] != "target")
    told, set_here = head(r["strategy"], r["knobs"]), r["lane"].split(":")[1:]
    knobs = ", ".join(part.replace("=", " ") for part in set_here if not part.startswith("target"))
    written = r.get("horizon", r["slots"])
    slow = base is not None and r["speedup_time"] < 1
    events = r.get("kind") == "events"  # they have a form of their own, below the lanes
    return {
        **told,
        "id": r["lane"],
        "title": f"{told['title']}, {knobs}" if knobs else told["title"],
        "guarantee": r["guarantee"],
        "state": "done",
        "message": "",
        "tokens": 1,
        "calls": round(r["calls"], 1),
        "draft_calls": round(others_calls, 1),
        "length": round(written / r["calls"], 3) if r["calls"] else None,
        "rate": round(1 / r["seconds_each"], 4),
        "speed_calls": round(r["speedup_calls"], 3),
        "speed_time": round(r["speedup_time"], 3),
        "same": "baseline" if r is base else "recorded",
        "note": _note(tab, r),
        **_detail(r),
        "why": why_slower(cost_of(r), cost_of(base), tab.unit) if slow and base is not None else "",
        "link": make_link(tab.id, {"events": {}}, view="events")
        if events
        else make_link(tab.id, {"lanes": [{"strategy": r["strategy"], "knobs": _set(r), "models": {}}]}),
    }


def _note(tab: Tab, r: Mapping[str, Any]) -> str:
    """What the output is worth, in a few words."""
    q = r.get("quality") or {}
    if "law_of" in q:
        return f"as {q['law_of']}"
    if tab.unit == "cell":
        return "–" if q.get("attributes") is None else f"{q['attributes']:.1%} as asked"
    return "–" if q.get("wql") is None else f"WQL {q['wql']:.3f}, MASE {q['mase']:.2f}"


def _detail(r: Mapping[str, Any]) -> dict[str, str]:
    """What pictures are worth to the plain painter, and how far they are from drawn ones; nothing for other rows."""
    q = r.get("quality") or {}
    if q.get("by_painter") is None or q.get("fd_house") is None:
        return {}
    return {
        "detail": f"{q['by_painter']:.2f} nats/cell, FD-house {q['fd_house']:.0f}",
        "meaning_of_detail": "mean log probability of a cell under the plain painter, the higher the likelier; and the "
        f"Frechet distance in the judge's features to drawn pictures, at which as many other drawn ones are "
        f"{q['fd_house_of_real']:.0f} away",
    }


def _set(r: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs that the lane's name sets."""
    named = {part.partition("=")[0] for part in r["lane"].split(":")[1:]}
    return {name: value for name, value in r["knobs"].items() if name in named}
