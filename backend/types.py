"""Values that every part of the project shares: fates, marks, steps, requests, knobs, guarantees. No torch here.

Glossary, one meaning each, used in names, docs and on the screen:

- target: the model whose law is to be sampled; draft: the cheaper model or guess that runs ahead of it.
- p: the target's distribution of the next token; q: the drafter's. Both after temperature and filters.
- slot: a place on the canvas (token index counted from the start of the prompt, pixel, patch, frame x codebook).
- call: one forward pass of a model; row: one position evaluated in a call (a prompt's prefill counts its rows too).
- step: what a strategy yields: usually one target call and what it decided.
- mark: what happened to one slot in a step; fate: which of the seven things it was.
- kept: a drafted token that the target agreed to; bonus: a token drawn with no guess before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Fate(StrEnum):
    """What happened to a slot."""

    KEPT = "kept"  # a guess that the target agreed to
    REJECTED = "rejected"  # a guess that was judged and thrown away
    UNREAD = "unread"  # a guess behind the first rejection, or behind the end of the text
    FIXED = "fixed"  # drawn in place of a rejected guess
    BONUS = "bonus"  # drawn with no guess before it: plain decoding, the +1, a filled mask
    GUESS = "guess"  # on the canvas but not verified yet
    ERASED = "erased"  # re-masked or re-noised: the slot is open again

    @property
    def commits(self) -> bool:
        """Whether a slot with this fate holds its token from now on."""
        return self in (Fate.KEPT, Fate.FIXED, Fate.BONUS)


class Guarantee(StrEnum):
    """What a strategy promises about its output, proven by the contract tests."""

    LOSSLESS = "lossless"  # the output has exactly the target's law
    GREEDY_EXACT = "greedy-exact"  # at temperature 0 the tokens equal plain greedy decoding
    LOSSY = "lossy"  # another law; its quality is shown beside its speed


@dataclass(frozen=True, slots=True)
class Mark:
    """One slot in one step.

    Args:
        slot: place on the canvas, counted from the start of the prompt.
        token: token id; None where the fate carries none (ERASED).
        fate: what happened.
        p: the target's probability of the token, q: the drafter's; None where nobody asked.
        parent: index in `Step.marks` of the mark this guess hangs from (trees); None for chains and roots.
        options: the target's most likely tokens at this slot with their probabilities, best first.
        values: where slots hold numbers and no tokens, those of this slot and of the ones behind it.
    """

    slot: int
    token: int | None
    fate: Fate
    p: float | None = None
    q: float | None = None
    parent: int | None = None
    options: tuple[tuple[int, float], ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of a strategy. The strategy fills marks, note and frame; the runner stamps the rest.

    Args:
        marks: what happened to which slot.
        note: one short phrase for the step table.
        figures: named numbers of this step for live views, such as the acceptance that another rule would reach.
        measure: gives more figures; the runner calls it at once, when the clock of the step has stopped.
        frame: dense snapshot for live views (not stored in JSON).
        index: number of the step, from 0.
        calls: forward passes since the previous step, by role; where a model has parts that are called apart, the
            others than the first count under "role.part". rows: rows evaluated, in the same way.
        seconds: own compute time of the step. spent: the part of it inside model calls, by role, in seconds.
    """

    marks: tuple[Mark, ...]
    note: str = ""
    frame: Any = None
    index: int = -1
    calls: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    spent: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    measure: Callable[[], Mapping[str, float]] | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a session turns logits into p: repetition penalty, temperature, top-k, top-p, min-p, once, in this order.

    temperature 0 makes p one-hot at the largest logit. top_k 0, top_p 1, min_p 0 and repetition_penalty 1 mean off.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that determines a run.

    Args:
        strategy: id of a registered strategy.
        prompt: what the target's codec encodes: a string, or a mapping such as {"text": ..., "chat": False}.
        models: model id by role; roles left out get the catalog's default for the target.
        knobs: values of the strategy's keyword arguments; those left out get their defaults.
        sampling: temperature and filters. budget: most new slots. seed: of the one random stream.
    """

    strategy: str
    prompt: Any
    models: Mapping[str, str] = field(default_factory=dict)
    knobs: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    budget: int = 64
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Knob:
    """Range and meaning of a strategy's keyword argument: `gamma: Annotated[int, Knob(1, 12, "tokens drafted")] = 4`.

    low and high are inclusive; both None for a bool. The type and the default come from the signature.
    """

    low: float | None
    high: float | None
    help: str
