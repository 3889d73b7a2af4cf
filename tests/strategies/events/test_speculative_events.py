"""Speculative events: what must not be done, shown to be seen by the check of the law; how often drafts are kept."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from backend import events
from backend.chance import Ask, Chance, Seeded
from backend.events import EventPaths, Events
from backend.meter import Meter
from backend.protocols import EventLaw, Prompt
from backend.registry import find
from backend.types import Fate, Sampling
from tests.test_contract_events import check_law
from tests.toys_events import KINDS, ToyEvents, toys_for

OURS = find("speculative_events")
ROWS = 20_000
LAST = (torch.tensor(0.8, dtype=torch.float64), torch.tensor(1))
TARGET = ToyEvents(bend=0.4)
DRAFT = ToyEvents(centre=-0.6, spread=0.5, lean=-0.4, bend=0.1)


def law_of(toy: ToyEvents, rows: int = ROWS) -> EventLaw:
    """The same law in every row."""
    return toy.law(*(x.expand(rows) for x in LAST))


def grid(toy: ToyEvents, gaps_T: Tensor) -> Tensor:
    """Joint density [T, V] at these gaps."""
    law = law_of(toy, len(gaps_T))
    return torch.stack([events.log_density(law, Events(gaps_T, torch.full_like(gaps_T, k).long())).exp()
                        for k in range(KINDS)], -1)  # fmt: skip


GAPS = torch.linspace(-9, 5, 20_001, dtype=torch.float64).exp()
WIDTH = GAPS * 14 / 20_000


def test_densities_are_densities_and_agree_with_torch() -> None:
    density_TV = grid(TARGET, GAPS)
    assert float((density_TV.sum(-1) * WIDTH).sum()) == pytest.approx(1.0, abs=1e-6)
    law = law_of(TARGET, 1)[0]
    parts = torch.distributions.LogNormal(law.mean_NM, law.spread_NM)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=law.log_weight_NM), parts)
    some = torch.tensor([0.05, 0.7, 3.0], dtype=torch.float64)
    assert torch.allclose(events.log_time_density(law_of(TARGET, 3), some), mixture.log_prob(some))
    assert torch.allclose(events.elapsed(law_of(TARGET, 3), some), mixture.cdf(some))


def test_placed_events_have_the_law() -> None:
    found = events.placed(law_of(TARGET), Seeded(1).noise((ROWS, 3)))
    share = events.elapsed(law_of(TARGET), found.gap_N).sort().values
    assert float((share - torch.arange(1, ROWS + 1) / ROWS).abs().max()) < 2.3 / math.sqrt(ROWS)
    wanted_V = (grid(TARGET, GAPS) * WIDTH[:, None]).sum(0)
    seen_V = torch.bincount(found.kind_N, minlength=KINDS) / ROWS
    assert float(((seen_V - wanted_V) / (wanted_V / ROWS).sqrt()).abs().max()) < 5


def test_drafts_are_kept_as_often_as_the_laws_overlap() -> None:
    """1 - TV of the joint laws; judged one after the other, never more often."""
    p, q = law_of(TARGET), law_of(DRAFT)
    drawn = events.placed(q, Seeded(2).noise((ROWS, 3)))
    kept = events.log_ratio(p, q, drawn).clamp_max(0).exp()
    overlap = float((torch.minimum(grid(TARGET, GAPS), grid(DRAFT, GAPS)) * WIDTH[:, None]).sum())
    assert float(kept.mean()) == pytest.approx(overlap, abs=0.01)
    assert float(events.apart(p, q, drawn).mean()) < float(kept.mean()) - 0.01


def test_corrections_have_what_is_left_of_the_law() -> None:
    found = events.correct(law_of(TARGET), law_of(DRAFT), Seeded(3))
    left_TV = (grid(TARGET, GAPS) - grid(DRAFT, GAPS)).clamp_min(0) * WIDTH[:, None]
    left_TV /= left_TV.sum()
    cdf_T = left_TV.sum(-1).cumsum(0)
    seen_T = torch.searchsorted(found.gap_N.sort().values, GAPS) / ROWS
    assert float((seen_T - cdf_T).abs().max()) < 2.3 / math.sqrt(ROWS)
    for k in range(KINDS):
        assert float((found.kind_N == k).double().mean()) == pytest.approx(float(left_TV[:, k].sum()), abs=0.02)


def test_point_masses_stay_only_where_they_agree() -> None:
    p, q = (events.tempered(law_of(toy, 2), 0.0) for toy in (TARGET, DRAFT))
    drawn = events.placed(q, Seeded(0).noise((2, 3)))
    assert events.log_ratio(p, q, drawn).tolist() == [-math.inf, -math.inf]
    assert events.log_ratio(q, q, drawn).tolist() == [0.0, 0.0]
    assert torch.equal(events.correct(p, q, Seeded(0)).gap_N, events.placed(p, torch.zeros(2, 3)).gap_N)


# -------------------------------------------------------------------------------------------------------------- traps
def test_the_target_itself_in_place_of_what_is_left_of_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def naive(p: EventLaw, q: EventLaw, chance: Chance) -> Events:
        return events.placed(p, chance.noise((len(p.mean_NM), 3)))

    monkeypatch.setattr(events, "correct", naive)
    with pytest.raises(AssertionError):
        check_law(OURS, {"gamma": 3})


def test_judging_the_time_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def times_only(p: EventLaw, q: EventLaw, event: Events) -> Tensor:
        return events.log_time_density(p, event.gap_N) - events.log_time_density(q, event.gap_N)

    monkeypatch.setattr(events, "log_ratio", times_only)
    with pytest.raises(AssertionError):
        check_law(OURS, {"gamma": 3})


def test_keeping_drafts_beyond_the_end_of_time_unjudged_would_bias_counts() -> None:
    """A draft beyond the end is judged like any other: rejected ones are corrected, and may come before the end."""
    models = toys_for(dict(OURS.roles), until=1.0)
    models["draft"] = ToyEvents("toy/draft", centre=3.0)  # nearly always too late
    sessions = {role: m.make(Prompt(), Sampling(temperature=1.0), Meter(), 20) for role, m in models.items()}
    steps = list(OURS.run(**sessions, ask=Ask(20, Seeded(0)), gamma=4, paths=50))
    fixed = [m for step in steps for m in step.marks if m.fate is Fate.FIXED]
    late = [m for step in steps for m in step.marks if m.fate is Fate.REJECTED and m.values[0] > 1.0]
    assert len(late) > 20
    assert len(fixed) > 20
    assert all(m.values[0] <= 1.0 for m in fixed)


# -------------------------------------------------------------------------------------------------------------- paths
class Told:
    """The part of a target that paths read."""

    until = 3.0

    def fork(self, paths: int) -> None:
        """Nothing to start."""


def add(counts: list[int], gaps: list[list[float]], last: list[float], budget: int = 9) -> tuple[Any, list[int], Any]:
    """Paths after one step with these drafts."""
    paths = EventPaths(Told(), Ask(budget, Seeded(0)), len(counts))  # type: ignore[arg-type]
    drafts = Events(torch.tensor(gaps, dtype=torch.float64), torch.zeros(len(gaps), len(gaps[0]), dtype=torch.long))
    behind = Events(torch.tensor(last, dtype=torch.float64), torch.ones(len(last), dtype=torch.long))
    marks, _, kept = paths.add(range(len(counts)), drafts, counts, behind)
    return marks, kept, paths


@pytest.mark.parametrize(
    ("count", "gaps", "last", "fates", "kept", "open_after"),
    [
        (2, [1.0, 1.0], 0.5, "kept kept bonus", 3, True),
        (1, [1.0, 1.0], 0.5, "kept rejected fixed", 2, True),
        (1, [1.0, 9.0], 0.5, "kept rejected fixed", 2, True),  # a rejected draft beyond the end ends nothing
        (1, [1.0, 1.0], 2.5, "kept rejected", 1, False),  # its correction does
        (2, [1.0, 9.0], 0.5, "kept unread", 1, False),  # so does a kept one, and nothing behind it stays
        (0, [9.0, 0.1], 0.5, "rejected unread fixed", 1, True),
        (2, [1.0, 1.0], 5.0, "kept kept", 2, False),
    ],
)
def test_where_a_path_ends(count: int, gaps: list[float], last: float, fates: str, kept: int, open_after: bool) -> None:
    marks, size, paths = add([count], [gaps], [last])
    assert [m.fate.value for m in marks] == fates.split()
    assert size == [kept]
    assert bool(paths.open) is open_after


def test_paths_stop_at_their_most_events() -> None:
    marks, size, paths = add([2, 0], [[0.1, 0.1], [0.1, 0.1]], [0.1, 0.1], budget=2)
    assert size == [2, 1]
    assert [m.slot for m in marks if m.fate.commits] == [0, 1, 2]
    assert paths.open == [1]
