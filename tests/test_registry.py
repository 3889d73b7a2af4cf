"""Signatures are the only description of a strategy: reading them, checking knobs, and the lists made from them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from backend import registry
from backend.chance import Ask
from backend.errors import UserError
from backend.protocols import PROTOCOL_NAMES, CausalSession, MaskedSession
from backend.registry import Option, Strategy, compatible, find, strategies, strategy
from backend.types import Guarantee, Knob, Step
from tests.test_run import sentence_of


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Strategy:
    """A strategy with a knob of every kind, registered for one test."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    @strategy(paper="1234.56789", guarantee=Guarantee.LOSSY, family="toys")
    def every_kind(
        target: CausalSession,
        painter: MaskedSession,
        ask: Ask,
        *,
        width: Annotated[int, Knob(1, 8, "how wide")] = 4,
        share: Annotated[float, Knob(0.0, 1.0, "how much")] = 0.5,
        fast: Annotated[bool, Knob(None, None, "whether to hurry")] = False,
        rule: Annotated[Literal["first", "last"], Knob(None, None, "which one")] = "first",
    ) -> Iterator[Step]:
        """Do nothing."""
        yield Step(())

    return registry._registered["every_kind"]


def register(run: Callable[..., Any]) -> None:
    strategy(paper="", guarantee=Guarantee.LOSSY, family="toys")(run)


# ------------------------------------------------------------------------------------------------------------ reading
def test_signature_is_read(toy: Strategy) -> None:
    assert toy.id == "every_kind"
    assert toy.roles == {"target": CausalSession, "painter": MaskedSession}
    assert toy.protocol is CausalSession
    assert toy.knobs == {
        "width": Option(int, 4, 1, 8, "how wide"),
        "share": Option(float, 0.5, 0.0, 1.0, "how much"),
        "fast": Option(bool, False, None, None, "whether to hurry"),
        "rule": Option(str, "first", None, None, "which one", ("first", "last")),
    }
    assert (toy.paper, toy.guarantee, toy.family) == ("1234.56789", Guarantee.LOSSY, "toys")
    assert toy.title
    assert toy.about


def test_bad_signatures_are_our_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})

    def no_target(draft: CausalSession, ask: Ask) -> Iterator[Step]: ...
    def no_protocol(target: int, ask: Ask) -> Iterator[Step]: ...
    def no_knob(target: CausalSession, ask: Ask, *, width: int = 4) -> Iterator[Step]: ...
    def bare(target: CausalSession, ask: Ask, *, width: Annotated[int, "wide"] = 4) -> Iterator[Step]: ...
    def odd(target: CausalSession, ask: Ask, *, width: Annotated[list[int], Knob(1, 2, "")]) -> Iterator[Step]: ...

    for run, complaint in (
        (no_target, "has no role `target`"),
        (no_protocol, "must be a session protocol"),
        (no_knob, "must be Annotated"),
        (bare, "has no Knob"),
        (odd, "has the unknown type"),
    ):
        with pytest.raises(AssertionError, match=complaint):
            register(run)
    assert registry._registered == {}


def test_a_default_out_of_range_is_found_on_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})

    def off(target: CausalSession, ask: Ask, *, width: Annotated[int, Knob(1, 8, "")] = 9) -> Iterator[Step]: ...

    with pytest.raises(UserError, match="off: width must lie between 1 and 8, but 9 was given"):
        register(off)


# -------------------------------------------------------------------------------------------------------------- knobs
def test_defaults_are_settled(toy: Strategy) -> None:
    assert toy.settle({}) == {"width": 4, "share": 0.5, "fast": False, "rule": "first"}
    assert toy.settle({"width": 8, "rule": "last"}) == {"width": 8, "share": 0.5, "fast": False, "rule": "last"}


