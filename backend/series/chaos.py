"""Twelve chaotic systems, integrated by our own code, and how fast each forgets: its largest Lyapunov exponent.

Flows are integrated with the classical Runge-Kutta method of order 4, maps iterated; many initial points advance
together. The exponent is the mean growth rate of a small difference, carried along by the linearised system and
scaled back as it grows (Benettin et al. 1980); the Jacobian is written beside each system. No torch here.

Shape letters: B initial points, D coordinates, T samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from backend.codecs.dates import Floats

Rule = Callable[[Floats], Floats]  # points [B, D] -> velocities or next points [B, D]
Linear = Callable[[Floats], Floats]  # points [B, D] -> Jacobians [B, D, D]
Row = tuple[Floats | float, ...]
SPREAD = 1e-2  # of initial points around the one given


@dataclass(frozen=True)
class System:
    """One chaotic system.

    Args:
        rule, linear: what moves a point, and its derivative. start: a point from which the attractor is reached.
        step: time of an integration step, 0 for a map. sample: steps between two values of the series, about 24 values
            to a turn. shown: coordinate that the series shows. exponent: literature value of the largest Lyapunov
            exponent, per unit of time (per iteration for a map). tolerance: how far ours may lie from it, relative.
        source: where the value comes from. settle: time before the first value. span: time that the exponent is
            measured over.
    """

    name: str
    rule: Rule
    linear: Linear
    start: tuple[float, ...]
    step: float
    sample: int
    exponent: float
    source: str
    shown: int = 0
    tolerance: float = 0.05
    settle: float = 50.0
    span: float = 100.0

    @property
    def period(self) -> float:
        """Time between two values of the series."""
        return self.step * self.sample if self.step else 1.0


def advance(system: System, point_BD: Floats) -> Floats:
    """One integration step, or one iteration of a map."""
    if not system.step:
        return system.rule(point_BD)
    h, f = system.step, system.rule
    a = f(point_BD)
    b = f(point_BD + h / 2 * a)
    c = f(point_BD + h / 2 * b)
    return point_BD + h / 6 * (a + 2 * b + 2 * c + f(point_BD + h * c))


def starts(system: System, count: int, seed: int = 0) -> Floats:
    """Points [B, D] on the attractor, reached from all sides of the system's start."""
    shift_BD = np.random.default_rng(seed).uniform(-SPREAD, SPREAD, (count, len(system.start)))
    point_BD = np.array(system.start) + shift_BD
    for _ in range(round(system.settle / (system.step or 1.0))):
        point_BD = advance(system, point_BD)
    return point_BD


def series(system: System, count: int, length: int, seed: int = 0) -> Floats:
    """`count` series [B, T] of the shown coordinate, `system.period` of time between two values."""
    point_BD = starts(system, count, seed)
    out_BT = np.empty((count, length))
    for t in range(length):
        out_BT[:, t] = point_BD[:, system.shown]
        for _ in range(system.sample):
            point_BD = advance(system, point_BD)
    return out_BT


def lyapunov(system: System, count: int = 64, span: float | None = None, seed: int = 0) -> float:
    """The largest Lyapunov exponent per unit of time, averaged over `count` trajectories of length `span`.

    The difference is carried by the same Runge-Kutta step, applied to the pair of point and difference.
    """
    point_BD = starts(system, count, seed)
    apart_BD = np.random.default_rng(seed + 1).normal(size=point_BD.shape)
    steps = round((span or system.span) / (system.step or 1.0))
    grown, lead = 0.0, steps // 4  # the difference turns into the fastest direction first
    for i in range(steps + lead):
        point_BD, apart_BD = _advance_pair(system, point_BD, apart_BD)
        size_B = np.linalg.norm(apart_BD, axis=1)
        apart_BD /= size_B[:, None]
        grown += float(np.log(size_B).mean()) if i >= lead else 0.0
    return grown / (steps * (system.step or 1.0))


def _advance_pair(system: System, point_BD: Floats, apart_BD: Floats) -> tuple[Floats, Floats]:
    def turn(at_BD: Floats, by_BD: Floats) -> Floats:
        return np.asarray(np.einsum("bij,bj->bi", system.linear(at_BD), by_BD))

    if not system.step:
        return system.rule(point_BD), turn(point_BD, apart_BD)
    h, f, x, v = system.step, system.rule, point_BD, apart_BD
    a, da = f(x), turn(x, v)
    b, db = f(x + h / 2 * a), turn(x + h / 2 * a, v + h / 2 * da)
    c, dc = f(x + h / 2 * b), turn(x + h / 2 * b, v + h / 2 * db)
    d, dd = f(x + h * c), turn(x + h * c, v + h * dc)
    return x + h / 6 * (a + 2 * b + 2 * c + d), v + h / 6 * (da + 2 * db + 2 * dc + dd)


# ------------------------------------------------------------------------------------------------------------ systems
def _columns(*columns: Floats | float, like: Floats) -> Floats:
    return np.stack([np.broadcast_to(np.asarray(c, dtype=np.float64), like.shape) for c in columns], axis=-1)


def _matrix(rows: tuple[Row, ...], like: Floats) -> Floats:
    return np.stack([_columns(*row, like=like) for row in rows], axis=-2)


