"""The benchmark of several texts on a tiny model: every schedule serves the same texts, and the sums are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import backend.fleet_bench as fleet_bench
from backend.bench import BASELINE, Prompted
from backend.fleet_bench import FUSION, Served, main, measure, one_by_one, row, table
from backend.timeline import percentile
from backend.types import Request
from tests.toys import ToyCatalog
from tests.toys_fleet import tiny_llama

TEXTS = ["w5 w17 w3", "w9", "w60 w2 w2 w31 w7"]


def catalog() -> Any:
    return ToyCatalog([tiny_llama()])  # type: ignore[list-item]


def test_schedules_write_the_same_texts_and_are_measured() -> None:
    request = Request(FUSION, {"texts": TEXTS}, {}, {"gap": 0, "arrivals": "even", "concurrency": 2}, budget=3 * 8)
    results = measure(catalog(), request, 2, lambda line: None)
    rows = {name: row(name, served, results[BASELINE]) for name, served in results.items()}
    assert all(len(served) == 2 for served in results.values())
    assert {r["same_text"] for r in rows.values()} == {1.0}
    assert {r["new_tokens"] for r in rows.values()} == {24}
    assert rows[BASELINE]["target_calls"] == rows["sequential"]["target_calls"] == 24
    assert rows["fused"]["target_calls"] == 3 + 2 * 7  # prefills, two texts together, then the third alone
    assert rows["sequential"]["target_rows"] == rows["fused"]["target_rows"]
    assert rows[BASELINE]["speedup_time"] == 1.0
    for r in rows.values():
        assert 0 < r["first_token_p50"] <= r["latency_p50"] <= r["latency_p95"]
    assert table(list(rows.values())).count("\n") == 1 + len(rows)


def test_one_by_one_makes_texts_wait_for_those_before() -> None:
    served = one_by_one(catalog(), Request(FUSION, {"texts": TEXTS}, budget=12))
    assert sorted(served.latencies) == list(served.latencies)
    assert served.latencies[-1] == pytest.approx(served.seconds)
    assert all(a < b for a, b in zip(served.latencies, served.first_tokens[1:], strict=False))
    assert served.rate == pytest.approx(12 / served.seconds)


def test_ratios_are_taken_within_a_repeat() -> None:
    texts, trace = ((1, 2),), one_by_one(catalog(), Request(FUSION, {"texts": TEXTS[:1]}, budget=2)).traces
    ours = [Served(texts, s, (s,), (s,), trace) for s in (1.0, 2.0, 8.0)]
    plain = [Served(texts, s, (s,), (s,), trace) for s in (2.0, 8.0, 8.0)]
    assert row("x", ours, plain)["speedup_time"] == 2.0


@pytest.mark.parametrize(("percent", "expected"), [(50, 3.0), (95, 4.8), (25, 2.0)])
def test_percentiles_lie_between_neighbours(percent: float, expected: float) -> None:
    assert percentile([5.0, 1.0, 4.0, 2.0, 3.0], percent) == pytest.approx(expected)
    assert percentile([7.0], percent) == 7.0


def test_the_command_writes_what_it_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = catalog()
    monkeypatch.setattr(fleet_bench, "Catalog", lambda **options: tiny)
    monkeypatch.setattr(fleet_bench, "read_prompts", lambda count: [Prompted(text, "x") for text in TEXTS])
    out = tmp_path / "fusion.json"
    few = ["--model", "tiny/lean", "--texts", "3", "--new-tokens", "4", "--repeats", "1"]
    assert main([*few, "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert [r["schedule"] for r in result["rows"]][-1] == BASELINE
    assert result["environment"]["prompt_tokens"] == [3, 1, 5]
    assert "| fused |" in capsys.readouterr().out
    assert main(["--texts", "4"]) == 2
    assert "4 texts were asked for, but 3 prompts" in capsys.readouterr().err
    assert main(["--texts", "0"]) == 2
