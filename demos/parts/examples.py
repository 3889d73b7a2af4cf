"""Prompts on chips, and the recorded races that belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demos.parts.assets import TRACES

EDIT = """def mean(values):
    total = 0
    for value in values:
        total = total + value
    return total / len(values)"""
TEXT = (
    "The tide pools along the northern shore are at their best two hours before low water. Small crabs hide under the "
    "kelp, anemones close when a shadow passes, and the limpets that look fixed to the rock return each day to the "
    "same hollow that they have ground for themselves."
)
WRONG = (
    "Yesterday my sister and me goes to the market on the corner. She buyed two kilos of apples, a bag of flour and a "
    "jar of honey from the old man at the green stall. Then we walked home along the river and baked a cake for our "
    "neighbour, who have been ill all week."
)


@dataclass(frozen=True)
class Example:
    """A prompt that shows what kind of text suits which strategy."""

    kind: str
    prompt: str
    chat: bool = True


EXAMPLES = (
    Example("code", "Write a Python function that returns the first n prime numbers as a list."),
    Example("chat", "Explain to a friend why the sky is blue, in three sentences."),
    Example("summarise", f"Summarise this in one sentence, using its own words:\n\n{TEXT}"),
    Example("edit", f"Rename the variable `total` to `running_sum` and print the whole function again:\n\n{EDIT}"),
    Example("correct", f"Correct the grammar of this text and print the whole text again:\n\n{WRONG}"),
    Example("list", "List the numbers from 1 to 20, one per line, each followed by its square."),
    Example("story", "Once upon a time, in a small harbour town, a lighthouse keeper", chat=False),
)
SEVERAL = Example(  # for strategies that answer several prompts at once; never recorded with the others
    "several",
    "\n---\n".join([
        "Name three colours.", "Why is the sky blue?", "Say hello in French.", "Count from one to ten.",
        "What is a prime number?", "Write two lines about rain.",
    ]),
)  # fmt: skip


def recorded_race(kind: str) -> Path | None:
    """The recorded race of an example, if there is one."""
    path = TRACES / f"race-{kind}.json.gz"
    return path if path.exists() else None
