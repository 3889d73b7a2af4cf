"""The form: what handlers read, what links carry, what is refused."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from backend.catalog import Entry
from backend.errors import UserError
from backend.registry import Strategy, strategies
from backend.types import Request
from demos import text
from demos.parts import form as form_module
from demos.parts import knobs, links, snapshot
from demos.parts.lab import Lab
from tests.ui.fakes import FakeCatalog

SIZES = knobs.pool_sizes(knobs.offered("causal"))


def form(**changes: Any) -> dict[str, Any]:
    numbers = {name: default for name, (_, _, default, _) in form_module.NUMBERS.items()}
    base = {"prompt": "hello", "mode": "Chat", "model": "", "precision": "auto", **numbers, "lock": True}
    return {
        **base,
        "budget": 8,
        "lanes": [{"strategy": "speculative", "models": {}, "knobs": {"gamma": 3}}, None, None],
        **changes,
    }


def values_of(updates: list[Any]) -> list[Any]:
    """What handlers would be given after these updates."""
    return [u if isinstance(u, str) else getattr(u, "value", None) for u in updates]


@pytest.mark.parametrize("strategy_id", [s.id for s in knobs.offered("causal")])
def test_slots_carry_every_strategy_both_ways(strategy_id: str) -> None:
    found = strategies()[strategy_id]
    setting = {"models": {role: f"house/{role}" for role in found.roles if role != "target"}}
    setting["knobs"] = {name: option.default for name, option in found.knobs.items()}
    slots = knobs.show_slots(strategy_id, SIZES, setting)
    assert len(slots) == sum(SIZES.values())
    assert knobs.read([strategy_id, *values_of(slots)], SIZES) == {"strategy": strategy_id, **setting}


def test_an_unused_lane_is_left_out() -> None:
    assert knobs.read([knobs.NONE, *[None] * sum(SIZES.values())], SIZES) is None
    requests = form_module.make_requests(form())
    assert [r.strategy for r in requests] == ["autoregressive", "speculative"]
    assert requests[1].knobs == {"gamma": 3}


def test_lanes_share_prompt_sampling_budget_and_seed() -> None:
    a, b = form_module.make_requests(form(seed=7, temperature=0.5, mode="Complete"))
    assert (a.prompt, a.sampling, a.budget, a.seed) == (b.prompt, b.sampling, b.budget, b.seed)
    assert a.prompt == {"text": "hello", "chat": False}
    assert a.seed == 7


def test_an_unlocked_seed_is_new_every_time() -> None:
    assert len({form_module.make_requests(form(lock=False))[0].seed for _ in range(8)}) > 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"prompt": "  "}, "prompt is empty"), ({"budget": 0}, "between 1 and"), ({"budget": 10**6}, "between 1 and")],
)
def test_what_cannot_run_is_refused_at_once(changes: dict[str, Any], sentence: str) -> None:
    lab = Lab(FakeCatalog())  # type: ignore[arg-type]
    with pytest.raises(gr.Error, match=sentence):
        next(text.run(lab, form(**changes), "me"))
    assert lab.running == 0


def test_the_handler_yields_states_in_order_and_tables_at_the_end() -> None:
    lab = Lab(FakeCatalog(0.002, load_seconds=0.3))  # type: ignore[arg-type]
    seen = list(text.run(lab, form(budget=200), "me"))
    states = list(dict.fromkeys(values[0]["state"] for values in seen))
    assert states[-1] == "done"
    assert {"loading", "running"} <= set(states)
    assert {len(values) for values in seen} == {8}
    assert len(seen[-1][5]) == 2, "a row a lane in the summary"
    assert str(seen[-1][7]).endswith(".json.gz")


def test_closing_the_handler_frees_the_device_and_stop_is_the_visitors_own() -> None:
    catalog = FakeCatalog(0.01)
    lab = Lab(catalog)  # type: ignore[arg-type]
    mine = text.run(lab, form(budget=500), "me")
    next(mine)
    lab.stop("somebody else")
    race = lab._races["me"]
    assert not race.stopping
    mine.close()
    assert race.wait(15)
    assert not catalog.lock.locked()


def test_a_second_run_of_a_visitor_stops_the_first() -> None:
    lab = Lab(FakeCatalog(0.01))  # type: ignore[arg-type]
    first = text.run(lab, form(budget=500), "me")
    next(first)
    race = lab._races["me"]
    assert list(text.run(lab, form(budget=4), "me"))[-1][0]["state"] == "done"
    assert race.over
    assert list(first)[-1][0]["state"] == "stopped"


def test_links_go_both_ways() -> None:
    query = links.make_link("text", form(prompt="Grüße 🎈"))
    assert query.startswith("?v=1&tab=text&c=")
    parts = dict(pair.split("=", 1) for pair in query[1:].split("&"))
    assert links.read_link(parts)["prompt"] == "Grüße 🎈"


@pytest.mark.parametrize("query", [{}, {"v": "2", "c": "x"}, {"v": "1", "c": "%%%"}, {"v": "1", "c": "eJw"}])
def test_broken_links_are_ignored(query: dict[str, str]) -> None:
    assert links.read_link(query) == {}


def test_a_link_that_unpacks_to_too_much_is_ignored() -> None:
    query = links.make_link("text", {"prompt": "a" * 200_000})
    parts = dict(pair.split("=", 1) for pair in query[1:].split("&"))
    assert links.read_link(parts) == {}


@pytest.mark.parametrize(
    ("given", "read"), [(5, 2.0), (-1, 0.0), ("x", 0.5), (True, 0.5), (float("nan"), 0.5), (1, 1.0)]
)
def test_numbers_of_links_are_clamped(given: Any, read: float) -> None:
    assert links.number({"t": given}, "t", 0.0, 2.0, 0.5) == read


@pytest.mark.parametrize(
    "lane",
    ["x", 5, [], {"strategy": "no_such"}, {"strategy": "speculative", "knobs": {"gamma": 99, "x": 1}, "models": 3}],
)
def test_hostile_links_fill_nothing_unknown(lane: Any) -> None:
    cleaned = form_module.clean(lane)
    assert cleaned is None or cleaned == {"strategy": "speculative", "models": {}, "knobs": {}}


# ------------------------------------------------------------------------------- promises, roles and several prompts
def conditional() -> Strategy:
    """A strategy whose promise a knob decides."""
    return next(s for s in knobs.offered("causal") if s.only)


def test_the_promise_follows_the_knobs_and_says_what_it_needs() -> None:
    found = conditional()
    kept, needs = knobs.promise_of(found.id, found.only), knobs.needed(found)
    assert f'data-kind="{found.guarantee.value}"' in kept
    assert f"Only {found.guarantee.value} with {needs}." in kept
    name, value = next(iter(found.only.items()))
    option = found.knobs[name]
    others = [c for c in option.choices if c != value] or [v for v in (option.low, option.high) if v != value]
    lost = knobs.promise_of(found.id, {**found.only, name: others[0]})
    assert 'data-kind="lossy"' in lost
    assert f"It would be {found.guarantee.value} with {needs}." in lost
    updates = knobs.show(found.id, SIZES, {"knobs": {**found.only, name: others[0]}})
    assert 'data-kind="lossy"' in updates[0]


def test_a_knob_changes_the_promise_of_its_lane() -> None:
    """The page has an event from every knob of a lane to the lane's promise line."""
    with gr.Blocks() as page:
        lane = knobs.build_lane(2, conditional().id, knobs.offered("causal"), {})
    slots = {slot._id for slot in lane.slots[SIZES["model"] :]}
    listened = {target for fn in page.fns.values() for target, event in fn.targets if event == "input"}
    assert slots <= listened


