"""The benchmark of pictures: prompts that say what they are of, shares and distances, lanes, resuming, and reports."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend import bench, findings, image_bench, image_prompts, image_report
from backend.bench_lanes import Prompted, read_models, read_prompts
from backend.codecs import thumbs
from backend.codecs.captions import parse
from backend.codecs.portraits import NAMES, Attributes, draw_many, held_out
from backend.codecs.styles import STYLES
from backend.entries import Entry
from backend.errors import UserError
from backend.image_bench import Progress, Reader, cost, exact_lane, lanes_here, make_lane, share
from backend.image_prompts import named
from backend.image_reference import portraits_of
from backend.models.house.portrait_judge import PortraitJudge
from backend.models.raster import guided
from backend.types import Sampling
from tests.toys_raster import Painters, painter

WARM = Sampling(temperature=1.0)


class Here(Painters):
    """Toy painters as a catalog, with no masked and no scale model."""

    def environment(self) -> dict[str, Any]:
        return {**super().environment(), "cpu": "a toy", "threads": 1, "torch": "2", "python": "3"}

    def entries(self) -> list[Entry]:
        return []

    def default(self, role: str, target: str) -> str:
        if role != "draft":
            raise UserError(f"no {role}")
        return super().default(role, target)

    def default_target(self, protocol: type) -> str:
        raise UserError("none")


@pytest.fixture(name="reader")
def small_judge(monkeypatch: pytest.MonkeyPatch) -> PortraitJudge:
    torch.manual_seed(0)
    reader = PortraitJudge((4, 4, 4, 8)).eval()
    monkeypatch.setattr(image_bench, "judge", lambda style: reader)
    return reader


# ------------------------------------------------------------------------------------------------------------- prompts
def test_prompts_of_thumbs_are_the_generated_ones_and_of_their_kinds() -> None:
    lines = [json.loads(line) for line in image_prompts.file_of("thumbs").read_text(encoding="utf-8").splitlines()]
    assert lines == list(image_prompts.prompts(image_prompts.THUMB_COUNT, "thumbs"))
    for line in lines:
        asked = STYLES["thumbs"].read(line["prompt"]).attributes
        assert thumbs.held_out(asked) == (line["kind"] == "held-out pair")
        low, high = image_prompts.THUMB_KINDS[line["kind"]]
        assert low <= len(named(asked.row(), "thumbs")) <= high


def test_shipped_prompts_are_the_generated_ones_and_of_their_kinds() -> None:
    lines = [json.loads(line) for line in image_prompts.PROMPTS.read_text(encoding="utf-8").splitlines()]
    assert lines[:20] == list(image_prompts.prompts(20))
    assert len(lines) == len({line["prompt"] for line in lines}) == len({line["id"] for line in lines}) == 500
    for line in lines:
        asked = parse(line["prompt"])
        things = {name.removesuffix("_color") for name in (NAMES[i] for i in named(asked.row()))}
        low, high = image_prompts.KINDS[line["kind"]]
        assert low <= len(things) <= high, line
        assert held_out(asked) == (line["kind"] == "held-out pair"), line
    for start in range(0, 500, 10):
        assert sorted(line["kind"] for line in lines[start : start + 10]) == sorted(image_prompts.TURN)
    kinds = [prompt.kind for prompt in read_prompts("12", (), image_prompts.PROMPTS)]
    assert set(kinds) == set(image_prompts.KINDS)


def test_what_follows_by_itself_is_not_named() -> None:
    row = parse("pixel portrait, no hat, bald, no beard, red shirt").row()
    assert [NAMES[i] for i in named(row)] == ["hair", "beard", "hat", "clothing", "clothing_color"]
    assert named(Attributes().row()) == named(()) == []


# --------------------------------------------------------------------------------------------------------------- lanes
def test_lanes_are_what_the_models_here_can_paint() -> None:
    catalog: Any = Here(painter(), painter("toy/draft", 1))
    names = lanes_here(catalog, "toy/painter")
    assert names[0] == "autoregressive"
    assert {"speculative", "jacobi", "prompt_lookup"} <= set(names)
    assert not {"confidence", "next_scale", "retrieval", "medusa", "temporal_fusion", "superposed"} & set(names)
    lane = make_lane("jacobi:window=4", catalog, "toy/painter", WARM)
    request = lane.request("a red shirt", 3)
    assert (request.budget, request.knobs, request.models) == (256, {"window": 4}, {"target": "toy/painter"})
    assert exact_lane(lane) == "autoregressive"
    other = make_lane("speculative:target=toy/draft:draft=toy/painter", catalog, "toy/painter", WARM)
    assert dict(other.request("a red shirt", 0).models) == read_models(other.name)
    assert read_models(other.name) == {"target": "toy/draft", "draft": "toy/painter"}
    with pytest.raises(UserError, match="no model here to paint with"):
        make_lane("confidence:steps=8", catalog, "toy/painter", WARM)


# ------------------------------------------------------------------------------------------------------------- quality
def test_shares_and_their_errors() -> None:
    assert share([(3, 4), (3, 4)]) == {"attributes": 0.75, "attributes_error": 0.0}
    found = share([(4, 4), (2, 4)])
    assert found["attributes"] == 0.75
    assert found["attributes_error"] == pytest.approx(0.25)  # of the mean of 1 and 1/2: their deviation over root 2
    assert share([(0, 0)]) == {"attributes": None, "attributes_error": None}


def test_pictures_are_held_against_prompts_by_kind(reader: PortraitJudge) -> None:
    prompts = [Prompted("pale skin, blue eyes", "common"), Prompted("dark skin", "few words")] * 3
    catalog: Any = Here(painter())
    against = Reader.of(prompts, catalog, "toy/painter", in_set=4)
    assert against.drawn is not None
    assert against.drawn.real.shape == (24, 8)
    pictures = portraits_of(against.conditions, 1, 5)
    reads = reader.attributes(pictures)
    worth = against.worth(pictures[:5], [-1.0, -2.0, None, None, None], [None] * 4 + [-3.0])
    right = [(reads[i] == against.conditions[i])[named(against.conditions[i])] for i in range(5)]
    assert worth["attributes"] == pytest.approx(np.concatenate(right).mean())
    assert worth["by_kind"]["few words"]["attributes"] == pytest.approx(np.concatenate(right[1::2]).mean())
    assert (worth["pictures"], worth["log_likelihood"], worth["by_painter"]) == (5, -1.5, -3.0)
    assert worth["fd_house"] > 0
    assert "fd_house" not in against.worth(pictures[:3], [None] * 3, [None] * 3)


def test_drawn_portraits_have_what_was_asked() -> None:
    rows = [parse("blue hair, a yellow shirt").row(), parse("bald, no beard").row()]
    drawn = portraits_of(rows, 2, 1)
    same = portraits_of(rows, 2, 1)
    assert (drawn == same).all()
    fresh = draw_many(1, np.random.default_rng(0), Attributes.of(rows[1]), "all")[1]
    assert (fresh[0][np.asarray(rows[1]) > 0] == np.asarray(rows[1])[np.asarray(rows[1]) > 0]).all()


# ------------------------------------------------------------------------------------------------------------ the bench
def arguments(out: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    image_bench.add_arguments(parser)
    args = parser.parse_args(["--pictures", "2", "--set", "2", *more])
    told = {"model": "toy/painter", "prompts": "1", "repeats": 1, "temperature": 1.0, "kinds": "", "json": out}
    return argparse.Namespace(**vars(args), **told, strategies="jacobi:window=16")


def test_measures_and_goes_on_where_it_was(tmp_path: Path, reader: PortraitJudge) -> None:
    """The plain lane is judged by what it paints, a lossless one has its law; a second run measures nothing twice."""
    out, said = tmp_path / "image.json", list[str]()
    model = guided(painter("toy/painter"), 2.0)
    model.context = 24  # timed pictures end early, those for the judge do not
    catalog: Any = Here(model)
    args = arguments(out)
    args.model = "toy/painter@cfg=2"
    result = image_bench.bench(args, catalog, said.append)
    assert json.loads(out.read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    plain, jacobi = result["rows"]
    assert (plain["strategy"], plain["calls"], plain["speedup_calls"]) == ("autoregressive", 24, 1)
    assert plain["rows_by_role"]["target"] == 2 * (13 + 23)
    assert jacobi["knobs"]["window"] == 16
    assert jacobi["speedup_calls"] == pytest.approx(24 / jacobi["calls"])
    assert jacobi["quality"] == {"law_of": "autoregressive"}
    assert plain["quality"]["pictures"] == 2
    assert 0 <= plain["quality"]["attributes"] <= 1
    assert plain["quality"]["by_painter"] == pytest.approx(plain["quality"]["log_likelihood"], abs=1e-5)
    text = image_report.report(result)
    assert "| `jacobi:window=16` | toy/painter@cfg=2 | " in text
    assert "| as `autoregressive` |" in text
    rows = image_report.for_gallery(result)["rows"]
    assert rows[1]["strategy"] == "jacobi"
    assert rows[1]["worth"] == plain["quality"]["attributes"]
    assert rows[1]["num_target_calls"] == jacobi["calls"]
    args.resume, said[:] = True, []
    assert image_bench.bench(args, catalog, said.append)["rows"] == json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert not said
    args.temperature = 0.5
    with pytest.raises(UserError, match=r"was measured with temperature 1\.0, not 0\.5; leave out --resume"):
        image_bench.bench(args, catalog, said.append)


def test_rows_without_quality_are_measured_again(tmp_path: Path) -> None:
    path, environment = tmp_path / "image.json", {"date": "today", "dtype": "float32"}
    rows = [{"strategy": "a", "quality": {"pictures": 3}}, {"strategy": "b", "quality": None}]
    path.write_text(json.dumps({"environment": {**environment, "date": "before"}, "rows": rows}), encoding="utf-8")
    progress = Progress(environment, path)
    progress.resume()
    assert list(progress.rows) == ["a"]
    assert progress.result(["b"])["rows"] == rows[:1]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--tab", "image", "--counts"], "--counts is not for the tab 'image'"),
        (["--tab", "image", "--new-tokens", "8"], "--new-tokens is not for the tab 'image'"),
        (["--tab", "image", "--repeats", "0"], "repeats must be at least 1"),
        (["--resume"], "--resume is not for the tab 'text'"),
        (["--tab", "smell"], "no bench for the tab 'smell' yet; the tabs that have one are: text, image"),
    ],
)
def test_arguments_of_another_tab_are_one_sentence(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(argv) == 2
    assert sentence in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- reports
def lane(name: str, calls: float, seconds: float, attributes: float | None, guarantee: str = "lossless") -> Any:
    worth = {"pictures": 100, "attributes": attributes, "attributes_error": 0.01, "by_kind": {}}
    worth["by_kind"] = {"common": {"attributes": attributes}}
    return {
        "strategy": name,
        "guarantee": guarantee,
        "models": {"target": "house/scales" if name in ("next_scale", "collaborative") else "house/portraits"},
        "knobs": {},
        "calls": calls,
        "calls_by_role": {"target": calls, "draft": 2.0} if name == "relaxed" else {"target": calls},
        "rows_by_role": {"target": 600.0},
        "seconds": seconds,
        "seconds_quartiles": [seconds, seconds],
        "seconds_in_calls": {"target": seconds / 2},
        "speedup_calls": 256 / calls,
        "speedup_time": 1 / seconds,
        "mean_acceptance_length": 256 / calls,
        "draft_acceptance_rate": 0.5,
        "figures": {"moved": 0.0625, "bound": 0.125} if name == "relaxed" else {},
        "quality": worth if attributes is not None else {"law_of": "autoregressive"},
    }


def test_figures_tell_what_was_asked_and_what_came_out() -> None:
    rows = [
        lane("autoregressive", 256, 1.0, 0.99),
        lane("next_scale", 8, 0.2, 0.95),
        lane("speculative_jacobi", 100, 0.9, None),
        lane("speculative", 80, 0.8, None),
        lane("relaxed", 64, 0.7, 0.8, "lossy"),
        lane("collaborative", 8, 0.1, 0.93, "lossy"),
    ]
    told = [line.split(" | ") for line in image_report.figures({"rows": rows}).splitlines()[2:]]
    found = {line[0].removeprefix("| "): (line[1], line[2].removesuffix(" |")) for line in told}
    by = {asked.split("`")[1] if "`" in asked else asked: x for asked, x in found.items()}
    assert found["plain decoding and `next_scale`: 90 % of the attributes of common prompts, by the judge"][1] == "yes"
    text, reached = next(x for asked, x in found.items() if asked.startswith("`next_scale`"))
    assert reached == "no"
    assert text.startswith("32.0x fewer calls, 5.0x faster; attributes right 95.0% ± 1.0% of 100 against 99.0%")
    assert text.endswith("a call over 75 rows costs 6.4 calls over 2.3")
    assert by["speculative_jacobi"] == ("2.56x (100.0 calls against 256.0), in time 1.11x", "yes")
    assert by["relaxed"][1] == "no"
    assert "1.25x (64.0 calls against 80.0)" in by["relaxed"][0]
    assert "50% against 50% of the guesses stay" in by["relaxed"][0]
    assert by["relaxed"][0].endswith("mass moved at a place 0.0625, bound 0.125 (means over steps)")
    rows.append(lane("relaxed:delta=0", 72, 0.7, None))
    rows[4]["knobs"] = {"depth": 16}
    again = image_report.figures({"rows": rows})
    assert "; drafting 16 ahead as it does, but lossless (delta 0): 72.0 calls, so 1.12x" in again
    assert by["collaborative"][0].startswith("2.00x its speed; attributes right 93.0%")
    assert by["collaborative"][1] == "yes"
    assert by["one_step"] == by["confidence"] == ("not measured yet", "")
    assert "| `relaxed` | portraits | 64.0 + 2.0 | 600 |" in image_report.table(rows)


def test_the_readme_says_which_image_models_are_there() -> None:
    def entry(model_id: str, protocol: str, available: bool = True) -> Entry:
        return Entry(model_id, "", "house", "image", protocol, 1, "", available)

    known = [entry("house/a", "causal"), entry("house/b", "grid", False)]
    assert findings.painters(known) == (
        "Image models that are here: for strategies that write one token after the other `house/a`. There is none yet "
        "for the family *unmasking* and the family *next scale* and the family *coarse to fine* and the family "
        "*distilled* and `eagle` beside the first, proven on toy models; so the app does not offer them."
    )
    more = [("b", "grid"), ("c", "flexible"), ("d", "coarse"), ("e", "distilled"), ("f", "heads")]
    every = findings.painters([*known, *(entry(f"house/{name}", protocol) for name, protocol in more)])
    assert every.endswith(
        "for the family *unmasking* `house/b`; for the family *next scale* `house/c`; for the family *coarse to fine* "
        "`house/d`; for the family *distilled* `house/e`; for `eagle` beside the first `house/f`."
    )


def test_nothing_is_claimed_before_it_is_measured(tmp_path: Path) -> None:
    assert findings.figures(tmp_path) == image_report.MISSING
    (tmp_path / "image.json").write_text(json.dumps({"environment": {}, "rows": []}), encoding="utf-8")
    assert findings.figures(tmp_path).count("not measured yet") == len(image_report.FIGURES)


def test_costs_are_per_picture() -> None:
    models = (painter(), painter("toy/draft", 1))
    models[0].context = 24
    catalog: Any = Here(*models)
    made = make_lane("speculative:gamma=8", catalog, "toy/painter", Sampling())
    timed = [made.run(Prompted("a red shirt", "common"), 0)]
    row = cost(made, [timed * 2], [timed * 2])
    assert (row["pictures_timed"], row["slots"], row["speedup_calls"], row["speedup_time"]) == (2, 24, 1, 1)
    assert row["calls"] == timed[0].trace.summary().num_target_calls  # type: ignore[union-attr]
    assert row["calls_by_role"]["draft"] == timed[0].trace.summary().num_draft_calls  # type: ignore[union-attr]
    assert row["sums"]["new_slots"] == 48
