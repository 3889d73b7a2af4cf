"""Files of series as users have them: what is read, what is refused with which sentence, and what is written."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backend.codecs import dates
from backend.codecs.series import LONGEST_HORIZON, MOST_ROWS, check_ask, forecast_rows, read_series, to_csv
from backend.codecs.series_scale import Scale
from backend.errors import UserError

DAYS = [f"2024-01-{day:02}" for day in range(1, 29)]
GOOD = "".join(f"good,{day},{i % 7}\n" for i, day in enumerate(DAYS))


def long(rows: str) -> str:
    return "unique_id,ds,y\n" + GOOD + rows


# ------------------------------------------------------------------------------------------------------------ layouts
def test_long_format() -> None:
    table = read_series(long("other,2024-01-01,5\n" + "".join(f"other,{d},{i}\n" for i, d in enumerate(DAYS[1:]))))
    assert list(table.series) == ["good", "other"]
    good = table.series["good"]
    assert good.y_T.tolist() == [i % 7 for i in range(28)]
    assert (good.frequency.name, good.season, good.ds[0]) == ("D", 7, "2024-01-01")
    assert good.future(2) == ["2024-01-29", "2024-01-30"]
    assert table.problems == ()


@pytest.mark.parametrize("raw", ["y\n{}", "{}"])
def test_a_single_column(raw: str) -> None:
    (series,) = read_series(raw.format("\n".join(str(np.sin(i / 2.0)) for i in range(60)))).series.values()
    assert series.name == "y"
    assert series.ds[:2] == ["1", "2"]
    assert series.future(1) == ["61"]
    assert series.season in (12, 13)  # 4 pi


def test_wide_format_and_bytes_with_a_mark() -> None:
    rows = "\n".join(f"{d};{i};{i * i};" for i, d in enumerate(DAYS))
    table = read_series(b"\xef\xbb\xbfday;north;south;none\n" + rows.encode())
    assert list(table.series) == ["north", "south"]
    assert table.series["south"].y_T[-1] == 27**2
    (problem,) = table.problems
    assert problem == "Series 'none' (rows 2 to 29, column none) has no value at all; it is left out."


def test_two_columns_without_a_header(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("".join(f"{1950 + i}\t{(i * 37) % 11}\n" for i in range(30)))
    (series,) = read_series(file).series.values()
    assert series.frequency.name == "YS"
    assert series.future(1) == ["1980-01-01"]


def test_extra_columns_and_any_order() -> None:
    rows = "".join(f"{i % 5},x,{d},a\n" for i, d in enumerate(DAYS))
    assert read_series("Y,weather,DS,unique_id\n" + rows).series["a"].y_T[6] == 1


# --------------------------------------------------------------------------------------------------- gaps, frequencies
def test_gaps_are_nan_and_edges_without_values_fall_away() -> None:
    rows = [f"a,{d},{'' if i in (0, 5) else i}" for i, d in enumerate(DAYS) if i != 9]
    series = read_series("unique_id,ds,y\n" + "\n".join(rows)).series["a"]
    assert series.ds[0] == "2024-01-02"
    assert np.flatnonzero(np.isnan(series.y_T)).tolist() == [4, 8]
    assert series.ds[8] == "2024-01-10"
    assert len(series.ds) == len(series) == 27


@pytest.mark.parametrize(
    ("texts", "name", "season", "following"),
    [
        (["2020-01", "2020-02", "2020-03", "2020-05"], "MS", 12, "2020-06-01"),
        (["2020-01-31", "2020-02-29", "2020-03-31"], "ME", 12, "2020-04-30"),
        (["2020Q1", "2020Q2", "2020-Q3"], "QS", 4, "2020-10-01"),
        (["2020-03-31", "2020-06-30", "2020-09-30"], "QE", 4, "2020-12-31"),
        (["19580329", "19580405", "19580412"], "W", 52, "1958-04-19"),
        (["2024/01/01 00:00", "2024/01/01 01:00", "2024/1/1 02:00"], "h", 24, "2024-01-01 03:00:00"),
        (["2024-01-01T00:00Z", "2024-01-01T01:30+01:00", "2024-01-01T01:00"], "30min", 48, "2024-01-01 01:30:00"),
        (["3", "6", "12"], "3", 1, "15"),
        (["2024-02-27", "2024-02-28", "2024-02-29"], "D", 7, "2024-03-01"),
        (["2024-03-07", "2024-03-08", "2024-03-11", "2024-03-12", "2024-03-13", "2024-03-14", "2024-03-15"], "B", 5,
         "2024-03-18"),
        (["2024-01-01", "2024-01-02", "2024-01-05 03:00:07"], "", 1, "2024-01-07 04:30:10"),
    ],
)  # fmt: skip
def test_frequencies(texts: list[str], name: str, season: int, following: str) -> None:
    read = [dates.read_date(text) for text in texts]
    times_T = np.array([date[0] for date in read if date is not None])
    assert len(times_T) == len(texts)
    frequency = dates.infer(times_T, bool(read[0] and read[0][1]))
    assert (frequency.name, frequency.season) == (name, season)
    ahead = dates.continued(times_T, frequency, [1])
    assert dates.written(ahead, bool(read[0] and read[0][1])) == [following]


def test_month_ends_stay_month_ends() -> None:
    times_T = np.array([date[0] for text in ("2023-12-31", "2024-01-31") if (date := dates.read_date(text))])
    ahead = dates.continued(times_T, dates.infer(times_T, False), [1, 2, 3])
    assert dates.written(ahead, False) == ["2024-02-29", "2024-03-31", "2024-04-30"]


@pytest.mark.parametrize("period", [4, 7, 11, 24, 50])
def test_repetition_finds_a_season_through_trend_noise_and_gaps(period: int) -> None:
    noise_T = np.random.default_rng(period).normal(size=300)
    y_T = 10 * np.sin(2 * np.pi * np.arange(300) / period) + 0.3 * np.arange(300) + 3 * noise_T
    y_T[40:43] = np.nan
    assert dates.repetition(y_T) == pytest.approx(period, abs=1 if period > 24 else 0)


@pytest.mark.parametrize("seed", range(5))
def test_repetition_finds_none_in_noise(seed: int) -> None:
    assert dates.repetition(np.random.default_rng(seed).normal(size=200)) == 1


# ---------------------------------------------------------------------------------------------------------- sentences
@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("bad,2024-01-01,1\nbad,2024-01-02,x1\n",
         "Row 31, column y: 'x1' is no number; series 'bad' is left out."),
        ("bad,2024-01-01,1\nbad,2024-01-03,2\nbad,2024-01-02,3\n",
         "Row 32, column ds: '2024-01-02' is earlier than the row before; sort the dates and keep one row each; "
         "series 'bad' is left out."),
        ("bad,2024-01-01,1\nbad,2024-01-01,2\n",
         "Row 31, column ds: '2024-01-01' comes twice; sort the dates and keep one row each; "
         "series 'bad' is left out."),
        ("bad,31/12/2024,1\n",
         "Row 30, column ds: '31/12/2024' is no date; write YYYY-MM-DD, with HH:MM:SS if needed; "
         "series 'bad' is left out."),
        ("bad,2024-01-01,1\nbad,2024-01-02,2\n",
         "Series 'bad' (rows 30 to 31, column y) has 2 values; at least 8 are needed, so it is left out."),
        ("".join(f"bad,{d},3.5\n" for d in DAYS),
         "Series 'bad' (rows 30 to 57, column y) is constant at 3.5; it is left out."),
        ("".join(f"bad,{d},NaN\n" for d in DAYS),
         "Series 'bad' (rows 30 to 57, column y) has no value at all; it is left out."),
        ('bad,2024-01-01,"1,200"\n',
         "Row 30, column y: '1,200' is no number such as 1234.5, without other signs; series 'bad' is left out."),
        ("bad,2024-01-01,1\nbad,first,2\n",
         "Row 31, column ds: 'first' is no date like those before it; write YYYY-MM-DD, with HH:MM:SS if needed; "
         "series 'bad' is left out."),
        ("bad,2024-01-01\n", "Row 30 has 2 cells where the header has 3; series 'bad' is left out."),
        (",2024-01-01,1\n", "Row 30 has no unique_id; the row is left out."),
        ("bad,2024-01-01,inf\n", "Row 30, column y: inf is beyond 1e+15; series 'bad' is left out."),
    ],
)  # fmt: skip
def test_one_sentence_with_row_and_column_and_the_rest_stays_usable(rows: str, sentence: str) -> None:
    table = read_series(long(rows))
    assert table.problems == (sentence,)
    assert list(table.series) == ["good"]
    alone = "unique_id,ds,y\n" + rows
    with pytest.raises(UserError) as caught:
        read_series(alone)
    assert str(caught.value).endswith(sentence[sentence.index("; ") :] if "; " in sentence else sentence)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ("", "The file is empty"),
        ("\n \n", "The file is empty"),
        ("unique_id,ds,y\n", "no values"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        ("a\0b", "zero bytes"),
        ("y\n" * 600_000, "files up to"),
        ("y\n" + "1\n" * (MOST_ROWS + 1), f"up to {MOST_ROWS} are read"),
        ("unique_id,ds,price\na,2024-01-01,1\n", "none is called y"),
        ("y,y\n1,2\n", "two columns 'y'"),
        ("1,2,3,4\n1,2,3,4\n", "no header"),
        ('y\n"1\n', "Row 2 and what follows .* quotation marks"),
        ("ds\n2024-01-01\n", "no column of numbers"),
        (
            "ds,y\n2024-01-01,1,5\n2024-01-02,2,5\n",
            "Row 2 has 3 cells where the first row has 2, and 1 more row fits it no better; they count as missing.",
        ),
    ],
)
def test_files_that_cannot_be_used(raw: str | bytes, word: str) -> None:
    with pytest.raises(UserError, match=word):
        read_series(raw)


@pytest.mark.parametrize("dated", [False, True])
def test_a_row_with_too_few_cells_is_a_gap_of_files_without_ids(dated: bool) -> None:
    lines = [(f"{day}," if dated else "") + f"{i % 5},{i % 3}" for i, day in enumerate(DAYS)]
    lines[9] = DAYS[9]
    table = read_series("\n".join([("ds," if dated else "") + "north,south", *lines]))
    assert table.problems == (f"Row 11 has 1 cell where the first row has {2 + dated}; it counts as missing.",)
    for series in table.series.values():
        assert np.nonzero(np.isnan(series.y_T))[0].tolist() == [9]
        assert len(series) == len(DAYS)


def test_horizon_and_season_are_refused_and_never_clamped() -> None:
    good = read_series(long("")).series["good"]
    assert check_ask(good, 14) == 7
    assert check_ask(good, LONGEST_HORIZON, 14) == 14
    for horizon, season, word in ((0, None, "horizon"), (LONGEST_HORIZON + 1, None, "horizon"), (4, 28, "does not fit"),
                                  (4, 0, "season")):  # fmt: skip
        with pytest.raises(UserError, match=word):
            check_ask(good, horizon, season)


# -------------------------------------------------------------------------------------------------------------- scale
@pytest.mark.parametrize("bent", [False, True])
def test_scale_is_frozen_and_never_clamps(bent: bool) -> None:
    context_T = np.array([3.0, np.nan, 5.0, 9.0, 7.0])
    scale = Scale.of(context_T, bent)
    assert (scale.location, scale.spread) == (6.0, 2.0)
    wild = np.array([-1e9, 0.0, 6.0, 1e12])
    assert scale.decode(scale.encode(wild)) == pytest.approx(wild, rel=1e-9)
    assert np.isnan(scale.encode(context_T)[1])
    with pytest.raises(AttributeError):
        scale.location = 0.0  # type: ignore[misc]


def test_a_scale_knows_nothing_of_what_comes_later() -> None:
    series = read_series(long("")).series["good"]
    other = series.y_T.copy()
    other[20:] = 1e6
    assert Scale.of(series.until(20).y_T) == Scale.of(other[:20])


def test_a_series_that_mostly_stands_still_has_a_scale() -> None:
    assert Scale.of(np.array([0.0] * 9 + [10.0])).spread == pytest.approx(1.0)
    with pytest.raises(UserError, match="constant at 4"):
        Scale.of(np.array([4.0, np.nan, 4.0]))


# ------------------------------------------------------------------------------------------------------------ writing
def test_rows_of_a_forecast() -> None:
    series = read_series(long("")).series["good"]
    levels = [0.05, 0.1, 0.5, 0.9, 0.95]
    rows = forecast_rows(series, np.arange(10.0).reshape(5, 2), levels, "FC-A")
    assert list(rows[0]) == ["unique_id", "ds", "FC-A", "FC-A-lo-80", "FC-A-hi-80", "FC-A-lo-90", "FC-A-hi-90"]
    assert list(rows[1].values()) == ["good", "2024-01-30", 5.0, 3.0, 7.0, 1.0, 9.0]
    with pytest.raises(UserError, match="needs the quantile"):
        forecast_rows(series, np.zeros((5, 1)), levels, "FC-A", [50])
    read = list(csv.DictReader(io.StringIO(to_csv([*rows, {"unique_id": "=1+1", "ds": "x"}]))))
    assert read[0]["FC-A-hi-90"] == "8.0"
    assert read[2]["unique_id"] == "'=1+1"
    assert read[2]["FC-A"] == ""


def test_reading_needs_no_torch() -> None:
    code = "import sys, backend.codecs.series, backend.codecs.series_scale; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
