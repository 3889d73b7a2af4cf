"""Chaos for training: eight of our twelve systems with parameters that vary by 5 %, each series at a pace of its own.

The other four are held out. A parameter at the edge of chaos (logistic, cubic and Henon map) is only made smaller, for
beyond the edge everything runs away; what runs away nevertheless is left out. No torch here.

Shape letters: N series, T steps, D coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backend.codecs.dates import Floats
from backend.series.chaos import SYSTEMS

HELD_OUT = ("chen", "halvorsen", "lorenz96", "lozi_map")
SPREAD = 0.05
SLOWEST, FASTEST = 48 / 24, 16 / 24  # of the 24 values to a turn that SYSTEMS have
RUNAWAY = 1e6


@dataclass(frozen=True)
class Varied:
    """A system as a function of its parameters. edges: which of them may only shrink. coordinates: those shown."""

    rule: Callable[..., tuple[Floats, ...]]  # coordinates [D][N], parameters [...][N] -> velocities or next points
    parameters: tuple[float, ...]
    edges: tuple[int, ...] = ()
    coordinates: tuple[int, ...] = (0, 1, 2)


def _lorenz(x: Floats, y: Floats, z: Floats, a: Floats, b: Floats, c: Floats) -> tuple[Floats, ...]:
    return a * (y - x), x * (b - z) - y, x * y - c * z


def _rossler(x: Floats, y: Floats, z: Floats, a: Floats, b: Floats, c: Floats) -> tuple[Floats, ...]:
    return -y - z, x + a * y, b + z * (x - c)


def _thomas(x: Floats, y: Floats, z: Floats, b: Floats) -> tuple[Floats, ...]:
    return np.sin(y) - b * x, np.sin(z) - b * y, np.sin(x) - b * z


def _diffusionless(x: Floats, y: Floats, z: Floats, r: Floats) -> tuple[Floats, ...]:
    return y - x, -x * z, x * y - r


def _ueda(x: Floats, y: Floats, t: Floats, a: Floats, b: Floats) -> tuple[Floats, ...]:
    return y, -(x**3) - a * y + b * np.sin(t), np.ones_like(t)


TRAINED = {
    "lorenz": Varied(_lorenz, (10.0, 28.0, 8 / 3)),
    "rossler": Varied(_rossler, (0.2, 0.2, 5.7), coordinates=(0, 1)),
    "thomas": Varied(_thomas, (0.18,)),
    "diffusionless_lorenz": Varied(_diffusionless, (1.0,)),
    "ueda": Varied(_ueda, (0.05, 7.5), coordinates=(0, 1)),
    "henon_map": Varied(lambda x, y, a, b: (1 - a * x**2 + y, b * x), (1.4, 0.3), (0, 1), (0,)),
    "cubic_map": Varied(lambda x, a: (a * x * (1 - x**2),), (3.0,), (0,), (0,)),
    "logistic_map": Varied(lambda x, a: (a * x * (1 - x),), (4.0,), (0,), (0,)),
}


def trajectories(name: str, stream: np.random.Generator, count: int, steps: int) -> Floats:
    """Up to `count` series [N, T] of a training system, 16 to 48 values to a turn for a flow; runaways are left out."""
    system, varied = SYSTEMS[name], TRAINED[name]
    shift_pN = stream.uniform(-SPREAD, SPREAD, (len(varied.parameters), count))
    for edge in varied.edges:
        shift_pN[edge] = -np.abs(shift_pN[edge])
    parameters = tuple(p * (1 + shift_N) for p, shift_N in zip(varied.parameters, shift_pN, strict=True))
    start_D = np.array(system.start)
    point_DN = start_D[:, None] + stream.uniform(-0.01, 0.01, (len(start_D), count))
    least, most = max(1, round(system.sample * FASTEST)), max(1, round(system.sample * SLOWEST))
    if not system.step:
        least = most = 1
    stride_N = stream.integers(least, most + 1, count)  # FASTEST is in values to a turn: fewer of them, longer strides
    shown_N = stream.choice(varied.coordinates, count)
    settle = round(system.settle / (system.step or 1.0))
    path_TN = np.empty((steps * most, count))
    each_N = np.arange(count)
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(-settle, steps * most):
            if t >= 0:
                path_TN[t] = point_DN[shown_N, each_N]
            point_DN = _advance(varied.rule, point_DN, parameters, system.step)
    place_NT = np.arange(steps)[None, :] * stride_N[:, None]
    y_NT = path_TN[place_NT, each_N[:, None]]
    fine_N = np.isfinite(y_NT).all(axis=1) & (np.abs(y_NT).max(axis=1) < RUNAWAY) & (y_NT[:, -48:].std(axis=1) > 1e-3)
    return np.asarray(y_NT[fine_N])


def _advance(
    rule: Callable[..., tuple[Floats, ...]], point_DN: Floats, parameters: tuple[Floats, ...], h: float
) -> Floats:
    """A Runge-Kutta step of order 4, or one iteration of a map."""

    def f(at_DN: Floats) -> Floats:
        return np.stack(rule(*at_DN, *parameters))

    if not h:
        return f(point_DN)
    a = f(point_DN)
    b = f(point_DN + h / 2 * a)
    c = f(point_DN + h / 2 * b)
    return np.asarray(point_DN + h / 6 * (a + 2 * b + 2 * c + f(point_DN + h * c)))
