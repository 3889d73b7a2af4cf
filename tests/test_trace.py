"""Every measure on traces written by hand, replay, JSON both ways, and the sentences for what is no trace."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.errors import UserError
from backend.trace import Difference, Summary, Trace, committed, modelled_seconds, speedup_modelled, summarise
from backend.types import Fate, Mark, Request, Sampling, Step

REQUEST = Request("speculative", "0 1", {"target": "toy/target"}, {"gamma": 2}, Sampling(temperature=1.0), 9, 4)
K, R, U, F, B, G = Fate.KEPT, Fate.REJECTED, Fate.UNREAD, Fate.FIXED, Fate.BONUS, Fate.GUESS


def step(*marks: tuple[int, int, Fate], target: int = 1, draft: int = 2, rows: int = 3, seconds: float = 0.5) -> Step:
    return Step(
        tuple(Mark(*mark) for mark in marks),
        calls={"target": target, "draft": draft},
        rows={"target": rows, "draft": draft},
        seconds=seconds,
        spent={"target": 0.25, "draft": 0.125},
    )


def trace(*steps: Step, prompt: tuple[int, ...] = (0, 1), end: str = "budget") -> Trace:
    return Trace(REQUEST, prompt, {0: "<0>", 1: "<1>"}, {"device": "cpu"}, steps, end)


SPECULATIVE = trace(
    step((2, 5, K), (3, 6, K), (4, 7, B)),  # both kept
    step((5, 5, K), (6, 6, R), (6, 8, F)),  # one kept
    step((7, 5, R), (8, 6, U), (7, 9, F)),  # none kept
    step((8, 3, B), draft=0, rows=1),  # nothing drafted
)
PLAIN = trace(*(step((2 + i, 5, B), draft=0, rows=1, seconds=0.25) for i in range(4)))


# ----------------------------------------------------------------------------------------------------------- measures
def test_summary_of_a_chain() -> None:
    s = SPECULATIVE.summary()
    assert s.new_slots == 7
    assert s.num_steps == 4
    assert s.num_target_calls == 4
    assert s.num_draft_calls == 6
    assert s.rows == {"target": 10, "draft": 6}
    assert s.seconds == 2.0
    assert s.spent == {"target": 1.0, "draft": 0.5}
    assert s.mean_acceptance_length == 7 / 4
    assert s.draft_acceptance_rate == 3 / 6  # 3 kept, 2 rejected, 1 unread
    assert s.alpha == 3 / 5
    assert s.acceptance_per_position == (2 / 3, 1 / 3)
    assert s.acceptance_histogram == {0: 2, 1: 1, 2: 1}
    assert s.units_per_second == 3.5


def test_summary_of_plain_decoding_has_no_rates() -> None:
    s = PLAIN.summary()
    assert (s.new_slots, s.num_target_calls, s.num_draft_calls) == (4, 4, 0)
    assert s.draft_acceptance_rate is None
    assert s.alpha is None
    assert s.acceptance_per_position == ()
    assert s.mean_acceptance_length == 1.0


def test_summary_of_nothing() -> None:
    s = trace().summary()
    assert (s.new_slots, s.num_steps, s.mean_acceptance_length, s.units_per_second) == (0, 0, 0.0, 0.0)


def test_a_depth_of_a_tree_counts_once_a_step() -> None:
    """Two candidates for the next slot, one kept: the step drafted at depth 0 and kept there."""
    tree = trace(step((2, 5, R), (2, 6, K), (3, 7, R), (3, 8, R), (3, 9, F)))
    s = tree.summary()
    assert s.acceptance_per_position == (1.0, 0.0)
    assert s.alpha == 1 / 4
    assert s.acceptance_histogram == {1: 1}


def test_guesses_are_no_drafts() -> None:
    s = trace(step((2, 5, B), (3, 1, G), (4, 1, G))).summary()
    assert s.alpha is None
    assert s.new_slots == 1


def test_calls_of_every_other_role_are_draft_calls() -> None:
    other = replace(PLAIN.steps[0], calls={"target": 1, "draft": 2, "heads": 3})
    assert trace(other).summary().num_draft_calls == 5


def test_speedups_are_per_slot() -> None:
    ours, plain = SPECULATIVE.summary(), PLAIN.summary()
    assert ours.speedup_calls(plain) == pytest.approx(7 / 4)  # 4 calls for 7 slots against 4 for 4
    assert ours.speedup_time(plain) == pytest.approx((1.0 / 4) / (2.0 / 7))
    assert plain.speedup_calls(plain) == plain.speedup_time(plain) == 1.0


def test_summary_is_json() -> None:
    data = json.loads(json.dumps(SPECULATIVE.summary().to_json()))
    assert set(data) == set(Summary.__dataclass_fields__)


def test_runs_of_one_strategy_add_up() -> None:
    one, both = SPECULATIVE.summary(), summarise([SPECULATIVE, SPECULATIVE])
    assert (both.new_slots, both.num_target_calls, both.seconds) == (14, 8, 4.0)
    assert (both.alpha, both.acceptance_per_position) == (one.alpha, one.acceptance_per_position)
    assert both.acceptance_histogram == {0: 4, 1: 2, 2: 2}
    assert summarise([]).new_slots == 0


def test_modelled_speedup() -> None:
    """Target call over n rows: 10 + n. Draft call: half of a one-row call, 5.5."""

    def cost(rows: int) -> float:
        return 10.0 + rows

    assert modelled_seconds(SPECULATIVE, cost, 5.5) == 3 * (13 + 2 * 5.5) + 11
    assert speedup_modelled(SPECULATIVE, cost, 0.5) == pytest.approx(7 * 11 / 83)
    assert speedup_modelled(PLAIN, cost, 0.5) == 1.0
    assert speedup_modelled(trace(), cost, 0.5) == 0.0


def test_modelled_cost_of_two_calls_in_a_step_splits_the_rows() -> None:
    both = trace(step((2, 5, B), target=2, draft=0, rows=7))
    assert modelled_seconds(both, float, 0.0) == 2 * 4


# ------------------------------------------------------------------------------------------------------------- replay
def test_replay_step_by_step() -> None:
    assert SPECULATIVE.replay(0) == [0, 1]
    assert SPECULATIVE.replay(1) == [0, 1, 5, 6, 7]
    assert SPECULATIVE.replay(2) == [0, 1, 5, 6, 7, 5, 8]
    assert SPECULATIVE.replay() == [0, 1, 5, 6, 7, 5, 8, 9, 3]
    assert SPECULATIVE.written(2) == [5, 6, 7, 5, 8]


def test_replay_with_erased_slots_and_gaps() -> None:
    masked = trace(
        Step((Mark(0, 4, B), Mark(3, 7, B))),
        Step((Mark(3, None, Fate.ERASED), Mark(1, 5, B))),
        Step((Mark(0, None, Fate.ERASED), Mark(3, 8, F))),
        Step((Mark(0, 9, B), Mark(2, 1, B))),
        prompt=(),
    )
    assert [masked.replay(i) for i in range(5)] == [[], [4, -1, -1, 7], [4, 5], [-1, 5, -1, 8], [9, 5, 1, 8]]


def test_a_slot_can_be_erased_and_filled_in_one_step() -> None:
    again = trace(Step((Mark(0, 4, B),)), Step((Mark(0, None, Fate.ERASED), Mark(0, 6, B))), prompt=())
    assert again.replay() == [6]


def test_committed_marks_come_in_slot_order() -> None:
    marks = [Mark(5, 1, F), Mark(4, 2, R), Mark(3, 3, B), Mark(4, 4, K), Mark(6, 5, G)]
    assert [m.slot for m in committed(marks)] == [3, 4, 5]


# --------------------------------------------------------------------------------------------------------- difference
def lane(tokens: list[int], end: str = "budget", options: tuple[tuple[int, float], ...] = ()) -> Trace:
    return trace(*(Step((Mark(2 + i, t, B, options=options),)) for i, t in enumerate(tokens)), end=end)


def test_no_difference() -> None:
    assert lane([5, 6]).difference(lane([5, 6])) is None


def test_first_difference_and_the_gap_there() -> None:
    best = ((6, 0.51), (7, 0.49))
    assert lane([5, 7, 1]).difference(lane([5, 6, 2], options=best)) == Difference(3, pytest.approx(0.02))
    assert lane([5, 7]).difference(lane([5, 6])) == Difference(3, None)


def test_a_running_or_stopped_lane_is_compared_as_far_as_it_goes() -> None:
    for end in ("", "stopped", "budget"):
        assert lane([5], end).difference(lane([5, 6])) is None
        assert lane([5, 6]).difference(lane([5], end)) is None


def test_a_lane_that_ended_early_differs() -> None:
    assert lane([5], "end token").difference(lane([5, 6])) == Difference(3, None)
    assert lane([5, 6]).difference(lane([5], "end token")) == Difference(3, None)
    assert lane([5], "end token").difference(lane([5], "end token")) is None


# --------------------------------------------------------------------------------------------------------------- JSON
FULL = trace(
    Step(
        (Mark(2, 5, K, 0.5, 0.25, None, ((5, 0.5), (6, 0.3))), Mark(3, 6, R, 0.1, 0.9, 0), Mark(3, None, Fate.ERASED)),
        "a note",
        None,
        0,
        {"target": 1},
        {"target": 4},
        0.125,
        {"target": 0.1},
    )
)


def test_json_round_trip() -> None:
    for t in (SPECULATIVE, FULL, trace(), replace(FULL, worth={"log_likelihood": -0.7})):
        indexed = replace(t, steps=tuple(replace(s, index=i) for i, s in enumerate(t.steps)))
        assert Trace.from_json(json.loads(json.dumps(t.to_json()))) == indexed


def test_frames_stay_out_of_json() -> None:
    with_frame = replace(FULL, steps=(replace(FULL.steps[0], frame=object()),))
    assert Trace.from_json(json.loads(json.dumps(with_frame.to_json()))) == FULL


def test_save_and_load(tmp_path: Path) -> None:
    FULL.save(tmp_path / "a.json.gz")
    FULL.save(tmp_path / "b.json.gz")
    assert Trace.load(tmp_path / "a.json.gz") == FULL
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in FULL.to_json().items() if k != key}


def with_mark(*mark: Any) -> dict[str, Any]:
    return FULL.to_json() | {"steps": [FULL.to_json()["steps"][0] | {"marks": [list(mark)]}]}


BAD = {
    "slot of text": with_mark("2", 5, "kept", None, None, None, []),
    "slot too far": with_mark(10**12, 5, "kept", None, None, None, []),
    "slot below 0": with_mark(-2, 5, "kept", None, None, None, []),
    "half a token": with_mark(2, 5.5, "kept", None, None, None, []),
    "p of text": with_mark(2, 5, "kept", "<b>", None, None, []),
    "parent of text": with_mark(2, 5, "kept", None, None, "x", []),
    "prompt of text": FULL.to_json() | {"prompt": ["a"]},
    "calls of text": FULL.to_json() | {"steps": [FULL.to_json()["steps"][0] | {"calls": {"target": "1"}}]},
    "empty": {},
    "a list": [],
    "a number": 3,
    "nothing": None,
    "other schema": FULL.to_json() | {"schema": 99},
    **{f"no {key}": without(key) for key in FULL.to_json()},
    "bad fate": FULL.to_json() | {"steps": [FULL.to_json()["steps"][0] | {"marks": [[2, 5, "eaten", 1, 1, None, []]]}]},
    "short mark": FULL.to_json() | {"steps": [FULL.to_json()["steps"][0] | {"marks": [[2, 5]]}]},
    "steps of text": FULL.to_json() | {"steps": "abc"},
    "pieces of text": FULL.to_json() | {"pieces": {"a": "b"}},
    "request of text": FULL.to_json() | {"request": "abc"},
    "unknown field": FULL.to_json() | {"request": FULL.to_json()["request"] | {"colour": "red"}},
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_trace_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(UserError) as caught:
        Trace.from_json(BAD[name])  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert sentence.startswith("This ")
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not gzip",
        gzip.compress(b"not json"),
        gzip.compress(b"\xff\xfe"),
        gzip.compress(b"[]"),
        gzip.compress(b"[" * 99_999),
    ],
)
def test_a_broken_file_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace.json.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a trace"):
        Trace.load(path)


def test_a_truncated_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    FULL.save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="not a trace"):
        Trace.load(path)
