"""One lane's settings: the strategy, its extra models and its knobs, all read from the registry.

Components cannot be made while the page is open, so every lane owns a pool of sliders, boxes, menus and model menus;
choosing a strategy relabels and shows as many of them as its signature asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from backend.catalog import Catalog, Entry
from backend.errors import UserError
from backend.protocols import (
    PROTOCOL_NAMES,
    BandSession,
    FleetSession,
    ForecastSession,
    PictureJudgeSession,
    PictureSession,
)
from backend.registry import Option, Strategy, strategies
from demos.parts.snapshot import MEANING

NONE = ""  # a lane that is not used
USUAL = ""  # the catalog's own choice of a model
Menus = Mapping[str, Sequence[tuple[str, str]]]  # choices of a model menu, by the protocol that its role speaks
MenusBy = tuple[Any, Mapping[str, Menus]]  # a component, and by its value the menus of roles
BY_NAME = {name: protocol for protocol, name in PROTOCOL_NAMES.items()}
RASTER = PROTOCOL_NAMES[PictureSession]  # what causal models of pictures speak
ONLY_PAINTERS = {PictureSession, PictureJudgeSession}
SHARED = frozenset({"paths"})  # options that a tab asks for once, for all lanes together
FIELDS = {int: "slider", float: "slider", bool: "box", str: "menu"}


@dataclass
class LaneForm:
    """The components of one lane. `inputs` are what handlers get, in the order that `read` expects."""

    strategy: gr.Dropdown
    promise: gr.HTML
    options: gr.Accordion
    slots: list[Any]  # components whose look depends on the strategy: models, sliders, boxes, menus

    @property
    def inputs(self) -> list[Any]:
        """What handlers get."""
        return [self.strategy, *self.slots]


def offered(*protocols: str, modality: str = "text") -> list[Strategy]:
    """The strategies for models that speak one of these protocols, in their order, the baseline first.

    Those that only pictures can be painted with are left out for everything else.
    """
    known = [s for protocol in protocols for s in strategies().values() if s.describe()["protocol"] == protocol]
    return [s for s in known if modality == "image" or not ONLY_PAINTERS & set(s.roles.values())]


def playable(known: Sequence[Strategy], catalog: Catalog, modality: str) -> list[Strategy]:
    """Those of the strategies for which the catalog offers a target of the modality, and models for the other roles."""
    out = []
    for strategy in known:
        fit = models_for(catalog, strategy.describe()["roles"]["target"], modality=modality)
        if fit and all(_has_usual(catalog, role, fit[0].id) for role in strategy.roles if role != "target"):
            out.append(strategy)
    return out


def _has_usual(catalog: Catalog, role: str, target: str) -> bool:
    try:
        return bool(catalog.default(role, target))
    except UserError:
        return False


def models_for(catalog: Catalog, *protocols: str, modality: str = "text") -> list[Entry]:
    """The models of a modality that can play a role of one of these protocols.

    A painter that can do more than a protocol asks for, such as one that knows its grid, is among them.
    """
    entries = [e for e in catalog.entries() if e.modality == modality]
    if modality == "text":
        return [e for e in entries if e.protocol in protocols]
    spoken = {e.id: _spoken(e) for e in entries}
    return [e for e in entries if any(BY_NAME[p] in spoken[e.id] for p in protocols)]


def _spoken(entry: Entry) -> tuple[type, ...]:
    """The protocols that a model speaks: that of its entry and those which are part of it."""
    if entry.modality == "image" and entry.protocol == "causal":
        return BY_NAME[RASTER].__mro__
    more = {"lookahead": (BandSession,), "causal": (FleetSession,)}  # bands as well; several paths at once
    return (*BY_NAME[entry.protocol].__mro__, *more.get(entry.protocol, ()))


def own_knobs(strategy: Strategy) -> dict[str, Option]:
    """The options that a lane asks for: all but those that are asked for once."""
    return {name: option for name, option in strategy.knobs.items() if name not in SHARED}


def label_of(strategy: Strategy, known: Sequence[Strategy]) -> str:
    """A strategy in a menu; those that write a series in tokens are told apart from those that write numbers."""
    kind = "tokens · " if known[0].base is ForecastSession and strategy.base is not ForecastSession else ""
    return f"{kind}{strategy.family} · {strategy.title}"


def targets(catalog: Catalog, known: Sequence[Strategy], modality: str = "text") -> list[Entry]:
    """The models of a modality that one of the strategies can have as its target."""
    return models_for(catalog, *{s.describe()["roles"]["target"] for s in known}, modality=modality)


def model_menus(catalog: Catalog, known: Sequence[Strategy], modality: str = "text") -> Menus:
    """Choices for every protocol that a role beside the target speaks."""
    spoken = {name for s in known for role, name in s.describe()["roles"].items() if role != "target"}
    usual = ("the usual one for the model", USUAL)
    return {
        name: [usual, *((e.id, e.id) for e in models_for(catalog, name, modality=modality))] for name in sorted(spoken)
    }


def lane_choices(known: Sequence[Strategy]) -> list[tuple[str, str]]:
    """What a lane's menu holds. known: the baseline first, which has a lane of its own."""
    return [("no strategy in this lane", NONE), *((label_of(s, known), s.id) for s in known[1:])]