def test_edges_and_whole_floats_are_taken(toy: Strategy) -> None:
    """Sliders send 3.0 for 3, and 1 for 1.0."""
    settled = toy.settle({"width": 3.0, "share": 1})
    assert settled["width"] == 3
    assert type(settled["width"]) is int
    assert type(settled["share"]) is float
    assert toy.settle({"width": 1, "share": 0.0})["share"] == 0.0


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("width", 0, "must lie between 1 and 8, but 0 was given"),
        ("width", 9, "must lie between 1 and 8, but 9 was given"),
        ("width", 2.5, "must be a whole number, but 2.5 was given"),
        ("width", "4", "must be a whole number, but '4' was given"),
        ("width", True, "must be a whole number, but True was given"),
        ("width", None, "must be a whole number, but None was given"),
        ("width", float("inf"), "must be a whole number, but inf was given"),
        ("share", 1.01, "must lie between 0.0 and 1.0, but 1.01 was given"),
        ("share", float("nan"), "must lie between 0.0 and 1.0, but nan was given"),
        ("share", "half", "must be a number, but 'half' was given"),
        ("share", [0.5], "must be a number, but [0.5] was given"),
        ("fast", 1, "must be true or false, but 1 was given"),
        ("fast", "yes", "must be true or false, but 'yes' was given"),
        ("rule", "middle", "must be one of first, last, but 'middle' was given"),
        ("rule", 1, "must be a word, but 1 was given"),
    ],
)
def test_knobs_are_refused_in_one_sentence(toy: Strategy, name: str, value: Any, wanted: str) -> None:
    with pytest.raises(UserError) as caught:
        toy.settle({name: value})
    assert str(caught.value) == f"every_kind: {name} {wanted}."


def test_unknown_option_lists_the_known_ones(toy: Strategy) -> None:
    with pytest.raises(UserError) as caught:
        toy.settle({"gamma": 3})
    assert str(caught.value) == "every_kind has no option 'gamma'; its options are: width, share, fast, rule."


# -------------------------------------------------------------------------------------------------------------- lists
def test_every_strategy_is_described_in_full() -> None:
    for s in strategies().values():
        assert s.title, s.id
        assert s.about[0].isupper(), s.id
        assert s.about.endswith("."), f"{s.id}: the first paragraph of its docstring must be a sentence: {s.about!r}"
        assert s.paper, s.id
        assert s.family, s.id
        assert next(iter(s.roles)) == "target", s.id
        assert all(option.help for option in s.knobs.values()), s.id


def test_the_baseline_comes_first() -> None:
    assert next(iter(strategies())) == "autoregressive"
    families = [s.family for s in strategies().values()]
    assert families == ["baseline", *sorted(families[1:])]


def test_find() -> None:
    assert find("autoregressive").id == "autoregressive"
    with pytest.raises(UserError) as caught:
        find("nothing")
    assert "'nothing'" in sentence_of(caught.value)


def test_compatible() -> None:
    assert {s.id for s in compatible(frozenset({CausalSession}))} == {
        s.id for s in strategies().values() if s.protocol is CausalSession
    }
    assert compatible(frozenset()) == []


# -------------------------------------------------------------------------------------------------------- command line
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.main(["--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["id"] for entry in listed] == list(strategies())
    for entry in listed:
        assert {"id", "protocol", "roles", "knobs", "guarantee", "paper", "title"} <= set(entry)
        assert entry["protocol"] in PROTOCOL_NAMES.values()
        assert entry["guarantee"] in [g.value for g in Guarantee]
        for knob in entry["knobs"].values():
            assert {"type", "default", "low", "high", "help"} <= set(knob)


def test_plain_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(strategies())


def test_check_compares_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme, (begin, end) = tmp_path / "README.md", registry.TABLE
    readme.write_text(f"# Title\n\n{begin}\n{registry.table()}\n{end}\n\nMore.\n")
    assert registry.main(["--check", str(readme)]) == 0
    readme.write_text(readme.read_text().replace("autoregressive", "autoregressiv"))
    assert registry.main(["--check", str(readme)]) == 1
    readme.write_text("# No table\n")
    assert registry.main(["--check", str(readme)]) == 1
    assert "out of date" in capsys.readouterr().out


def test_write_puts_the_table_in_and_nothing_else_changes(tmp_path: Path) -> None:
    readme, (begin, end) = tmp_path / "README.md", registry.TABLE
    readme.write_text(f"# Title\n\n{begin}\nold\n{end}\n\nMore.\n")
    assert registry.main(["--write", str(readme)]) == 0
    assert registry.main(["--check", str(readme)]) == 0
    assert readme.read_text().startswith("# Title\n\n")
    assert readme.read_text().endswith("\n\nMore.\n")
    assert "old" not in readme.read_text()


def test_table_has_a_row_a_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.main(["--table"]) == 0
    rows = capsys.readouterr().out.strip().splitlines()
    assert len(rows) == 2 + len(strategies())
    assert all(row.count("|") == 6 for row in rows), "a cell holds a bar"


def test_the_module_runs_as_a_command() -> None:
    """One registry, although the file is then imported twice."""
    done = subprocess.run(
        [sys.executable, "-m", "backend.registry", "--json"], capture_output=True, text=True, check=True
    )
    assert [entry["id"] for entry in json.loads(done.stdout)] == list(strategies())
