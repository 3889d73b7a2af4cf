"""Prompts of series, and forecasts read back from traces in the units of the series."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend.codecs.forecast import SeriesCodec
from backend.codecs.series_scale import Scale
from backend.errors import UserError
from backend.registry import find
from backend.run import record
from backend.series.forecasts import acceptance_of, forecast_of
from backend.trace import Trace
from backend.types import Request, Sampling
from tests.toys import ToyCatalog
from tests.toys_forecast import toys_for

CSV = "unique_id,ds,y\n" + "".join(f"a,2024-01-{d:02},{d % 7}\nb,2024-01-{d:02},{d * d}\n" for d in range(1, 31))
CODEC = SeriesCodec(20)


def sort_by_series(text: str) -> str:
    head, *rows = text.splitlines()
    return "\n".join([head, *sorted(rows)])


def test_a_prompt_is_scaled_by_what_is_known_and_no_more() -> None:
    asked = {"csv": sort_by_series(CSV), "series": "b", "until": 24}
    prompt = CODEC.encode(asked)
    assert prompt.tokens == ()
    scale, context = prompt.extras["scale"], prompt.extras["context"]
    assert len(context) == 20
    known_T = np.array([d * d for d in range(5, 25)], dtype=float)
    assert scale == Scale.of(known_T)
    assert scale.decode(np.array(context)) == pytest.approx(known_T)
    assert prompt.extras["season"] == 7
    assert prompt.extras["series"].future(1) == ["2024-01-25"]
    assert CODEC.encode({"y": [1, 2, None, *range(20)], "season": 5}).extras["season"] == 5


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (7, "must be CSV text"),
        ({"csv": CSV, "y": [1]}, "either 'csv' or 'y'"),
        ({"csv": CSV, "horizon": 3}, "no field 'horizon'"),
        ({"csv": sort_by_series(CSV), "series": "c"}, "no usable series 'c'; it has a, b"),
        ({"csv": sort_by_series(CSV), "until": 31}, "behind step 8 to 30, but 31"),
        ({"csv": sort_by_series(CSV), "season": 30}, "does not fit"),
        ({"y": [1.0, "2"]}, "list of numbers"),
        ({"y": [1.0, 2.0]}, "has 2 finite values"),
        ({"y": [4.0] * 9}, "constant at 4"),
        ({"y": list(range(9)), "season": 9}, "between 1 and 8"),
    ],
)
def test_prompts_that_cannot_be_continued(raw: Any, word: str) -> None:
    with pytest.raises(UserError, match=word):
        CODEC.encode(raw)


def traced(strategy: str, **knobs: Any) -> Trace:
    models = toys_for(dict(find(strategy).roles))
    ids = {role: model.id for role, model in models.items()}
    request = Request(strategy, "", ids, knobs, Sampling(temperature=1.0), 9, 4)
    return record(request, ToyCatalog(list(models.values())))


def test_paths_and_bands_come_back_in_units() -> None:
    scale = Scale(100.0, 5.0)
    paths = forecast_of(traced("recursive", paths=40), scale)
    assert paths.joint
    assert paths.values_SH.shape == (40, 9)
    assert np.isfinite(paths.values_SH).all()
    assert (paths.quantiles((0.1, 0.5, 0.9)) == np.quantile(paths.values_SH, (0.1, 0.5, 0.9), axis=0)).all()
    trace = traced("rolled_direct")
    bands = forecast_of(trace, scale)
    assert (bands.joint, len(bands.levels)) == (False, 9)
    assert (np.diff(bands.values_SH, axis=0) > 0).all()
    assert bands.quantiles([0.5, 0.05])[0] == pytest.approx(bands.values_SH[4])
    assert np.isnan(bands.quantiles([0.05])).all()  # nothing is made up beyond the outer levels
    early = forecast_of(trace, None, 1)
    assert np.isnan(early.values_SH[:, 8:]).all()
    assert scale.decode(early.values_SH[:, :8]) == pytest.approx(bands.values_SH[:, :8])
    told = replace(trace, scale={"location": 100.0, "spread": 5.0, "bent": 1.0, "context": 20.0})
    assert (forecast_of(told).values_SH == bands.values_SH).all()  # a run says itself what it is written in


def test_acceptance_by_place_follows_every_path() -> None:
    trace = traced("speculative_patches", paths=60, gamma=2)
    got = acceptance_of(trace)
    assert len(got.judged) == 2
    assert got.judged[1] <= got.kept[0]  # the second is judged where the first stayed
    assert sum(got.kept) == sum(m.fate.value == "kept" for step in trace.steps for m in step.marks)
    assert all(0 < rate < 1 for rate in got.rates)
    assert acceptance_of(traced("recursive", paths=2)).rates == ()
