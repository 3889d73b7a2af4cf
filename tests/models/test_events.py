"""Point processes: scoring a draft is scoring it event by event, and nothing behind an event changes its law."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from backend import events
from backend.chance import Ask, Seeded
from backend.entries import EVENTS
from backend.errors import UserError
from backend.events import Events
from backend.meter import Meter
from backend.models.events import EventModel, HouseEventSession, load_events
from backend.models.house.event_rows import FrozenEvents
from backend.models.house.events import EventConfig, EventNet, read_events, save_events
from backend.protocols import EventLaw, EventSession
from backend.registry import find
from backend.train.forecast import events as training
from backend.types import Sampling

CONFIG = EventConfig(dim=16, num_layers=3, num_heads=2, ffn_dim=24, parts=4, window=12)
TIMES = [0.0, *torch.rand(39, generator=torch.Generator().manual_seed(4)).add(0.05).cumsum(0).double().tolist()]
PROMPT = {"times": TIMES, "marks": [("a", "b", "b", "c")[i % 4] for i in range(40)], "horizon": 10.0}


def net(seed: int = 0, config: EventConfig = CONFIG) -> EventNet:
    """Random weights, large enough to matter."""
    torch.manual_seed(seed)
    model = EventNet(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight) / math.sqrt(weight.shape[-1]))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> EventModel:
    return EventModel("toy/events", FrozenEvents(net().double(), torch.float64))


def opened(model: EventModel, paths: int, temperature: float = 1.0) -> HouseEventSession:
    session = model.open(EventSession, model.codec.encode(PROMPT), Sampling(temperature=temperature), Meter(), 99)
    assert isinstance(session, HouseEventSession)
    session.fork(paths)
    return session


def guesses(paths: int, count: int, seed: int = 1) -> Events:
    stream = torch.Generator().manual_seed(seed)
    gaps = torch.rand(paths, count, generator=stream, dtype=torch.float64) * 2 + 0.01
    return Events(gaps, torch.randint(0, 3, (paths, count), generator=stream))


def same(a: EventLaw, b: EventLaw) -> bool:
    names = ("log_weight_NM", "mean_NM", "spread_NM", "log_kind_NMV")
    return all(torch.allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-9) for name in names)


def test_a_session_speaks_the_protocol_and_knows_its_history(model: EventModel) -> None:
    session = opened(model, 2)
    assert isinstance(session, EventSession)
    assert session.num_kinds == 3
    assert bool(session.gaps_T[0].isnan())
    assert float(session.gaps_T[1:].mean()) == pytest.approx(1.0)
    assert session.until == pytest.approx(10.0 / ((TIMES[-1] - TIMES[0]) / 39))


def test_a_draft_is_scored_as_event_by_event_and_as_in_training(model: EventModel) -> None:
    draft = guesses(3, 20)
    together = opened(model, 3).score(draft.gap_N, draft.kind_N)
    single, grown = opened(model, 3), opened(model, 3)
    for k in range(21):
        assert same(grown.score(draft.gap_N[:, :k], draft.kind_N[:, :k])[:, -1], together[:, k])
        assert same(single.score()[:, 0], together[:, k])
        if k < 20:
            single.commit(draft.gap_N[:, k : k + 1], draft.kind_N[:, k : k + 1], [1, 1, 1])
    history = (single.gaps_T.expand(3, -1), single.kinds_T.expand(3, -1))
    gaps, kinds = (torch.cat(pair, 1) for pair in zip(history, (draft.gap_N, draft.kind_N), strict=True))
    law = net().double()(gaps, kinds, torch.full((3,), 3))[:, 39:]
    assert torch.allclose(law.mean_NM.detach(), together.mean_NM, atol=1e-9)
    assert torch.allclose(law.log_kind_NMV.detach()[..., :3], together.log_kind_NMV, atol=1e-9)


def test_laws_of_a_draft_do_not_change_with_what_comes_behind(model: EventModel) -> None:
    """The unit of time is frozen: perturb event j, and the laws up to it stay the same to the last bit."""
    draft = guesses(2, 6)
    before = opened(model, 2).score(draft.gap_N, draft.kind_N)
    for j in range(6):
        gaps = draft.gap_N.clone()
        gaps[:, j] *= 30.0
        after = opened(model, 2).score(gaps, draft.kind_N)
        assert torch.equal(before.mean_NM[:, : j + 1], after.mean_NM[:, : j + 1])
        assert not torch.equal(before.mean_NM[:, j + 1], after.mean_NM[:, j + 1])


def test_paths_are_ragged_and_do_not_touch_each_other(model: EventModel) -> None:
    """Different lengths, rows in any order, guesses that were not kept: the same laws as a path alone has."""
    session, alone = opened(model, 3), [opened(model, 1) for _ in range(3)]
    for turn, (rows, counts) in enumerate([([0, 1, 2], [2, 0, 3]), ([2, 0], [1, 3]), ([1], [2]), ([1, 2], [1, 1])]):
        draft = guesses(len(rows), 3, seed=turn)
        session.score(draft.gap_N, draft.kind_N, rows)
        other = guesses(len(rows), 3, seed=50 + turn) if turn % 2 else draft
        session.commit(other.gap_N, other.kind_N, counts, rows)
        for r, row in enumerate(rows):
            alone[row].commit(other.gap_N[r : r + 1], other.kind_N[r : r + 1], [counts[r]])
    assert list(session.lengths) == [5, 3, 5]
    law = session.score(rows=[2, 0, 1])
    for r, row in enumerate([2, 0, 1]):
        assert same(law[r : r + 1], alone[row].score())


def test_events_are_run_once(model: EventModel) -> None:
    session = opened(model, 2)
    meter = session._meter
    draft = guesses(2, 4)
    for k in range(5):
        session.score(draft.gap_N[:, :k], draft.kind_N[:, :k])
    assert (meter.calls, meter.rows) == (5, 40 + 2 * 4)
    session.commit(draft.gap_N, draft.kind_N, [4, 2])
    session.score()
    assert meter.rows == 48


def test_the_drafter_that_is_the_target_is_always_right_and_writes_the_same_paths(model: EventModel) -> None:
    knobs, runs = {"paths": 4}, []
    for name, more in (("event_sampling", {}), ("speculative_events", {"gamma": 5})):
        sessions = {role: model.open(EventSession, model.codec.encode(PROMPT), Sampling(temperature=1.0), Meter(), 99)
                    for role in find(name).roles}  # fmt: skip
        steps = list(find(name).run(**sessions, ask=Ask(60, Seeded(5)), **knobs, **more))
        held = {m.slot: (m.token, m.values) for step in steps for m in step.marks if m.fate.commits}
        runs.append((held, len(steps), steps[0].figures))
    assert runs[0][0] == runs[1][0]
    assert runs[1][2]["chance 1"] == pytest.approx(1.0)
    assert runs[1][1] <= -(-runs[0][1] // 6) + 1


def test_files_and_bits(tmp_path: Path) -> None:
    path = tmp_path / "events.safetensors"
    save_events(path, net(1))
    loaded = load_events("house/events", path, "cpu")
    assert loaded.num_params == net(1).num_params
    draft = guesses(1, 3)
    exact = EventModel("toy", FrozenEvents(net(1)))
    laws = [opened(m, 1).score(draft.gap_N, draft.kind_N) for m in (loaded, exact)]
    assert float((laws[0].mean_NM - laws[1].mean_NM).abs().max()) < 0.1
    with pytest.raises(UserError, match=r"backend\.train\.forecast\.events"):
        read_events(tmp_path / "none.safetensors")


def test_training_learns_resumes_and_distils(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--tiny", "--data", str(tmp_path / "data"), "--out", str(tmp_path)]
    training.main([*where, "--steps", "60"])
    first = [float(line.split()[3]) for line in capsys.readouterr().out.splitlines()]
    training.main([*where, "--steps", "110"])
    training.main([*where, "--model", "draft", "--steps", "10"])
    later = [float(line.split()[3]) for line in capsys.readouterr().out.splitlines()]
    assert later[0] < first[0]
    assert {f"{name.removeprefix('house/')}.safetensors" for name in EVENTS} <= {p.name for p in tmp_path.iterdir()}
    law = load_events("house/events", tmp_path / "events.safetensors", "cpu")
    total = events.elapsed(opened(law, 1).score(), torch.tensor([[1e9]], dtype=torch.float64))
    assert float(total) == pytest.approx(1.0)
