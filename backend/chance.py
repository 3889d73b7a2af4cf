"""Everything random goes through a `Chance`: one seed, one stream on the CPU whatever the device. `Ask` carries it.

`Seeded` plays one game; `Exhaustive` replays a script of branches, so that a test can enumerate every game there is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from backend.errors import UserError
from backend.peaks import peak

SEEDS = 1 << 32  # a seed lies below
KEPT_NOISES = 64  # slots whose noise is remembered; a strategy looks ahead by fewer


class Chance(Protocol):
    """The only source of randomness that a strategy sees."""

    def pick(self, p_V: Tensor, slot: int | None = None) -> int:
        """A token drawn from p (shape [V]); with `slot`, by the noise of that slot, one for every p asked there."""
        ...

    def picks(self, p_NV: Tensor, slots: Sequence[int]) -> list[int]:
        """What `pick` says of every row and the slot beside it."""
        ...

    def flip(self, a: float) -> bool:
        """True with probability a."""
        ...

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Standard normal noise of the given shape."""
        ...

    def part(self, text: int) -> Chance:
        """The chance of one of several texts, independent of that of the others; text 0 may go on with this one."""
        ...


class Seeded:
    """One pseudo-random stream, fully determined by the seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._stream = torch.Generator().manual_seed(seed)
        self._runner = torch.Generator()  # seeded anew for every slot
        self._races: dict[tuple[int, int], Tensor] = {}

    def pick(self, p_V: Tensor, slot: int | None = None) -> int:
        """A token drawn from p (shape [V], sums to 1).

        With `slot`, the draw is decided by noise that belongs to that slot: the same noise for every distribution
        asked there, so that two distributions agree as often as an exponential race (Gumbel-max) lets them, and
        exactly when they are equal. Without, fresh randomness.
        """
        p_V = p_V.detach().to("cpu")
        best = int(peak(p_V[None]))
        if p_V[best] >= 1.0:  # one-hot: temperature 0 costs no noise
            return best
        if slot is None:
            cdf_V = p_V.double().cumsum(0)
            u = torch.rand((), generator=self._stream, dtype=torch.float64) * cdf_V[-1]
            token = int(torch.searchsorted(cdf_V, u, right=True))
            return token if token < len(p_V) else best  # rounding can put u on the very edge
        race_V = self._race(slot, len(p_V))
        return int((race_V / p_V.double()).argmin())  # x / 0 is inf: a token outside p never wins

    def picks(self, p_NV: Tensor, slots: Sequence[int]) -> list[int]:
        """What `pick` says of every row and the slot beside it, in a fraction of the time."""
        p_NV = p_NV.detach().to("cpu")
        assert len(p_NV) == len(slots), (len(p_NV), len(slots))
        best_N = peak(p_NV)
        open_M = (p_NV.gather(1, best_N[:, None])[:, 0] < 1.0).nonzero()[:, 0]
        race_MV = torch.empty(len(open_M), p_NV.shape[1], dtype=torch.float64)
        for race_V, row in zip(race_MV.unbind(), open_M.tolist(), strict=True):
            self._run_race(slots[row], race_V)
        best_N[open_M] = (race_MV / p_NV[open_M].double()).argmin(1)
        return [int(token) for token in best_N.tolist()]

    def flip(self, a: float) -> bool:
        """True with probability a."""
        return bool(torch.rand((), generator=self._stream, dtype=torch.float64).item() < a)

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Standard normal noise of the given shape, float32 on the CPU."""
        return torch.randn(tuple(shape), generator=self._stream)

    def part(self, text: int) -> Seeded:
        """That of the seed `text` further on, so that each text is the one which that seed gives alone."""
        return Seeded((self.seed + text) % SEEDS)

    def _race(self, slot: int, size: int) -> Tensor:
        if (slot, size) not in self._races:
            self._races[slot, size] = self._run_race(slot, torch.empty(size, dtype=torch.float64))
            while len(self._races) > KEPT_NOISES:
                del self._races[next(iter(self._races))]
        return self._races[slot, size]

    def _run_race(self, slot: int, race_V: Tensor) -> Tensor:
        """Write the noise of a slot."""
        self._runner.manual_seed((self.seed * 1_000_003 + slot * 7_919 + 17) % (1 << 63))
        return race_V.exponential_(generator=self._runner)


