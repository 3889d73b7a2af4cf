"""All strategies, found by importing `backend/strategies`, described by their own signatures.

`python -m backend.registry --json` lists them; `--write README.md` puts the table in, `--check README.md` compares it.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import pkgutil
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from backend.chance import Ask
from backend.documents import grid, is_current, marks, write
from backend.errors import UserError
from backend.protocols import PROTOCOL_NAMES, PROTOCOLS, base
from backend.types import Guarantee, Knob, Step

TABLE = marks("strategies", "python -m backend.registry --write README.md")


@dataclass(frozen=True)
class Option:
    """One keyword argument of a strategy. kind: int, float, bool or str; choices: for str, what it may be."""

    kind: type
    default: Any
    low: float | None
    high: float | None
    help: str
    choices: tuple[str, ...] = ()

    def check(self, strategy: str, name: str, value: Any) -> Any:
        """The value, or a UserError that says what it may be. Nothing is clamped."""
        if self.kind is int and type(value) is float and value.is_integer():
            value = int(value)
        elif self.kind is float and type(value) is int and abs(value) < 1 << 53:
            value = float(value)
        elif type(value) is not self.kind:
            raise UserError(f"{strategy}: {name} must be {_kind_name(self.kind)}, but {value!r} was given.")
        if self.choices and value not in self.choices:
            raise UserError(f"{strategy}: {name} must be one of {', '.join(self.choices)}, but {value!r} was given.")
        if (self.low is not None and not value >= self.low) or (self.high is not None and not value <= self.high):
            raise UserError(f"{strategy}: {name} must lie between {self.low} and {self.high}, but {value} was given.")
        return value


@dataclass(frozen=True)
class Strategy:
    """A registered strategy: its generator function and what the signature and docstring say about it."""

    id: str
    run: Callable[..., Iterator[Step]]
    roles: Mapping[str, type]  # session protocol by role, `target` first
    knobs: Mapping[str, Option]
    guarantee: Guarantee
    only: Mapping[str, Any]  # knob values that the guarantee needs; with others the strategy is lossy
    paper: str
    family: str
    title: str
    about: str = field(repr=False)

    @property
    def protocol(self) -> type:
        """The protocol of the role `target`."""
        return self.roles["target"]

    @property
    def base(self) -> type:
        """The same without what the target can do beyond it: what kind of sequence is written."""
        return base(self.protocol)

    def settle(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """All knob values: the given ones checked, defaults for the rest. Raises UserError."""
        unknown = [name for name in knobs if name not in self.knobs]
        if unknown:
            known = ", ".join(self.knobs) or "none"
            raise UserError(f"{self.id} has no option {unknown[0]!r}; its options are: {known}.")
        return {
            name: option.check(self.id, name, knobs[name]) if name in knobs else option.default
            for name, option in self.knobs.items()
        }

    def promises(self, knobs: Mapping[str, Any]) -> Guarantee:
        """What it guarantees with these knob values; knobs left out have their defaults."""
        kept = all(knobs.get(name, self.knobs[name].default) == value for name, value in self.only.items())
        return self.guarantee if kept else Guarantee.LOSSY

    def describe(self) -> dict[str, Any]:
        """The strategy as plain JSON data."""
        return {
            "id": self.id,
            "title": self.title,
            "protocol": PROTOCOL_NAMES[self.base],
            "roles": {role: PROTOCOL_NAMES[protocol] for role, protocol in self.roles.items()},
            "knobs": {
                name: {
                    "type": o.kind.__name__,
                    "default": o.default,
                    "low": o.low,
                    "high": o.high,
                    "choices": list(o.choices),
                    "help": o.help,
                }
                for name, o in self.knobs.items()
            },
            "guarantee": self.guarantee.value,
            "only": dict(self.only),
            "paper": self.paper,
            "family": self.family,
            "about": self.about,
        }


_registered: dict[str, Strategy] = {}


def strategy(
    *, paper: str, guarantee: Guarantee, family: str, only: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., Iterator[Step]]], Callable[..., Iterator[Step]]]:
    """Register a generator function as a strategy under its own name.

    Args:
        paper: arXiv number or another short reference. guarantee: what the output's law is.
        family: heading under which menus list it, e.g. "draft model". only: knob values that the guarantee needs.
    """

    def register(run: Callable[..., Iterator[Step]]) -> Callable[..., Iterator[Step]]:
        same = _registered.get(run.__name__)
        assert same is None or same.run.__module__ == run.__module__, f"two strategies are called {run.__name__}"
        roles, knobs = _read_signature(run)
        assert all(name in knobs for name in only or {}), f"{run.__name__} has no knob of `only`"
        about = inspect.getdoc(sys.modules[run.__module__]) or ""
        head, _, rest = about.partition(": ")
        sentence = rest.split("\n\n")[0].replace("\n", " ")
        _registered[run.__name__] = Strategy(
            run.__name__,
            run,
            roles,
            knobs,
            guarantee,
            only or {},
            paper,
            family,
            head,
            f"{sentence[:1].upper()}{sentence[1:]}",
        )
        return run

    return register


def strategies() -> Mapping[str, Strategy]:
    """Every strategy by id, plain decoding first, then by family and id."""
    import backend.strategies as home

    for module in pkgutil.walk_packages(home.__path__, home.__name__ + "."):
        importlib.import_module(module.name)
    order = sorted(_registered.values(), key=lambda s: (s.family != "baseline", s.family, s.id))
    return {s.id: s for s in order}


def find(strategy_id: str) -> Strategy:
    """The strategy of that id. Raises UserError with the known ids."""
    known = strategies()
    if strategy_id not in known:
        raise UserError(f"There is no strategy {strategy_id!r}; pick one of: {', '.join(known)}.")
    return known[strategy_id]


def compatible(speaks: frozenset[type]) -> list[Strategy]:
    """The strategies whose target protocol a model that speaks these protocols can play."""
    return [s for s in strategies().values() if s.protocol in speaks]


def _read_signature(run: Callable[..., Any]) -> tuple[dict[str, type], dict[str, Option]]:
    hints = get_type_hints(run, include_extras=True)
    roles: dict[str, type] = {}
    knobs: dict[str, Option] = {}
    for name, parameter in inspect.signature(run).parameters.items():
        hint = hints[name]
        if hint is Ask:
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            knobs[name] = _read_option(run.__name__, name, hint, parameter.default)
        else:
            assert hint in PROTOCOLS, f"{run.__name__}: {name} must be a session protocol, not {hint}"
            roles[name] = hint
    assert "target" in roles, f"{run.__name__} has no role `target`"
    return roles, knobs


def _read_option(strategy_id: str, name: str, hint: Any, default: Any) -> Option:
    assert get_origin(hint) is Annotated, f"{strategy_id}: {name} must be Annotated[type, Knob(...)]"
    kind, knob = get_args(hint)
    assert isinstance(knob, Knob), f"{strategy_id}: {name} has no Knob"
    choices: tuple[str, ...] = ()
    if get_origin(kind) is Literal:
        choices, kind = typing.cast(tuple[str, ...], get_args(kind)), str
    assert kind in (int, float, bool, str), f"{strategy_id}: {name} has the unknown type {kind}"
    option = Option(kind, default, knob.low, knob.high, knob.help, choices)
    option.check(strategy_id, name, default)
    return option


def _kind_name(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}[kind]


def table() -> str:
    """The strategies as a Markdown table, for the README."""
    rows = []
    for s in strategies().values():
        paper = f"[{s.paper}](https://arxiv.org/abs/{s.paper})" if s.paper[:4].isdigit() else s.paper
        rows.append((f"`{s.id}`", s.family, s.promises({}).value, paper, s.about))
    return grid("strategy | family | guarantee | paper | what it does", rows)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m backend.registry", description="List all strategies.")
    parser.add_argument("--json", action="store_true", help="print a list with one object a strategy")
    parser.add_argument("--table", action="store_true", help="print the README's table")
    parser.add_argument("--check", metavar="FILE", type=Path, help="exit 1 unless FILE holds the current table")
    parser.add_argument("--write", metavar="FILE", type=Path, help="put the current table into FILE")
    args = parser.parse_args(argv)
    try:
        return _answer(args)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _answer(args: argparse.Namespace) -> int:
    if args.check:
        if not is_current(args.check, TABLE, table()):
            print(f"{args.check} is out of date: run python -m backend.registry --write {args.check}")
            return 1
        print(f"{args.check} is up to date.")
    elif args.write:
        write(args.write, TABLE, table())
    elif args.json:
        from backend.offers import series_models  # it reads the registry

        listed = [{**s.describe(), "series_models": series_models(s)} for s in strategies().values()]
        print(json.dumps(listed, indent=1))
    elif args.table:
        print(table())
    else:
        for s in strategies().values():
            print(f"{s.id:22} {s.promises({}).value:13} {s.family:14} {s.title}")
    return 0


if __name__ == "__main__":
    import backend.registry as canonical  # one registry, also when this file runs as __main__

    sys.exit(canonical.main())