def build_lane(
    number: int, strategy_id: str, known: Sequence[Strategy], menus: Menus, prefix: str = "", by: MenusBy | None = None
) -> LaneForm:
    """Lane `number` (2 to 4) with that strategy chosen. prefix: of its id on the page. by: what chooses other menus."""
    sizes = pool_sizes(known)
    choices = lane_choices(known)
    with gr.Column(elem_classes=["dl-group", "dl-lane-config", f"dl-l{number}"]):
        menu = gr.Dropdown(choices, value=strategy_id, label=f"Lane {number}", elem_id=f"{prefix}lane-{number}")
        promise = gr.HTML(promise_of(strategy_id))
        with gr.Accordion("Options", open=False, visible=has_options(strategy_id)) as accordion:
            slots = show_slots(strategy_id, sizes, {}, menus)
    form = LaneForm(menu, promise, accordion, slots)
    outputs = [promise, accordion, *form.slots]
    quick: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    chooser, others = by or (None, {})

    def on_menu(chosen: str, value: str = "") -> list[Any]:
        return show(chosen, sizes, menus=others.get(value, menus))

    menu.input(on_menu, [menu] if chooser is None else [menu, chooser], outputs, **quick)
    if any(s.only for s in known):  # a promise that a knob decides follows the knob

        def on_knob(*values: Any) -> Any:
            lane = read(values, sizes)
            found = strategies().get(lane["strategy"]) if lane else None
            return promise_of(found.id, lane["knobs"]) if lane and found and found.only else gr.skip()

        changes = [slot.input for slot in slots[sizes["model"] :]]
        gr.on(changes, on_knob, form.inputs, promise, trigger_mode="always_last", **quick)
    return form


def pool_sizes(known: Sequence[Strategy]) -> dict[str, int]:
    """How many components of each kind the most demanding strategy needs."""
    sizes = {"model": max((len(s.roles) - 1 for s in known), default=0)}
    for kind in ("slider", "box", "menu"):
        sizes[kind] = max((sum(FIELDS[o.kind] == kind for o in own_knobs(s).values()) for s in known), default=0)
    return sizes


def show(
    strategy_id: str, sizes: Mapping[str, int], setting: Mapping[str, Any] | None = None, menus: Menus | None = None
) -> list[Any]:
    """Updates for a lane's promise, accordion and slots. setting: {"models": {...}, "knobs": {...}} to fill in."""
    accordion, setting = gr.Accordion(visible=has_options(strategy_id)), setting or {}
    promise = promise_of(strategy_id, setting.get("knobs", {}))
    return [promise, accordion, *show_slots(strategy_id, sizes, setting, menus)]


