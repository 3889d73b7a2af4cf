"""Toys of pictures: a masked grid in which any cells may be given, maps of which some may be left out, runs of both.

As in `toys`, everything about them is known in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from backend.chance import Ask, Chance
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import FlexibleSession, GridSession, MaskedSession, Prompt, RedrawingSession, ScaleSession
from backend.registry import find
from backend.run import record
from backend.trace import Trace
from backend.types import Request, Sampling
from tests.exact import law
from tests.toys import Toy, ToyCatalog, ToyMasked, ToyMaskedSession, ToyScale, ToyScaleSession, canvases

PLAIN = Sampling(temperature=1.0)
Law = dict[tuple[int, ...], float]


class ToyGrid(ToyMasked):
    """A joint table over the cells of a grid. A prompt that is a list is the canvas to start from, -1 where unknown.

    joint: weights of all canvases in their order, in place of the random table.
    """

    def __init__(
        self,
        model_id: str = "toy/grid",
        seed: int = 3,
        grid: tuple[int, int] = (2, 2),
        size: int = 2,
        zeros: float = 0.25,
        joint: Sequence[float] | None = None,
    ) -> None:
        super().__init__(model_id, seed, grid[0] * grid[1], size, zeros)
        self.protocol = GridSession
        self.speaks = frozenset({GridSession, MaskedSession})
        self.grid = grid
        if joint is not None:
            weights = torch.tensor(joint, dtype=torch.float64)
            self.joint = (weights / weights.sum()).reshape(self.joint.shape)

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> Any:
        """A session, remembered in `sessions`."""
        assert protocol in self.speaks, (self.id, protocol)
        return super().open(self.protocol, prompt, sampling, meter, room)

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyGridSession:
        return ToyGridSession(self, prompt, sampling, meter)

    def law(self, known: Mapping[int, int] | None = None) -> Law:
        """The law of the whole canvas given some of its cells, from the table alone."""
        held = [c for c in canvases(self.size, self.length) if all(c[i] == t for i, t in (known or {}).items())]
        total = sum(float(self.joint[c]) for c in held)
        return {c: float(self.joint[c]) / total for c in held}


class ToyGridSession(ToyMaskedSession):
    """A masked session that knows its grid. `asked` holds every canvas that it was called with."""

    def __init__(self, model: ToyGrid, prompt: Prompt, sampling: Sampling, meter: Meter) -> None:
        super().__init__(model, prompt.tokens, sampling, meter)
        self.grid = model.grid
        self.asked: list[tuple[int, ...]] = []
        if "raw" in prompt.extras:
            assert len(prompt.extras["raw"]) == model.length
            self.canvas_L = tuple(prompt.extras["raw"])

    def denoise(self, canvas_L: Sequence[int]) -> torch.Tensor:
        """See `MaskedSession.denoise`."""
        self.asked.append(tuple(canvas_L))
        return super().denoise(canvas_L)


class ToyRedrawing(ToyScale):
    """Maps whose tokens can be told from each other: the laws are conditionals of the joint table."""

    def __init__(self, model_id: str = "toy/redrawing", seed: int = 5, **options: Any) -> None:
        super().__init__(model_id, seed, **options)
        self.protocol = RedrawingSession
        self.speaks = frozenset({RedrawingSession, ScaleSession})

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> Any:
        """A session, remembered in `sessions`."""
        assert protocol in self.speaks, (self.id, protocol)
        return super().open(self.protocol, prompt, sampling, meter, room)

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyRedrawingSession:
        return ToyRedrawingSession(self, sampling, meter)


class ToyRedrawingSession(ToyScaleSession):
    """A scale session that can draw slots of a map again."""

    def redraw(self, partial_N: Sequence[int]) -> torch.Tensor:
        """See `RedrawingSession.redraw`."""
        return self.told(partial_N)


class ToyFlexible(ToyScale):
    """Maps of which some may be left out: the law of a map follows from the coarser ones that were written."""

    def __init__(self, model_id: str = "toy/flexible", seed: int = 5, **options: Any) -> None:
        super().__init__(model_id, seed, **options)
        self.protocol = FlexibleSession
        self.speaks = frozenset({FlexibleSession, ScaleSession})
        self._options = options
        self._parts: dict[tuple[tuple[int, int], ...], ToyScale] = {}

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> Any:
        """A session, remembered in `sessions`."""
        assert protocol in self.speaks, (self.id, protocol)
        return super().open(self.protocol, prompt, sampling, meter, room)

    def only(self, sizes: Sequence[tuple[int, int]]) -> ToyScale:
        """The toy with these sizes alone."""
        key = tuple(sizes)
        if key not in self._parts:
            self._parts[key] = ToyScale(self.id, self._seed, **{**self._options, "sizes": key})
        return self._parts[key]

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyFlexibleSession:
        return ToyFlexibleSession(self, sampling, meter)


class ToyFlexibleSession(ToyScaleSession):
    """A scale session that can leave sizes out."""

    def __init__(self, model: ToyFlexible, sampling: Sampling, meter: Meter) -> None:
        super().__init__(model, sampling, meter)
        self._whole = model

    def plan(self, sizes: Sequence[tuple[int, int]]) -> None:
        """See `FlexibleSession.plan`."""
        assert not self.calls
        assert not self.written
        for height, width in sizes:
            if (height, width) not in self._whole.sizes:
                raise UserError(f"This model offers no map of {height}x{width}; pick of {self._whole.sizes}.")
        self.sizes = tuple(sizes)
        self._model = self._whole.only(sizes)


# --------------------------------------------------------------------------------------------------------------- runs
def paint(
    strategy: str,
    models: Sequence[Toy],
    prompt: Any = "",
    seed: int = 0,
    budget: int = 0,
    sampling: Sampling = PLAIN,
    **knobs: Any,
) -> Trace:
    """The trace of a run through the real runner; roles in the order of the models, the whole canvas by default."""
    ids = {role: model.id for role, model in zip(find(strategy).roles, models, strict=True)}
    request = Request(strategy, prompt, ids, knobs, sampling, budget or models[0].context, seed)
    return record(request, ToyCatalog(models))  # type: ignore[arg-type]


def painted_law(
    strategy: str,
    models: Sequence[Toy],
    prompt: Any = "",
    outcome: Callable[[Trace], Any] = lambda trace: tuple(trace.replay()),
    budget: int = 0,
    **knobs: Any,
) -> dict[Any, float]:
    """The true law of what a strategy leaves behind, as told by its marks alone, or of anything else in its trace."""
    found = find(strategy)
    budget = budget or models[0].context

    def game(chance: Chance) -> Any:
        given = models[0].codec.encode(prompt)
        sessions = {
            role: model.make(given, PLAIN, Meter(), budget) for role, model in zip(found.roles, models, strict=True)
        }
        steps = tuple(found.run(**sessions, ask=Ask(budget, chance), **found.settle(knobs)))
        return outcome(Trace(Request("", ""), given.tokens, steps=steps))

    return law(game)


def one_by_one(target: ToyScale, models: Mapping[int, ToyScale] | None = None) -> Law:
    """The law of maps drawn slot by slot from their marginals, from the tables alone; models: another one, by scale."""
    out: Law = {(): 1.0}
    for at, (height, width) in enumerate(target.sizes):
        grown: Law = {}
        for coarser, weight in out.items():
            p_NV = (models or {}).get(at, target).given(coarser, at)
            for tokens in canvases(target.size, height * width):
                grown[(*coarser, *tokens)] = weight * float(p_NV[range(height * width), list(tokens)].prod())
        out = grown
    return out


def grouped(target: ToyGrid, groups: Sequence[Sequence[int]]) -> Law:
    """The law of slots drawn group by group, those of a group each for itself, from the table alone."""
    out: Law = {(-1,) * target.length: 1.0}
    for group in groups:
        grown: Law = {}
        for canvas, weight in out.items():
            p_LV = target.given(canvas)
            for tokens in canvases(target.size, len(group)):
                p = float(p_LV[list(group), list(tokens)].prod())
                after = list(canvas)
                for slot, token in zip(group, tokens, strict=True):
                    after[slot] = token
                if p > 0:
                    grown[tuple(after)] = grown.get(tuple(after), 0.0) + weight * p
        out = grown
    return out