def test_model_menus_hold_only_models_that_speak_the_role() -> None:
    class Catalog(FakeCatalog):
        def entries(self) -> list[Entry]:
            heads = Entry("house/some-heads", "Some heads", "house", "text", "heads", 1, "Heads.", True)
            return [*super().entries(), heads]

    known = knobs.offered("causal")
    menus = knobs.model_menus(Catalog(), known)  # type: ignore[arg-type]
    for strategy in known:
        spoken = strategy.describe()["roles"]
        slots = knobs.show_slots(strategy.id, SIZES, {}, menus)
        for role, slot in zip([r for r in spoken if r != "target"], slots, strict=False):
            ids = {model_id for _, model_id in slot.choices}
            assert knobs.USUAL in ids
            assert ("house/some-heads" in ids) is (spoken[role] == "heads")
            assert ("house/fake-draft" in ids) is (spoken[role] == "causal")
    assert "house/some-heads" not in {e.id for e in knobs.targets(Catalog(), known)}  # type: ignore[arg-type]


def test_the_text_tab_offers_no_models_of_pictures() -> None:
    """Though painters are causal too: neither as targets nor for other roles, guided or not."""

    class Catalog(FakeCatalog):
        def entries(self) -> list[Entry]:
            painter = Entry("house/some-painter", "", "house", "image", "causal", 1, "", True)
            return [*super().entries(), painter]

    known = knobs.offered("causal")
    targets = {e.id for e in knobs.targets(Catalog(), known)}  # type: ignore[arg-type]
    menus = knobs.model_menus(Catalog(), known)  # type: ignore[arg-type]
    assert "local/fake" in targets
    assert "house/some-painter" not in targets | {model_id for menu in menus.values() for _, model_id in menu}


def test_lines_of_dashes_separate_prompts_for_those_who_answer_several() -> None:
    together = next(s for s in knobs.offered("causal") if s.describe()["roles"]["target"] == form_module.SEVERAL)
    lanes = [{"strategy": s, "models": {}, "knobs": {}} for s in (together.id, "jacobi")]
    base, several, other = form_module.make_requests(form(prompt="one\n---\n two \n\n---\n", lanes=lanes))
    assert base.prompt == other.prompt == "one"
    assert several.prompt == {"texts": ["one", " two "], "chat": True}
    assert snapshot.prompt_text(several.prompt) == "one\n---\n two "
    with pytest.raises(UserError, match="prompt is empty"):
        form_module.make_requests(form(prompt="---\n---"))


def test_a_strategy_for_another_kind_of_model_gets_the_usual_one_of_that_kind() -> None:
    class Catalog(FakeCatalog):
        def entries(self) -> list[Entry]:
            return [*super().entries(), Entry("house/fleet", "", "house", "text", "fleet", 1, "", True)]

    together = next(s for s in knobs.offered("causal") if s.describe()["roles"]["target"] == form_module.SEVERAL)
    requests = [Request(s, "x", {"target": "local/fake"}) for s in (together.id, "jacobi")]
    first, second = form_module.fitted(requests, Catalog())  # type: ignore[arg-type]
    assert dict(first.models) == {}
    assert dict(second.models) == {"target": "local/fake"}
    assert form_module.fitted(requests, FakeCatalog()) == requests, "models of one kind serve all"  # type: ignore[arg-type]
