"""Hawkes processes with exponential kernels, several kinds of events: simulated by thinning, and judged exactly.

The intensity of kind v is base_v + sum over past events (of kind u, s ago) of jump_vu exp(-decay_vu s). Many processes
are simulated at once, each with parameters of its own. Hawkes 1971; thinning: Ogata 1981. No torch here.

Shape letters: B processes, V kinds, N events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
TRIES = 64  # candidates between two looks at which processes are finished


@dataclass(frozen=True, eq=False)
class Hawkes:
    """B processes. base_BV: rates without excitement; jump_BVV, decay_BVV: [excited kind, kind that excites it]."""

    base_BV: Array
    jump_BVV: Array
    decay_BVV: Array

    @classmethod
    def of(cls, base: Any, jump: Any, decay: Any) -> Hawkes:
        """One process, of nested lists."""
        parts = (np.asarray(x, dtype=np.float64)[None] for x in (base, jump, decay))
        return cls(*parts)

    def __len__(self) -> int:
        return len(self.base_BV)

    def __getitem__(self, at: Any) -> Hawkes:
        """Some of the processes."""
        return Hawkes(self.base_BV[at], self.jump_BVV[at], self.decay_BVV[at])

    @property
    def branching(self) -> Array:
        """Events of each kind that one event sets off directly, on average. [B, V, V]"""
        return self.jump_BVV / self.decay_BVV

    @property
    def radius(self) -> Array:
        """Largest eigenvalue of the branching matrix: below 1 the process is stationary. [B]"""
        return np.asarray(np.abs(np.linalg.eigvals(self.branching)).max(-1))

    @property
    def rate(self) -> Array:
        """Mean events a unit of time, by kind: (I - branching)^-1 base. [B, V]"""
        eye_VV = np.eye(self.base_BV.shape[1])
        return np.asarray(np.linalg.solve(eye_VV - self.branching, self.base_BV[..., None])[..., 0])


@dataclass(frozen=True, eq=False)
class Judged:
    """Events under the intensity they came from. log_density_BN: nats of each event, time and kind. residual_BN: the
    intensity's integral over the gap before each, Exp(1) if the intensity is the right one.
    """

    log_density_BN: Array
    residual_BN: Array


def simulate(processes: Hawkes, count: int, stream: np.random.Generator) -> tuple[Array, Array]:
    """The first `count` events of every process, from an empty past: gaps [B, N] and kinds [B, N].

    Between events the intensity falls, so what it is now bounds it: candidates come at that rate and stay with chance
    intensity / bound.
    """
    gaps_BN, kinds_BN = np.zeros((len(processes), count)), np.zeros((len(processes), count), dtype=np.int64)
    left_B, found_B = np.arange(len(processes)), np.zeros(len(processes), dtype=np.int64)
    excited_BVV, since_B = np.zeros_like(processes.jump_BVV), np.zeros(len(processes))
    while len(left_B):
        some = processes[left_B]
        state_BVV, wait_B, n_B = excited_BVV[left_B], since_B[left_B], found_B[left_B]
        every = np.arange(len(left_B))
        for _ in range(TRIES):
            bound_B = some.base_BV.sum(1) + state_BVV.sum((1, 2))
            step_B = stream.exponential(size=len(left_B)) / bound_B
            state_BVV *= np.exp(-some.decay_BVV * step_B[:, None, None])
            wait_B += step_B
            rate_BV = (some.base_BV + state_BVV.sum(2)).cumsum(1)
            level_B = stream.random(len(left_B)) * bound_B  # stays if below the intensity, and then says which kind
            kind_B = (rate_BV <= level_B[:, None]).sum(1)
            hit = np.flatnonzero((kind_B < rate_BV.shape[1]) & (n_B < count))
            gaps_BN[left_B[hit], n_B[hit]], kinds_BN[left_B[hit], n_B[hit]] = wait_B[hit], kind_B[hit]
            state_BVV[every[hit], :, kind_B[hit]] += some.jump_BVV[every[hit], :, kind_B[hit]]
            wait_B[hit] = 0.0
            n_B[hit] += 1
        excited_BVV[left_B], since_B[left_B], found_B[left_B] = state_BVV, wait_B, n_B
        left_B = left_B[n_B < count]
    return gaps_BN, kinds_BN


def judged(processes: Hawkes, gaps_BN: Array, kinds_BN: Array) -> Judged:
    """Events from an empty past, under the processes' own intensity."""
    state_BVV, every = np.zeros_like(processes.jump_BVV), np.arange(len(processes))
    out_2BN = np.zeros((2, *gaps_BN.shape))
    base_B = processes.base_BV.sum(1)
    for n in range(gaps_BN.shape[1]):
        gap_B, kind_B = gaps_BN[:, n], kinds_BN[:, n]
        fall_BVV = np.exp(-processes.decay_BVV * gap_B[:, None, None])
        grown_B = base_B * gap_B + (state_BVV * (1 - fall_BVV) / processes.decay_BVV).sum((1, 2))
        state_BVV = state_BVV * fall_BVV
        now_BV = processes.base_BV + state_BVV.sum(2)
        out_2BN[:, :, n] = np.log(now_BV[every, kind_B]) - grown_B, grown_B
        state_BVV[every, :, kind_B] += processes.jump_BVV[every, :, kind_B]
    return Judged(out_2BN[0], out_2BN[1])


def random_processes(count: int, kinds: int, stream: np.random.Generator, most: float = 0.85) -> tuple[Hawkes, Array]:
    """Processes as models are trained on, about one event a unit of time, and how many kinds each has [B].

    Branching matrices are sparse, with a largest eigenvalue up to `most`; one in ten is a Poisson process. Kinds that
    a process does not have, have the rate 0.
    """
    size_B = stream.choice(np.arange(1, kinds + 1), count, p=_shares(kinds))
    has_BV = np.arange(kinds) < size_B[:, None]
    base_BV = stream.gamma(1.5, size=(count, kinds)) * has_BV
    link_BVV = stream.exponential(size=(count, kinds, kinds)) * (stream.random((count, kinds, kinds)) < 0.55)
    link_BVV += np.eye(kinds) * stream.exponential(size=(count, kinds, 1))
    link_BVV *= has_BV[:, :, None] & has_BV[:, None, :]
    radius_B = np.abs(np.linalg.eigvals(link_BVV)).max(-1)
    wanted_B = stream.uniform(0.05, most, count) * (stream.random(count) > 0.1)
    branching_BVV = link_BVV * (wanted_B / np.maximum(radius_B, 1e-9))[:, None, None]
    decay_BVV = np.exp(stream.uniform(np.log(0.3), np.log(15.0), (count, kinds, kinds)))
    shared_B = stream.random(count) < 0.5
    decay_BVV[shared_B] = decay_BVV[shared_B][:, :1, :1]
    made = Hawkes(base_BV, branching_BVV * decay_BVV, decay_BVV)
    pace_B = made.rate.sum(1)
    return Hawkes(base_BV / pace_B[:, None], made.jump_BVV, decay_BVV), size_B


def _shares(kinds: int) -> Array:
    """How many processes have 1, 2, ... kinds."""
    share = 0.6 ** np.arange(kinds)
    return np.asarray(share / share.sum())
