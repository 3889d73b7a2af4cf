"""Small tasks whose answers can be checked token by token, shown by examples: what the judge of drafts learns on.

A task is asked in plain text behind three solved ones of its kind, and its answer ends with the line. SmolLM2-135M
solves them nearly always: copying words and numbers, copying with one name changed, and writing words in any order.
The last has many right answers, of which the target likes one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

WORDS = """moon|chair|river|bread|window|apple|garden|horse|paper|stone|bottle|music|winter|cloud|table|forest|button
candle|mirror|rabbit|ladder|pencil|silver|orange|tiger|bridge|basket|feather|hammer|island|jacket|kettle|lemon
monkey|needle|ocean|pillow|rocket|saddle|ticket|umbrella|violin|wagon|yellow|zebra|carpet|dragon|engine|farmer
guitar|helmet|insect|jungle|kitten|letter|magnet|nephew|oyster|parrot|quilt|ribbon|school|temple|valley|walnut
blanket|cherry|desert|eagle|flower|ginger|hotel|iron|jelly|knife|lamp|marble|nurse|onion|palace|queen|radio
spoon|train|uncle|village|whale""".replace("\n", "|").split("|")
NAMES = [
    "Anna",
    "Peter",
    "Lucy",
    "Omar",
    "Tom",
    "Maria",
    "David",
    "Ruth",
    "Ivan",
    "Nina",
    "Paul",
    "Sara",
    "Leo",
    "Emma",
    "Jack",
    "Olga",
]
DEEDS = ["likes", "sold", "found", "lost", "painted", "bought", "hid", "saw", "broke", "cleaned"]
SHOTS = 3  # solved tasks in front


@dataclass(frozen=True)
class Task:
    """A question and its right answers. answer: one of them, with the blank before it and the line's end behind it."""

    kind: str
    question: str
    answer: str
    words: tuple[str, ...] = ()  # where any order of them is right

    def completable(self, written: str) -> bool:
        """Whether some right answer begins with this text; what stands behind the line's end does not matter."""
        written = written[: written.find("\n") + 1] if "\n" in written else written
        if not self.words:
            return self.answer.startswith(written)
        body = written.removesuffix("\n")
        if not body:
            return not written
        *whole, last = body.removeprefix(" ").split(", ")
        left = list(self.words)
        for word in whole:
            if word not in left:
                return False
            left.remove(word)
        if not body.startswith(" ") or not left:
            return False
        if written.endswith("\n"):
            return left == [last]
        forms = [f"{word}{end}" for word in left for end in (("\n",) if len(left) == 1 else (", ",))]
        return any(form.startswith(last) for form in forms)

    def solved(self, written: str) -> bool:
        """Whether this text is a right answer, up to the end of its line."""
        return "\n" in written and self.completable(written)


class Tasks:
    """Draws tasks. seed: of the draws; part: 0 of 2 or 1 of 2 of the words and names, so that parts share none."""

    def __init__(self, seed: int, part: int) -> None:
        self.random = Random(seed)
        self._words, self._names = WORDS[part::2], NAMES[part::2]

    def draw(self, kind: str) -> Task:
        """A task of one of `KINDS`."""
        return _MAKERS[kind](self)

    def prefix(self, kind: str) -> str:
        """Solved tasks of the kind, to stand in front of a question."""
        shots = [self.draw(kind) for _ in range(SHOTS)]
        return "".join(f"{task.question}{task.answer}\n" for task in shots)

    def copy(self) -> Task:
        """Words again, in their order."""
        words = ", ".join(self.random.sample(self._words, self.random.randint(4, 6)))
        return Task("copy", f"Words: {words}\nAgain:", f" {words}\n")

    def numbers(self) -> Task:
        """Numbers again."""
        numbers = ", ".join(str(self.random.randint(10, 99)) for _ in range(5))
        return Task("numbers", f"Numbers: {numbers}\nAgain:", f" {numbers}\n")

    def swap(self) -> Task:
        """A sentence again with another name."""
        old, new = self.random.sample(self._names, 2)
        one, other = self.random.sample(self._words, 2)
        rest = f"{self.random.choice(DEEDS)} the {one} and the {other}."
        return Task("swap", f"Text: {old} {rest}\nWith {new}:", f" {new} {rest}\n")

    def order(self) -> Task:
        """Words again in any order."""
        words = self.random.sample(self._words, self.random.randint(4, 5))
        shuffled = self.random.sample(words, len(words))
        question = f"Words: {', '.join(words)}\nAny order:"
        return Task("order", question, f" {', '.join(shuffled)}\n", tuple(words))


_MAKERS: dict[str, Callable[[Tasks], Task]] = {
    "copy": Tasks.copy,
    "numbers": Tasks.numbers,
    "swap": Tasks.swap,
    "order": Tasks.order,
}
KINDS = tuple(_MAKERS)
