"""Recursive beam drafting: the tree is a stochastic beam search's, and judging it is exact whatever its shape."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from backend.chance import Chance, Seeded
from backend.strategies.causal.recursive_beam import arrivals
from backend.types import Fate
from tests.exact import law, total_variation
from tests.strategies.causal.first_step import expected_kept, first_law, first_step
from tests.strategies.causal.played import COLD, play
from tests.toys import ToyCausal, causal_pair

Path = tuple[int, ...]


def search(toy: ToyCausal, count: int, depth: int, chance: Chance) -> tuple[tuple[Path, ...], ...]:
    """The beams of every level, in their order of arrival."""
    beams: list[Path] = [()]
    masses = [1.0]
    levels = []
    for _ in range(depth):
        children = arrivals(masses, [toy.law((0, *path)) for path in beams], count, chance)
        beams, masses = [(*beams[i], token) for i, token, _ in children], [mass for _, _, mass in children]
        levels.append(tuple(beams))
    return tuple(levels)


def without_replacement(toy: ToyCausal, count: int, depth: int) -> dict[tuple[tuple[Path, ...], ...], float]:
    """The same from all orders of whole paths: level by level the first `count` different beginnings."""
    mass = dict.fromkeys(itertools.product(range(toy.size), repeat=depth), 1.0)
    for path in mass:
        for i, token in enumerate(path):
            mass[path] *= float(toy.law((0, *path[:i]))[token])
    out: dict[tuple[tuple[Path, ...], ...], float] = {}
    for order in itertools.permutations([path for path, m in mass.items() if m > 0]):
        weight, left = 1.0, 1.0
        for path in order[:-1]:
            weight, left = weight * mass[path] / left, left - mass[path]
        levels = tuple(tuple(dict.fromkeys(path[:d] for path in order))[:count] for d in range(1, depth + 1))
        out[levels] = out.get(levels, 0.0) + weight
    return out


@pytest.mark.parametrize(("size", "seed", "depth", "zeros"), [(2, 3, 2, 0.0), (2, 2, 3, 0.2), (3, 14, 2, 0.4)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_beams_are_whole_paths_without_replacement(size: int, seed: int, depth: int, zeros: float, count: int) -> None:
    """The joint law of all levels equals that of a search that draws paths of full length; beginnings left out too."""
    toy = ToyCausal(seed=seed, size=size, zeros=zeros)
    wanted = without_replacement(toy, count, depth)
    assert total_variation(law(lambda chance: search(toy, count, depth, chance), 40_000), wanted) < 1e-12


def gumbels(toy: ToyCausal, count: int, depth: int, stream: torch.Generator) -> tuple[Path, ...]:
    """The last beams of the search as published: Gumbel numbers, the largest child's equal to its parent's."""
    beams: list[tuple[float, float, Path]] = [(0.0, 0.0, ())]
    for _ in range(depth):
        grown = []
        for perturbed, phi, path in beams:
            phi_V = phi + toy.law((0, *path)).log()
            noise_V = -torch.empty(toy.size, dtype=torch.float64).exponential_(generator=stream).log()
            g_V = phi_V + noise_V
            g_V = -torch.log(torch.exp(-torch.tensor(perturbed)) - torch.exp(-g_V.max()) + torch.exp(-g_V))
            grown += [(float(g_V[t]), float(phi_V[t]), (*path, t)) for t in range(toy.size)]
        beams = sorted(grown, reverse=True)[:count]
    return tuple(path for _, _, path in beams)


def test_beams_have_the_law_of_the_published_search() -> None:
    """5,000 games with Gumbel numbers; correct code leaves 5 standard deviations once in a million times."""
    toy, games, stream = ToyCausal(seed=3, size=3, zeros=0.0), 5_000, torch.Generator().manual_seed(4)
    counts: dict[tuple[Path, ...], int] = {}
    for _ in range(games):
        beams = gumbels(toy, 2, 2, stream)
        counts[beams] = counts.get(beams, 0) + 1
    wanted = law(lambda chance: search(toy, 2, 2, chance)[-1])
    for beams, p in wanted.items():
        assert abs(counts.get(beams, 0) - games * p) < 5 * (games * p * (1 - p)) ** 0.5 + 1


@pytest.mark.parametrize(("size", "seed", "beams", "depth"), [(2, 6, 2, 3), (2, 7, 3, 3), (3, 5, 2, 2), (3, 9, 3, 2)])
def test_law_of_whole_trees(size: int, seed: int, beams: int, depth: int) -> None:
    """Beams that die out and beams with several children, every branch enumerated."""
    pair = causal_pair(size=size, seed=seed, zeros=0.0 if size == 2 else 0.4)
    got, wanted = first_law("recursive_beam", pair, depth + 1, beams=beams, depth=depth)
    assert total_variation(got, wanted) < 1e-9


def test_one_beam_is_speculative_sampling() -> None:
    for seed in range(20):
        pair = causal_pair(size=4, seed=seed)
        tree = play("recursive_beam", pair, seed=seed, beams=1, depth=3)
        chain = play("speculative", pair, seed=seed, gamma=3)
        assert [[(m.slot, m.token, m.fate, m.p, m.q) for m in s.marks] for s in tree.steps] == [
            [(m.slot, m.token, m.fate, m.p, m.q) for m in s.marks] for s in chain.steps
        ]


def test_one_level_is_recursive_branching() -> None:
    """Beams of a single level are siblings."""
    pair = causal_pair(seed=5, zeros=0.0)
    for n in (1, 2, 3):
        beams, siblings = (
            expected_kept(s, pair, 2, depth=1, **{knob: n})
            for s, knob in (("recursive_beam", "beams"), ("recursive_branching", "branch"))
        )
        assert beams == pytest.approx(siblings, abs=1e-12)


def test_acceptance_grows_with_beams() -> None:
    kept = [expected_kept("recursive_beam", causal_pair(seed=3), 3, beams=n, depth=2) for n in (1, 2, 3)]
    assert kept[0] < kept[1] < kept[2]


def levels_of(slots: Sequence[int]) -> list[int]:
    return [slots.count(slot) for slot in sorted(set(slots))]


def test_every_level_is_as_wide_as_the_beams() -> None:
    """All siblings different, and the same number of nodes at every depth."""
    pair = causal_pair(size=6, seed=2, zeros=0.0)
    for seed in range(10):
        step = first_step("recursive_beam", pair, Seeded(seed), 9, beams=5, depth=4)
        nodes = [m for m in step.marks if m.fate not in (Fate.FIXED, Fate.BONUS)]
        assert levels_of([m.slot for m in nodes]) == [5, 5, 5, 5]
        assert len({(m.parent, m.token) for m in nodes}) == len(nodes)


def test_a_sure_drafter_ends_early() -> None:
    """Where q has fewer paths than beams, the tree holds each of them once."""
    pair = [ToyCausal("toy/p", seed=1), ToyCausal("toy/q", fixed=[0.5, 0.5, 0.0])]
    step = first_step("recursive_beam", pair, Seeded(1), 4, beams=8, depth=3)
    assert levels_of([m.slot for m in step.marks if m.fate not in (Fate.FIXED, Fate.BONUS)]) == [2, 4, 8]


def test_temperature_zero_is_one_chain() -> None:
    for seed in range(10):
        pair = causal_pair(size=4, seed=seed)
        tree = play("recursive_beam", pair, sampling=COLD, depth=3)
        chain = play("speculative", pair, sampling=COLD, gamma=3)
        assert [len(step.marks) for step in tree.steps] == [len(step.marks) for step in chain.steps]
        assert tree.replay() == chain.replay()
