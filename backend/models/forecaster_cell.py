"""The drafter of a forecaster: sample paths that a recurrent cell continues, from what it hears of the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.codecs.forecast import SeriesCodec
from backend.errors import UserError
from backend.gaussian import stacked
from backend.meter import Meter
from backend.models.forecaster import ROOM
from backend.models.house.forecaster import Laws, last_known
from backend.models.house.forecaster_cell import PatchCell, read_cell, windows_of
from backend.models.house.forecaster_rows import cut
from backend.protocols import EchoLaw, PathSession, Prompt
from backend.types import Sampling

SPARE = 16  # places of paths behind those that are asked for
READ = 16  # patches of the context that are read before a target is heard: more hardly help a first draft


@dataclass(frozen=True)
class _Place:
    """Where rows stand behind a patch that was read: features [R, C], the law of the next patch, the last W patches."""

    h_RC: Tensor
    law: Laws
    window_RWP: Tensor


class CellSession:
    """A `HearingSession` on a cell.

    What is committed is read when the next law is asked for: a target that was heard by then leaves one patch to read.
    """

    def __init__(self, model: CellModel, prompt: Prompt, sampling: Sampling, meter: Meter) -> None:
        self.series_CT = torch.tensor([prompt.extras["context"]], dtype=torch.float64)
        self.season: int = prompt.extras["season"]
        self.patch, self._window = model.net.config.patch, model.net.config.window
        self._model, self._temperature, self._meter = model, sampling.temperature, meter
        self._context_NP = cut(self.series_CT[0].float(), self.patch).to(model.net.start.device)
        self._length_S = self._read_S = torch.empty(0, dtype=torch.long)  # patches that are committed, and read
        self._values_SMP = self._h_SC = torch.empty(0)  # values: the last W of the context, then the paths' own
        self._heard = False  # whether features are there to carry on
        self._rows: list[int] = []
        self._chain: list[_Place] = []  # of the rows of the last call: behind nothing, and behind each guess
        self._told: list[EchoLaw] = []  # their laws as they are told
        self._guessed_RKP = torch.empty(0)  # the guesses of the chain

    @property
    def lengths(self) -> Sequence[int]:
        """See `PathSession.lengths`."""
        return [int(n) for n in self._length_S]

    def fork(self, paths: int) -> None:
        """See `PathSession.fork`."""
        assert not len(self._length_S), "forked twice"
        self._length_S = torch.zeros(paths, dtype=torch.long)
        self._read_S = self._length_S.clone()
        last_WP = windows_of(self._context_NP[None], self._window)[0, -1]
        self._values_SMP = last_WP.repeat(paths, 1, 1)
        self._h_SC = last_WP.new_zeros(paths, self._model.net.config.dim)

    def score(self, draft_RKP: Tensor | None = None, rows: Sequence[int] | None = None) -> EchoLaw:
        """See `PathSession.score`. Raises UserError if the model returns no numbers."""
        asked = list(range(len(self._length_S)) if rows is None else rows)
        drafted = 0 if draft_RKP is None else draft_RKP.shape[1]
        with self._meter.call(0), torch.no_grad():
            if not self._chain or asked != self._rows:
                self._chain, self._told, self._rows = [self._caught_up(torch.tensor(asked))], [], asked
            if draft_RKP is not None and drafted:
                self._read_on(draft_RKP.to(self._values_SMP))
            self._told += [place.law.patch_law(self._temperature) for place in self._chain[len(self._told) :]]
            laws = stacked(self._told[: drafted + 1])
        assert isinstance(laws, EchoLaw)
        if not math.isfinite(float(laws.mean_NP.abs().max())):
            raise UserError(
                f"{self._model.id} returned numbers that are no forecast (NaN or infinity); pick another model."
            )
        return laws

    def commit(self, patches_RKP: Tensor, counts: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """See `PathSession.commit`."""
        row_R = torch.tensor(range(len(self._length_S)) if rows is None else rows)
        given_RKP = patches_RKP.to(self._values_SMP)
        at_RK = self._window + self._length_S[row_R][:, None] + torch.arange(given_RKP.shape[1])
        if (more := int(at_RK.max()) + 1 - self._values_SMP.shape[1]) > 0:
            self._values_SMP = F.pad(self._values_SMP, (0, 0, 0, more + SPARE))
        self._values_SMP[row_R[:, None], at_RK] = given_RKP
        self._length_S[row_R] += torch.tensor(counts)
        self._chain = []

    def hear(self, features_RC: Tensor, read_R: Tensor, rows: Sequence[int]) -> None:
        """See `HearingSession.hear`. Raises UserError where the features are not as wide as ours."""
        if features_RC.shape[1] != self._h_SC.shape[1]:
            raise UserError(
                f"{self._model.id} carries on {self._h_SC.shape[1]} features of a target, but this one has "
                f"{features_RC.shape[1]}; pick the drafter that was trained beside it."
            )
        assert self._heard or len(rows) == len(self._length_S), "some paths were not heard"
        row_R, self._heard = torch.tensor(rows), True
        self._h_SC[row_R] = features_RC.to(self._h_SC)
        self._read_S[row_R] = read_R.to(self._read_S)
        self._chain = []

    def _read_on(self, x_RKP: Tensor) -> None:
        """Read guesses behind what is committed; those that were read before, as they are, are not read again."""
        known = min(len(self._chain) - 1, x_RKP.shape[1])
        if known and not torch.equal(self._guessed_RKP[:, :known], x_RKP[:, :known]):
            same_K = (self._guessed_RKP[:, :known] == x_RKP[:, :known]).all(-1).all(0)
            kept = 1 + int(same_K.long().cumprod(0).sum())
            del self._chain[kept:], self._told[kept:]
        if len(self._chain) <= x_RKP.shape[1]:
            self._guessed_RKP = x_RKP
        for k in range(len(self._chain) - 1, x_RKP.shape[1]):
            self._chain.append(self._behind(self._chain[k], x_RKP[:, k]))

    def _caught_up(self, row_R: Tensor) -> _Place:
        """Read what was committed to these rows and not read yet."""
        if not self._heard:
            self._h_SC, self._heard = self._begin().repeat(len(self._length_S), 1), True
        place = None
        left_R = self._length_S[row_R] - self._read_S[row_R]
        for done in range(int(left_R.max())):
            some_R = row_R if (everyone := bool((left_R > done).all())) else row_R[left_R > done]
            before = place if place is not None and everyone else self._place(some_R)
            place = self._behind(before, self._values_SMP[some_R, self._window + self._read_S[some_R]])
            self._h_SC[some_R] = place.h_RC
            self._read_S[some_R] += 1
            place = place if everyone else None
        return place or self._place(row_R)

    def _begin(self) -> Tensor:
        """Read the end of the context from features of our own. [1, C]"""
        net = self._model.net
        window_NWP = windows_of(self._context_NP[None], self._window)[0, -READ:]
        base_N = last_known(self._context_NP[-READ:])
        h_1C, base_1 = net.start[None], torch.zeros_like(base_N[:1])
        for n in range(len(base_N)):
            h_1C = net(h_1C, net.law(h_1C, base_1), window_NWP[None, n], base_N[None, n])
            base_1 = base_N[None, n]
        self._meter.rows += len(base_N)
        return h_1C

    def _place(self, row_R: Tensor) -> _Place:
        """Where these rows stand, as far as they were read."""
        at_RW = self._read_S[row_R][:, None] + torch.arange(self._window)
        window_RWP, h_RC = self._values_SMP[row_R[:, None], at_RW], self._h_SC[row_R]
        return _Place(h_RC, self._model.net.law(h_RC, last_known(window_RWP[:, -1])), window_RWP)

    def _behind(self, place: _Place, x_RP: Tensor) -> _Place:
        """Where rows stand behind one more patch, all of whose values are there."""
        net, base_R = self._model.net, x_RP[:, -1]
        window_RWP = torch.cat((place.window_RWP[:, 1:], x_RP[:, None]), 1)
        h_RC = net(place.h_RC, place.law, window_RWP, base_R)
        self._meter.rows += len(x_RP)
        return _Place(h_RC, net.law(h_RC, base_R), window_RWP)


class CellModel:
    """Loaded weights of a drafter. Shared by all sessions, never written."""

    def __init__(self, model_id: str, net: PatchCell) -> None:
        self.id = model_id
        self.net = net.requires_grad_(False)
        self.codec = SeriesCodec(net.config.context)
        self.num_params = net.num_params
        self.context = ROOM
        self.speaks: frozenset[type] = frozenset({PathSession})

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> Any:
        """A session on a prompt of `SeriesCodec`."""
        assert protocol in self.speaks, protocol
        return CellSession(self, prompt, sampling, meter)


def load_cell(model_id: str, path: Path, device: torch.device | str) -> CellModel:
    """A drafter of a file of `house.forecaster_cell.save_cell`. Raises UserError if there is no such file."""
    return CellModel(model_id, read_cell(path, device))