class Exhaustive:
    """Follow a script of branch numbers, and note every branch point met, so that a test can visit them all.

    After a run, `weight` is the probability of this game and `forks[i]` the number of branches that had a positive
    probability at the i-th random decision; branch numbers beyond the script are 0.
    """

    def __init__(self, script: Sequence[int] = ()) -> None:
        self.script = tuple(script)
        self.forks: list[int] = []
        self.weight = 1.0
        self._intervals: dict[int, tuple[float, float]] = {}

    def pick(self, p_V: Tensor, slot: int | None = None) -> int:
        """Branch over the tokens with p > 0; with `slot`, over what is still possible given earlier picks there.

        The slot's noise is one uniform number, read through the inverse distribution function; a pick narrows the
        interval it is known to lie in. Another coupling than Seeded's race, but a strategy must be right with any.
        """
        p = [float(x) for x in p_V]
        if slot is None:
            tokens = [i for i, x in enumerate(p) if x > 0]
            return tokens[self._branch([p[i] for i in tokens])]
        low, high = self._intervals.get(slot, (0.0, 1.0))
        pieces, edge = [], 0.0
        for i, x in enumerate(p):
            cut = (max(low, edge), min(high, 1.0 if i == len(p) - 1 else edge + x))
            edge += x
            if cut[1] - cut[0] > 1e-15:
                pieces.append((i, cut))
        token, self._intervals[slot] = pieces[self._branch([b - a for _, (a, b) in pieces])]
        return token

    def picks(self, p_NV: Tensor, slots: Sequence[int]) -> list[int]:
        """One after the other."""
        return [self.pick(p_V, slot) for p_V, slot in zip(p_NV, slots, strict=True)]

    def flip(self, a: float) -> bool:
        """Both answers, where both can happen."""
        a = min(max(float(a), 0.0), 1.0)
        answers = [(True, a), (False, 1.0 - a)]
        answers = [x for x in answers if x[1] > 0]
        return answers[self._branch([w for _, w in answers])][0]

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Continuous noise has no branches to enumerate: such strategies are tested against closed forms."""
        raise AssertionError(f"Exhaustive cannot enumerate continuous noise of shape {tuple(shape)}")

    def part(self, text: int) -> Chance:
        """The same game, with other noise at every slot."""
        return _Part(self, text)

    def _branch(self, weights: Sequence[float]) -> int:
        i = len(self.forks)
        branch = self.script[i] if i < len(self.script) else 0
        self.forks.append(len(weights))
        self.weight *= weights[branch] / math.fsum(weights)
        return branch


class _Part:
    """The chance of one of several texts in a game that is being enumerated."""

    def __init__(self, whole: Exhaustive, text: int) -> None:
        self._whole, self._text = whole, text
        self.flip, self.noise = whole.flip, whole.noise

    def pick(self, p_V: Tensor, slot: int | None = None) -> int:
        """See `Exhaustive.pick`."""
        return self._whole.pick(p_V, None if slot is None else slot + (self._text << 32))

    def picks(self, p_NV: Tensor, slots: Sequence[int]) -> list[int]:
        """See `Exhaustive.picks`."""
        return [self.pick(p_V, slot) for p_V, slot in zip(p_NV, slots, strict=True)]

    def part(self, text: int) -> Chance:
        """Texts have no parts."""
        raise AssertionError(f"text {self._text} was asked for its part {text}")


class Ask:
    """What a strategy is asked for: at most `budget` new slots, ended early by one of the `stop` tokens."""

    def __init__(self, budget: int, chance: Chance, stop: Collection[int] = ()) -> None:
        self.left = budget
        self.chance = chance
        self.stop = frozenset(stop)
        self._ended = False
        self._parts: list[Ask] = []

    @property
    def open(self) -> bool:
        """Whether there is anything left to write, in any part."""
        return any(part.open for part in self._parts) if self._parts else self.left > 0 and not self.ended

    @property
    def ended(self) -> bool:
        """Whether an end token came; of a split ask, whether one came in every part."""
        return all(part.ended for part in self._parts) if self._parts else self._ended

    def split(self, count: int) -> list[Ask]:
        """One ask for each of `count` texts: an equal share of the budget, the same stop tokens, a chance of its own.

        From then on they are taken from in the place of this one. Raises UserError where a share would be empty.
        """
        share = self.left // count
        if not share:
            raise UserError(
                f"{count} texts share the budget, but it is {self.left}; ask for {count} new tokens or more."
            )
        self._parts = [Ask(share, self.chance.part(i), self.stop) for i in range(count)]
        return self._parts

    def take(self, tokens: Sequence[int]) -> list[int]:
        """The tokens that may be committed: cut at the budget and behind the first end token."""
        kept = list(tokens[: self.left])
        for i, token in enumerate(kept):
            if token in self.stop:
                kept = kept[: i + 1]
                self._ended = True
                break
        self.left -= len(kept)
        return kept
