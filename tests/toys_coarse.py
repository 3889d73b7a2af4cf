"""A toy that writes groups of codes first: a table for every text of groups, a joint table of codes for every picture.

Code c belongs to group `members[c]`. Given all groups the codes have a joint law, so that conditionals are exact; a
model that tells all of them in one call draws them from its marginals, and that is its law.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.meter import Meter
from backend.protocols import CoarseSession, Prompt, Scores
from backend.types import Sampling
from tests.toys import Counting, Toy, ToyCodec, ToyMasked, canvases, filtered, mix, random_law


class ToyCoarse(Toy):
    """Tables of groups and codes; the middle code of a group is its first."""

    def __init__(
        self,
        model_id: str = "toy/coarse",
        seed: int = 5,
        length: int = 3,
        members: Sequence[int] = (0, 0, 1),
        zeros: float = 0.25,
    ) -> None:
        size = len(members)
        super().__init__(model_id, CoarseSession, ToyCodec("image", f"toy-{size}", size=size, least=0), length)
        self.size, self.members, self.count = size, tuple(members), max(members) + 1
        self.medoids = tuple(self.members.index(group) for group in range(self.count))
        self._seed, self._zeros = seed, zeros
        self._tables: dict[tuple[int, ...], ToyMasked] = {}

    def coarse(self, groups: Sequence[int]) -> Tensor:
        """p_M of the next group."""
        return random_law(mix(self._seed, groups), self.count, self._zeros)

    def table(self, groups: Sequence[int]) -> ToyMasked:
        """The joint table of the codes of these slots."""
        if tuple(groups) not in self._tables:
            table = ToyMasked(seed=mix(self._seed + 1, groups), length=len(groups), size=self.size, zeros=0.0)
            for codes in canvases(self.size, len(groups)):
                if any(self.members[code] != group for code, group in zip(codes, groups, strict=True)):
                    table.joint[codes] = 0.0
            table.joint /= table.joint.sum()
            self._tables[tuple(groups)] = table
        return self._tables[tuple(groups)]

    def law(self, joint: bool = False) -> dict[tuple[int, ...], float]:
        """Whole pictures with their probabilities, codes each for itself given the groups; joint: drawn together."""
        out = dict.fromkeys(canvases(self.size, self.context), 0.0)
        for groups in canvases(self.count, self.context):
            weight = 1.0
            for i, group in enumerate(groups):
                weight *= float(self.coarse(groups[:i])[group])
            table = self.table(groups)
            p_NV = table.given([-1] * len(groups))
            for codes in out:
                own = float(table.joint[codes] if joint else p_NV[range(len(codes)), list(codes)].prod())
                out[codes] += weight * own
        return out

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyCoarseSession:
        return ToyCoarseSession(self, prompt.tokens, sampling, meter)


class ToyCoarseSession(Counting):
    """A coarse session on the tables. `fine` counts the calls that tell codes; `asked` holds what each was told."""

    def __init__(self, model: ToyCoarse, given: Sequence[int], sampling: Sampling, meter: Meter) -> None:
        super().__init__(meter)
        self.given: Sequence[int] = tuple(given)
        self.groups: list[int] = [model.members[code] for code in given]
        self.members: Sequence[int] = model.members
        self.medoids: Sequence[int] = model.medoids
        self.fine = Counting(meter.part("fine"))
        self.asked: list[tuple[int, ...]] = []
        self._model, self._sampling = model, sampling
        self._known: set[tuple[int, ...]] = set()

    def score(self, draft: Sequence[int] = ()) -> Scores:
        """See `CoarseSession.score`."""
        paths = [(*self.groups, *draft[:i]) for i in range(len(draft) + 1)]
        new = {path[:i] for path in paths for i in range(len(path) + 1)} - self._known
        if new:
            self.charge(len(new))
            self._known |= new
        law_NM = torch.stack([self._model.coarse(path) for path in paths])
        return Scores(filtered(law_NM, self._sampling, [[]] * len(paths)), law_NM.log())

    def commit(self, groups: Sequence[int]) -> None:
        """See `CoarseSession.commit`."""
        self.groups.extend(groups)
        assert len(self.groups) <= self._model.context, "committed more than the picture has slots"

    def refine(self, known_N: Sequence[int]) -> Tensor:
        """See `CoarseSession.refine`."""
        assert len(known_N) == len(self.groups)
        self.fine.charge(len(known_N))
        self.asked.append(tuple(known_N))
        return self._model.table(self.groups).rows(known_N, self._sampling)