def show_slots(
    strategy_id: str, sizes: Mapping[str, int], setting: Mapping[str, Any], menus: Menus | None = None
) -> list[Any]:
    """The slots as the strategy wants them: new components while the page is built, updates of them later.

    menus: what the model menus offer; a role's menu holds only models that speak the role's protocol.
    """
    found = strategies().get(strategy_id)
    spoken = found.describe()["roles"] if found else {}
    roles = [role for role in spoken if role != "target"]
    chosen, values = setting.get("models", {}), setting.get("knobs", {})
    slots: list[Any] = []
    for role in roles:
        choices = {} if menus is None else {"choices": list(menus.get(spoken[role], []))}
        label, value = f"{role.replace('_', ' ')} model", chosen.get(role, USUAL)
        slots.append(gr.Dropdown(visible=True, label=label, value=value, allow_custom_value=True, **choices))
    slots += [gr.Dropdown(visible=False, allow_custom_value=True) for _ in range(sizes["model"] - len(roles))]
    for kind, hidden in (("slider", gr.Slider), ("box", gr.Checkbox), ("menu", gr.Dropdown)):
        knobs = {name: o for name, o in own_knobs(found).items() if FIELDS[o.kind] == kind} if found else {}
        slots += [_filled(name, option, values.get(name, option.default)) for name, option in knobs.items()]
        slots += [hidden(visible=False) for _ in range(sizes[kind] - len(knobs))]
    return slots


def has_options(strategy_id: str) -> bool:
    """Whether there is anything to choose beside the strategy itself."""
    found = strategies().get(strategy_id)
    return found is not None and (len(found.roles) > 1 or bool(own_knobs(found)))


def read(values: Sequence[Any], sizes: Mapping[str, int]) -> dict[str, Any] | None:
    """A lane's {"strategy", "models", "knobs"} from the values of its `inputs`; None for an unused lane."""
    strategy_id, *slots = values
    found = strategies().get(strategy_id)
    if not strategy_id or found is None:
        return {"strategy": strategy_id, "models": {}, "knobs": {}} if strategy_id else None
    roles = [role for role in found.roles if role != "target"]
    models = {role: value for role, value in zip(roles, slots, strict=False) if value}
    at = sizes["model"]
    knobs: dict[str, Any] = {}
    for kind in ("slider", "box", "menu"):
        names = [name for name, option in own_knobs(found).items() if FIELDS[option.kind] == kind]
        knobs.update(zip(names, slots[at : at + sizes[kind]], strict=False))
        at += sizes[kind]
    return {"strategy": strategy_id, "models": models, "knobs": knobs}


def promise_of(strategy_id: str, settings: Mapping[str, Any] | None = None) -> str:
    """One line about what the strategy guarantees with these knobs, and does; registry text only, escaped."""
    found = strategies().get(strategy_id)
    if found is None:
        return ""
    guarantee = found.promises(settings or {}).value
    chip = f'<span class="dl-chip" data-kind="{guarantee}">{guarantee}</span>'
    needs = needed(found)
    if needs and guarantee == found.guarantee.value:
        needs = f" Only {guarantee} with {needs}."
    elif needs:
        needs = f" It would be {found.guarantee.value} with {needs}."
    about = _escape(found.about + needs)
    return f'<div class="dl-promise" title="{MEANING[guarantee]}">{chip} {about}</div>'


def needed(strategy: Strategy) -> str:
    """The knob values that its guarantee needs, in words; "" if it needs none."""
    words = {True: "on", False: "off"}
    return " and ".join(
        f"{name.replace('_', ' ')} {words.get(value, value) if isinstance(value, bool) else value}"
        for name, value in strategy.only.items()
    )


def _filled(name: str, option: Option, value: Any) -> Any:
    label = name.replace("_", " ")
    if option.kind is bool:
        return gr.Checkbox(visible=True, label=label, info=option.help, value=value)
    if option.kind is str:
        return gr.Dropdown(visible=True, label=label, info=option.help, choices=list(option.choices), value=value)
    low, high = option.low or 0, option.high if option.high is not None else 100
    step = 1 if option.kind is int else 0.01
    return gr.Slider(
        minimum=low,
        maximum=high,
        step=step,
        visible=True,
        label=label,
        info=option.help,
        value=value,
        interactive=True,
        buttons=[],
    )


def _escape(text: str) -> str:
    return (
        text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("$", "&#36;")
        .replace("{", "&#123;")
    )