def _system(
    name: str, rule: Callable[..., Row], linear: Callable[..., tuple[Row, ...]],
    start: tuple[float, ...], step: float, sample: int, exponent: float, source: str, **options: float | int,
) -> System:  # fmt: skip
    """A system written coordinate by coordinate."""

    def moved(p_BD: Floats) -> Floats:
        return _columns(*rule(*p_BD.T), like=p_BD[:, 0])

    def turned(p_BD: Floats) -> Floats:
        return _matrix(linear(*p_BD.T), like=p_BD[:, 0])

    return System(name, moved, turned, start, step, sample, exponent, source, **options)  # type: ignore[arg-type]


def _lorenz96(size: int = 40, force: float = 8.0) -> System:
    def rule(p_BD: Floats) -> Floats:
        ahead, back, back2 = (np.roll(p_BD, shift, axis=1) for shift in (-1, 1, 2))
        return (ahead - back2) * back - p_BD + force

    def linear(p_BD: Floats) -> Floats:
        ahead, back, back2 = (np.roll(p_BD, shift, axis=1) for shift in (-1, 1, 2))
        out_BDD, at = np.zeros((*p_BD.shape, size)), np.arange(size)
        out_BDD[:, at, at] = -1.0
        out_BDD[:, at, (at + 1) % size] = back
        out_BDD[:, at, (at - 2) % size] = -back
        out_BDD[:, at, (at - 1) % size] = ahead - back2
        return out_BDD

    start = (force + 0.01, *[force] * (size - 1))
    source = "Karimi and Paul 2010, Chaos 20, 043105: about 1.68 for 40 sites"
    return System("lorenz96", rule, linear, start, 0.02, 4, 1.68, source, settle=30.0, span=60.0)


SPROTT = "Sprott 2003, Chaos and Time-Series Analysis, appendix A"
SYSTEMS: Mapping[str, System] = {
    system.name: system
    for system in (
        _system("lorenz", lambda x, y, z: (10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z),
                lambda x, y, z: ((-10, 10, 0), (28 - z, -1, -x), (y, x, -8 / 3)),
                (1.0, 1.0, 20.0), 0.01, 3, 0.9056, SPROTT),
        _system("rossler", lambda x, y, z: (-y - z, x + 0.2 * y, 0.2 + z * (x - 5.7)),
                lambda x, y, z: ((0, -1, -1), (1, 0.2, 0), (z, 0, x - 5.7)),
                (1.0, 1.0, 0.0), 0.04, 6, 0.0714, SPROTT, span=300.0),
        _system("chen", lambda x, y, z: (35 * (y - x), -7 * x - x * z + 28 * y, x * y - 3 * z),
                lambda x, y, z: ((-35, 35, 0), (-7 - z, 28, -x), (y, x, -3)),
                (-10.0, 0.0, 37.0), 0.002, 10, 2.0272, SPROTT, settle=10.0, span=20.0),
        _system("halvorsen",
                lambda x, y, z: (-1.27 * x - 4 * (y + z) - y**2, -1.27 * y - 4 * (z + x) - z**2,
                                 -1.27 * z - 4 * (x + y) - x**2),
                lambda x, y, z: ((-1.27, -4 - 2 * y, -4), (-4, -1.27, -4 - 2 * z), (-4 - 2 * x, -4, -1.27)),
                (-5.0, 0.0, 0.0), 0.005, 12, 0.7899, SPROTT, settle=20.0, span=40.0),
        _system("thomas", lambda x, y, z: (np.sin(y) - 0.18 * x, np.sin(z) - 0.18 * y, np.sin(x) - 0.18 * z),
                lambda x, y, z: ((-0.18, np.cos(y), 0), (0, -0.18, np.cos(z)), (np.cos(x), 0, -0.18)),
                (0.1, 0.0, 0.0), 0.1, 5, 0.0349, SPROTT, settle=500.0, span=600.0),
        _system("diffusionless_lorenz", lambda x, y, z: (y - x, -x * z, x * y - 1),
                lambda x, y, z: ((-1, 1, 0), (-z, 0, -x), (y, x, 0)),
                (1.0, -1.0, 0.01), 0.04, 5, 0.2101, SPROTT, span=200.0),
        _system("ueda", lambda x, y, t: (y, -(x**3) - 0.05 * y + 7.5 * np.sin(t), 1.0),
                lambda x, y, t: ((0, 1, 0), (-3 * x**2, -0.05, 7.5 * np.cos(t)), (0, 0, 0)),
                (2.5, 0.0, 0.0), 0.02, 12, 0.1034, SPROTT, span=150.0),
        _lorenz96(),
        _system("henon_map", lambda x, y: (1 - 1.4 * x**2 + y, 0.3 * x), lambda x, y: ((-2.8 * x, 1), (0.3, 0)),
                (0.1, 0.1), 0.0, 1, 0.41922, SPROTT, span=2000.0),
        _system("lozi_map", lambda x, y: (1 - 1.7 * np.abs(x) + 0.5 * y, x),
                lambda x, y: ((-1.7 * np.sign(x), 0.5), (1, 0)),
                (-0.1, 0.1), 0.0, 1, 0.4702, SPROTT, span=2000.0),
        _system("cubic_map", lambda x: (3 * x * (1 - x**2),), lambda x: ((3 - 9 * x**2,),),
                (0.1,), 0.0, 1, 1.0986123, "ln 3, exactly", settle=20.0, span=2000.0),
        _system("logistic_map", lambda x: (4 * x * (1 - x),), lambda x: ((4 - 8 * x,),),
                (0.3,), 0.0, 1, 0.6931472, "ln 2, exactly", settle=20.0, span=2000.0),
    )
}  # fmt: skip
