"""Styles of drawn people: rows of codes, what goes together, and pairs that training never sees.

Lorelei, Notionists and Open Peeps are avatar styles under CC0 1.0, drawn by node (`backend/train/portraits/styles.mjs`)
at 64 pixels a side; nothing here draws. Their variants have numbers for names: which of them is "a bun" or "a grin" is
this project's reading of them at that size, in one module a style. Attributes that cannot be seen at that size are left
out, and pictures on which one would hide another are not drawn. Rows of codes are those of `portraits`: one a field,
0 for "any".

Letters: A attributes, B pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from backend.codecs.atlas import Bools, Ints
from backend.errors import UserError

ANY, NONE = "any", "none"
SIDE = 64
BACKGROUNDS = {
    **{"white": "ffffff", "mint": "b6e8d2", "blue": "a9d4f5"},
    **{"lavender": "cdbcf0", "pink": "fac3dc", "yellow": "fff0a0"},
}
FACES = ("left", "right")  # where it looks; the styles look right, and are mirrored
Vocabulary = Mapping[str, tuple[str, ...]]


class Drawing:
    """What is known of a picture; every field is a value of its vocabulary or "any"."""

    kind: ClassVar[Kind]
    style: str

    def row(self) -> tuple[int, ...]:
        """The codes of the fields. Raises UserError for a value that its field does not have."""
        return tuple(self.kind.code(name, getattr(self, name)) for name in self.kind.vocabulary)

    @classmethod
    def of(cls, row: Any) -> Self:
        """The attributes of a row of codes."""
        told = zip(cls.kind.vocabulary.items(), row, strict=True)
        return cls(**{name: (ANY, *values)[int(code)] for (name, values), code in told})


D = TypeVar("D", bound=Drawing)


@dataclass(frozen=True)
class Limit:
    """What one attribute leaves possible of another.

    Args:
        of, on: the two. allowed: values of `on` by value of `of`; `rest` for values that are not listed.
        why: the end of the sentence that tells it.
    """

    of: str
    on: str
    allowed: Mapping[str, tuple[str, ...]]
    rest: tuple[str, ...]
    why: str

    def leaves(self, value: str) -> tuple[str, ...]:
        """The values of `on` that go with a value of `of`."""
        return self.allowed.get(value, self.rest)


@dataclass(frozen=True)
class Kind:
    """The rules of a style.

    Args:
        name: of one picture. vocabulary: values by attribute. limits: what goes together; none limits what an earlier
            one starts from. held_out: pairs that training never sees, and tests ask for.
        absent: how often an attribute is drawn as "none", where not as often as others.
    """

    name: str
    vocabulary: Vocabulary
    limits: tuple[Limit, ...]
    held_out: tuple[Mapping[str, str], ...]
    absent: Mapping[str, float]

    def code(self, name: str, value: str) -> int:
        """The code of an attribute's value. Raises UserError for a value that the attribute does not have."""
        values = self.vocabulary[name]
        if value not in (ANY, *values):
            raise UserError(f"The attribute '{name}' cannot be '{value}'; it is one of: {', '.join(values)}.")
        return (ANY, *values).index(value)

    def settle(self, known: D) -> D:
        """The same with what follows from it filled in. Raises UserError if no picture is like that."""
        for limit in self.limits:
            value, other = getattr(known, limit.of), getattr(known, limit.on)
            if value == ANY:
                continue
            left = limit.leaves(value)
            if other == ANY and len(left) == 1:
                known = replace(known, **{limit.on: left[0]})  # type: ignore[type-var]
            elif other not in (ANY, *left):
                told = [
                    f"{name.replace('_color', ' colour')} '{said}'"
                    for name, said in ((limit.of, value), (limit.on, other))
                ]
                raise UserError(f"A {self.name} with {told[0]} cannot have {told[1]}: {limit.why}; leave one out.")
        return known

    def is_held_out(self, known: Drawing) -> bool:
        """Whether these attributes contain a pair that training never sees."""
        return any(all(getattr(known, name) == value for name, value in pair.items()) for pair in self.held_out)

    def held_out_rows(self, rows_BA: Ints) -> Bools:
        """The same for rows of codes: [B]."""
        names, found = list(self.vocabulary), np.zeros(len(rows_BA), dtype=bool)
        for pair in self.held_out:
            same = [rows_BA[:, names.index(name)] == self.code(name, value) for name, value in pair.items()]
            found |= np.all(same, axis=0)
        return found

    def mirrored(self, rows_BA: Ints) -> tuple[Ints, Bools]:
        """Rows [B, A] as of mirrored pictures, and which of these can be drawn: all, but where held-out pairs arise."""
        face, turned_BA = list(self.vocabulary).index("face"), rows_BA.copy()
        known = turned_BA[:, face] > 0
        turned_BA[known, face] = 3 - turned_BA[known, face]
        return turned_BA, self.held_out_rows(turned_BA) == self.held_out_rows(rows_BA)

    def draw_rows(self, count: int, rng: np.random.Generator, which: str = "seen") -> Ints:
        """Rows of codes [count, A] of possible pictures, nothing left open.

        which: "seen", without held-out pairs, "held_out", only with one, or "all".
        """
        rows = np.empty((0, len(self.vocabulary)), dtype=np.int64)
        while len(rows) < count:
            drawn = np.stack([self._draw(name, max(64, 2 * count), rng) for name in self.vocabulary], axis=1)
            for limit in self.limits:
                self._keep_to(limit, drawn, rng)
            if which != "all":
                drawn = drawn[self.held_out_rows(drawn) == (which == "held_out")]
            rows = np.concatenate([rows, drawn])
        return rows[:count]

    def _draw(self, name: str, count: int, rng: np.random.Generator) -> Ints:
        values = self.vocabulary[name]
        drawn = rng.integers(2 if name in self.absent else 1, len(values) + 1, count)
        if name in self.absent:
            drawn[rng.random(count) < self.absent[name]] = self.code(name, NONE)
        return drawn

    def _keep_to(self, limit: Limit, rows_BA: Ints, rng: np.random.Generator) -> None:
        """Draw anew, in place, what a limit does not allow."""
        of, on = (list(self.vocabulary).index(name) for name in (limit.of, limit.on))
        for value in self.vocabulary[limit.of]:
            codes = np.asarray([self.code(limit.on, left) for left in limit.leaves(value)])
            wrong = (rows_BA[:, of] == self.code(limit.of, value)) & ~np.isin(rows_BA[:, on], codes)
            rows_BA[wrong, on] = codes[rng.integers(0, len(codes), int(wrong.sum()))]


def one(variants: str, rng: np.random.Generator) -> list[str]:
    """One of the names in a string, as DiceBear is asked for it; none of an empty one."""
    names = variants.split()
    return [names[int(rng.integers(len(names)))]] if names else []


def maybe(component: str, variants: str, rng: np.random.Generator) -> dict[str, Any]:
    """Options of a component that may be absent: one of the names, or none of an empty string."""
    picked = one(variants, rng)
    return {component: picked, f"{component}Probability": 100 if picked else 0}


def numbered(numbers: str, prefix: str = "variant") -> str:
    """Names of numbered variants.

    >>> numbered("01 12")
    'variant01 variant12'
    """
    return " ".join(prefix + number for number in numbers.split())
