"""Prompts that painters of portraits are measured on; `--write assets/prompts-image.jsonl` makes the file that ships.

`--style thumbs --write assets/prompts-image-thumbs.jsonl` does so for that style, whose prompts are fewer.
Captions of attributes that are drawn here, from a seed that no training uses. Of ten prompts in a row eight are
"common" and name five to eight things, none of the pairs that training never saw together; one names such a pair
("held-out pair"), one no more than two things ("few words"). What a caption leaves out is left open.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backend.codecs import thumb_words, thumbs
from backend.codecs.caption_words import WORDINGS
from backend.codecs.captions import caption
from backend.codecs.portraits import HELD_OUT, NAMES, NONE, Attributes, draw_rows, held_out, settle
from backend.codecs.styles import PIXEL, STYLES, THUMBS
from backend.codecs.thumbs import Thumb
from backend.entries import ASSETS
from backend.errors import UserError

PROMPTS = ASSETS / "prompts-image.jsonl"
SEED = (41_000_000, 4)  # training draws from streams of three numbers, its own measures from 20,000,000
COUNT = 500
KINDS = {"common": (5, 8), "held-out pair": (4, 7), "few words": (1, 2)}  # how many things a prompt names
THINGS = tuple(WORDINGS)  # a thing may have a colour: hair and hair_color are told together
THUMB_COUNT = 120
THUMB_KINDS = {"common": (3, 6), "held-out pair": (3, 5), "few words": (1, 2)}
TURN = ("common",) * 8 + ("held-out pair", "few words")


def described(kind: str, rng: np.random.Generator) -> Attributes:
    """Attributes of one prompt of that kind, what it leaves open included."""
    pair = HELD_OUT[int(rng.integers(len(HELD_OUT)))] if kind == "held-out pair" else {}
    while True:
        like, which = (Attributes(**pair), "held_out") if pair else (Attributes(), "seen")
        row = draw_rows(1, rng, like, which)[0]  # type: ignore[arg-type]
        low, high = KINDS[kind]
        things = list(dict.fromkeys(name.removesuffix("_color") for name in pair))
        others = [THINGS[i] for i in rng.permutation(len(THINGS)) if THINGS[i] not in things]
        told = {*things, *others[: int(rng.integers(low, high + 1)) - len(things)]}
        left_open = [_is_open(name, told, row) for name in NAMES]
        try:
            asked = settle(Attributes.of(np.where(left_open, 0, row)))
        except UserError:  # such as a bald head with a hair colour, the beard left open
            continue
        if held_out(asked) == bool(pair):
            return asked


def described_thumb(kind: str, rng: np.random.Generator) -> Thumb:
    """The same of thumbs, of whose attributes none depends on another."""
    pair = thumbs.HELD_OUT[int(rng.integers(len(thumbs.HELD_OUT)))] if kind == "held-out pair" else {}
    things, (low, high) = [name for name in thumbs.NAMES if name != "style"], THUMB_KINDS[kind]
    while True:
        drawn = Thumb.of(thumbs.draw_rows(1, rng)[0])
        others = [things[i] for i in rng.permutation(len(things)) if things[i] not in pair]
        told = others[: int(rng.integers(low, high + 1)) - len(pair)]
        asked = Thumb(**pair, **{name: getattr(drawn, name) for name in told})
        if thumbs.held_out(asked) == bool(pair):
            return asked


def _is_open(name: str, told: set[str], row: Sequence[int]) -> bool:
    """Whether a prompt that tells of these things says nothing about an attribute."""
    if name != "hair_color":
        return name.removesuffix("_color") not in told
    bald = Attributes.of(row).hair == "bald"  # then only a beard shows the colour
    return not {"hair", "beard"} <= told if bald else "hair" not in told


def file_of(style: str) -> Path:
    """The prompts of a style that ship."""
    return PROMPTS if style == PIXEL else PROMPTS.with_name(f"{PROMPTS.stem}-{style}.jsonl")


def prompts(count: int = COUNT, style: str = PIXEL) -> Iterator[dict[str, str]]:
    """Lines of the file: id, kind and prompt, none of them twice; always the same."""
    name, draw, tell = WRITERS[style]
    rng, seen, tries, turn = np.random.default_rng(SEED), set[str](), 0, list[str]()
    while len(seen) < count:
        turn = turn or [TURN[i] for i in rng.permutation(len(TURN))]
        kind, tries = turn[-1], tries + 1
        asked = draw(kind, rng)
        text = tell(asked, rng)
        assert tries < 10 * count, "the captions do not differ"
        if text not in seen and STYLES[style].read(text).attributes == asked:
            seen.add(text)
            turn.pop()
            yield {"id": f"{name}-{len(seen):03}", "kind": kind, "prompt": text}


Drawn = Callable[[str, np.random.Generator], Any]
WRITERS: Mapping[str, tuple[str, Drawn, Callable[..., str]]] = {  # start of ids, attributes of a kind, their caption
    PIXEL: ("portrait", described, caption),
    THUMBS: ("thumb", described_thumb, thumb_words.caption),
}


def named(conditions: Sequence[int], style: str = PIXEL) -> list[int]:
    """Places of the attributes that a prompt of the style with these codes names by itself.

    Not those of one value only, which nothing could get wrong, nor colours of what the prompt leaves away.
    """
    if not len(conditions):
        return []
    told = zip(STYLES[style].vocabulary.items(), conditions, strict=True)
    return [
        i
        for i, ((name, values), code) in enumerate(told)
        if code > 0 and name != "style" and not (name.endswith("_color") and values[code - 1] == NONE)
    ]


def text(style: str = PIXEL) -> str:
    """The whole file."""
    lines = prompts(COUNT if style == PIXEL else THUMB_COUNT, style)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m backend.image_prompts", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the prompts there instead of printing them")
    parser.add_argument("--style", choices=sorted(WRITERS), default=PIXEL, help="of the pictures")
    args = parser.parse_args(argv)
    if args.write:
        args.write.write_text(text(args.style), encoding="utf-8")
    else:
        print(text(args.style), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
