"""Events in files: one sentence a bad row, the rest stays usable; prompts in the unit of their history."""

from __future__ import annotations

import math
from typing import Any

import pytest

from backend.codecs.events import CONTEXT, EventCodec, read_event_table
from backend.errors import UserError

GOOD = "\n".join(f"{t},{'ab'[t % 2]}" for t in range(20))


def test_plain_rows_headers_and_separators() -> None:
    table = read_event_table(GOOD)
    assert table.times == tuple(map(float, range(20)))
    assert table.kinds == ["a", "b"]
    assert table.problems == ()
    assert read_event_table("type;t\n" + "\n".join(f"x;{t}" for t in range(20))).times == table.times
    assert read_event_table("\n".join(map(str, range(20)))).kinds == ["event"]
    dates = read_event_table("time\n" + "\n".join(f"2024-01-{d:02d} 12:00" for d in range(1, 21)))
    assert dates.times[3] - dates.times[0] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("row", "sentence", "left"),
    [
        ("soon,a", "Row 21, column 1: 'soon' is neither a number nor a date", 20),
        (",a", "Row 21, column 1: there is no time", 20),
        ("inf,a", "Row 21, column 1: 'inf' is no finite time", 20),
        ("19,b", "Row 21, column 1: 19 is the time of another event", 20),
        ("3.5,a", "Row 21, column 1: 3.5 is earlier than the row above it", 21),
        ("2024-01-31,a", "Row 21, column 1: '2024-01-31' is a date where the rows before it have numbers", 20),
    ],
)
def test_bad_rows_are_told_and_the_others_stay(row: str, sentence: str, left: int) -> None:
    table = read_event_table(f"{GOOD}\n{row}")
    assert len(table.times) == left
    assert len(table.problems) == 1
    assert table.problems[0].startswith(sentence)
    assert list(table.times) == sorted(table.times)


def test_a_fifth_mark_is_left_out() -> None:
    table = read_event_table("\n".join(f"{t},{'abcd'[t % 4]}" for t in range(40)) + "\n50,rare\n51,a\n52,rare\n53,a")
    assert table.kinds == ["a", "b", "c", "d"]
    assert table.problems == (
        "Row 41 and 1 more row: the models tell 4 marks apart, and 'rare' is rarer than a, b, c, d; left out.",
    )
    assert table.times[-1] == 53.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "There are no events"),
        ("time\n1\n2\n", "2 events can be used, but 16 or more are needed"),
        ("time\nx\n", "0 events can be used"),
        ('"1\n2', "cannot be read as CSV"),
        ("\n".join(map(str, range(10_001))), "10001 rows"),
        ("1" * 1_000_001, "1000001 bytes"),
    ],
)
def test_texts_that_cannot_be_used(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_event_table(text)


def test_a_prompt_is_in_units_of_its_history() -> None:
    prompt = EventCodec().encode({"csv": "\n".join(f"{10 + 2 * t},{'ba'[t % 2]}" for t in range(20)), "horizon": 7.0})
    assert math.isnan(prompt.extras["gaps"][0])
    assert prompt.extras["gaps"][1:] == (1.0,) * 19
    assert prompt.extras["kinds"][:3] == (1, 0, 1)
    assert prompt.extras["until"] == 3.5
    assert (prompt.extras["scale"].location, prompt.extras["scale"].spread) == (48.0, 2.0)
    long = EventCodec().encode({"times": list(range(500)), "horizon": 1})
    assert len(long.extras["gaps"]) == CONTEXT
    assert long.extras["num_kinds"] == 1


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("1,2,3", "must be a mapping"),
        ({"times": list(range(20))}, "horizon must be a time above 0, but None"),
        ({"times": list(range(20)), "horizon": -1.0}, "but -1.0 was given"),
        ({"times": list(range(20)), "horizon": True}, "but True was given"),
        ({"times": [1, 2], "horizon": 1.0}, "2 events were given, but 16"),
        ({"times": [*range(20), 3], "horizon": 1.0}, r"Time 21 \(3\) is not behind"),
        ({"times": [math.nan] * 20, "horizon": 1.0}, "finite numbers"),
        ({"times": list(range(20)), "marks": ["a"], "horizon": 1.0}, "20 times but 1 marks"),
        ({"times": list(range(20)), "marks": list("abcde" * 4), "horizon": 1.0}, "5 marks"),
        ({"times": list(range(20)), "horizon": 1.0, "speed": 2}, "no field 'speed'"),
    ],
)
def test_prompts_that_cannot_be_used(raw: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        EventCodec().encode(raw)
