"""Styles of pictures on the image tab: what can be asked for in each, and which painters and strategies it has.

What is raced is compared, so that all painters of a race paint the same style; a form has one, and its menus follow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import gradio as gr

from backend.catalog import Catalog, Entry
from backend.codecs import portraits, thumbs
from backend.codecs.caption_words import PIXEL_WORDS, Lexicon
from backend.codecs.of_models import style_of_model
from backend.codecs.styles import PIXEL, STYLES, THUMBS
from backend.codecs.thumb_words import THUMB_WORDS
from backend.errors import UserError
from backend.registry import Strategy
from demos.parts import knobs
from demos.parts.form import Form

ANY, NONE = portraits.ANY, portraits.NONE
GUIDED = ("causal", "masked", "scale", "coarse")  # kinds of painters that can be guided
PROTOCOLS = (*GUIDED, "distilled")  # all kinds, in the order of the menu


@dataclass(frozen=True)
class Portrait:
    """A prompt on a chip."""

    kind: str
    prompt: str
    style: str = PIXEL


EXAMPLES = (
    Portrait("glasses", "brown skin, short blue hair, round glasses, smile, red shirt, mint background"),
    Portrait(
        "hat",
        "a laughing woman with long red hair, a green cap, blue eyes and a striped purple shirt, yellow background",
    ),
    Portrait("beard", "dark skin, bald, full black beard, sunglasses, neutral, grey vest, white background"),
    Portrait("few words", "a portrait with a pink mohawk"),
    Portrait("never seen", "pale skin, blue bob, brown eyes, smirk, yellow shirt, lavender background"),
    Portrait("laughing", "orange thumb, round eyes, laughing, leaning left, mint background", THUMBS),
    Portrait("in love", "a red thumb with hearts for eyes, grinning, looking right, on a pink background", THUMBS),
    Portrait("asleep", "green thumb, closed eyes, smile, leaning right, navy background", THUMBS),
    Portrait("any thumb", "a thumb", THUMBS),
    Portrait("unseen pair", "purple thumb, tall eyes, kiss, upright, mint background", THUMBS),
)


@dataclass(frozen=True)
class Look:
    """What the form shows of a style. usual: strategies of lanes 2 to 4 where no race was recorded."""

    words: Lexicon
    tints: Mapping[str, Mapping[str, str]]  # colours that attributes stand for
    usual: tuple[str, ...]


LOOKS: Mapping[str, Look] = {
    PIXEL: Look(
        PIXEL_WORDS,
        {
            "skin": portraits.SKINS,
            "hair_color": portraits.HAIR_COLOURS,
            "eyes": portraits.EYE_COLOURS,
            "hat_color": portraits.CLOTHES_COLOURS,
            "clothing_color": portraits.CLOTHES_COLOURS,
            "background": portraits.BACKGROUNDS,
        },
        ("speculative_jacobi", "confidence", "next_scale"),
    ),
    THUMBS: Look(
        THUMB_WORDS,
        {"color": thumbs.COLOURS, "background": thumbs.BACKGROUNDS},
        ("speculative_jacobi", "confidence", "halton_order"),
    ),
}


def reading(prompt: str, style: str = PIXEL) -> dict[str, Any]:
    """What a prompt was understood to say, for the chips below it: attributes, words left out, or the error."""
    look = LOOKS[style]
    try:
        found = read(prompt, style)
    except UserError as error:
        return {"chips": [], "ignored": [], "note": "", "error": str(error)}
    titles = look.words.titles
    said = [(name, getattr(found.attributes, name)) for name in titles if name != "style"]
    chips = [
        {"title": titles[name], "value": value, "tint": look.tints.get(name, {}).get(value, "")}
        for name, value in said
        if value not in (ANY, NONE)
    ]
    absent = [titles[name] for name, value in said if value == NONE and not name.endswith("_color")]
    chips += [{"title": title, "value": NONE, "tint": ""} for title in absent]
    note = "This combination was held out of training." if STYLES[style].held_out(found.attributes) else ""
    return {"chips": chips, "ignored": list(found.ignored), "note": note, "error": ""}


def read(prompt: str, style: str) -> Any:
    """A prompt's attributes in a style. Raises UserError, which names another style where the prompt is about that."""
    try:
        return STYLES[style].read(prompt or "")
    except UserError as error:
        others = [other for other in LOOKS if other != style and prompt and prompt.strip() and _reads(prompt, other)]
        if not others:
            raise
        words = LOOKS[style].words
        raise UserError(
            f"This prompt describes a {LOOKS[others[0]].words.name}, but the style is {STYLES[style].title}; change "
            f'the style, or describe a {words.name}, such as "{words.example}".'
        ) from error


def _reads(prompt: str, style: str) -> bool:
    try:
        STYLES[style].read(prompt)
    except UserError:
        return False
    return True


class OneStyle:
    """A catalog whose models of pictures are those of one style; in all else the catalog."""

    def __init__(self, catalog: Catalog, style: str) -> None:
        self._catalog, self._style = catalog, style

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def entries(self) -> list[Entry]:
        """The models that menus offer."""
        return [e for e in self._catalog.entries() if e.modality != "image" or style_of_model(e.id) == self._style]

    def default(self, role: str, target: str) -> str:
        """The model that usually plays a role beside a target. Raises UserError where it would be of another style."""
        found = self._catalog.default(role, target)
        if style_of_model(found) != self._style:
            raise UserError(f"There is no {role.replace('_', ' ')} model for {target}; pick a model that has one.")
        return found


def one_style(catalog: Catalog, style: str) -> Catalog:
    """The catalog with the painters of one style alone."""
    return cast(Catalog, OneStyle(catalog, style))


def painters(catalog: Catalog, protocol: str) -> list[Entry]:
    """The models of pictures of a kind that can be a target."""
    return [e for e in knobs.models_for(catalog, protocol, modality="image") if not e.id.endswith("-draft")]


@dataclass(frozen=True)
class Offer:
    """What the menus hold under a style: strategies, the baseline first, models of roles, and painters by kind."""

    style: str
    known: Sequence[Strategy]
    menus: knobs.Menus
    painters: Mapping[str, Sequence[Entry]]

    @property
    def lanes(self) -> list[dict[str, Any]]:
        """Settings of lanes 2 to 4 where nothing else is asked for."""
        ids = {s.id for s in self.known}
        usual = [s for s in LOOKS[self.style].usual if s in ids]
        return [{"strategy": s, "models": {}, "knobs": {}} for s in usual]

    @property
    def models(self) -> dict[str, str]:
        """The usual painter by kind, as a form names them."""
        return {f"model_{kind}": usual(entries) for kind, entries in self.painters.items() if entries}


def usual(entries: Sequence[Entry]) -> str:
    """The first model that is here."""
    return next((e.id for e in entries if e.available), entries[0].id)


def painter_choices(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Painters in a menu."""
    return [(f"{e.title}{'' if e.available else ' (not here)'}", e.id) for e in entries]


def offers(catalog: Catalog, known: Sequence[Strategy]) -> dict[str, Offer]:
    """By style, what can be chosen: pixel portraits first, others only where one of their painters is here."""
    made = {}
    for style in LOOKS:
        own = one_style(catalog, style)
        of_kind = {kind: painters(own, kind) for kind in PROTOCOLS}
        if style == PIXEL or any(e.available for entries in of_kind.values() for e in entries):
            able = knobs.playable(known, own, "image")
            made[style] = Offer(style, able, knobs.model_menus(own, able, "image"), of_kind)
    return made


@dataclass
class StyledForm(Form):
    """The form of the image tab, whose menus and chips follow the style."""

    offers: Mapping[str, Offer] = field(default_factory=dict)
    chips: Mapping[str, gr.Button] = field(default_factory=dict)  # by kind of example

    @property
    def outputs(self) -> list[Any]:
        """What `fill` updates."""
        return [*super().outputs, *self.chips.values()]

    def fill(self, form: Mapping[str, Any]) -> list[Any]:
        """As every form's; where it names a style, what can be chosen changes too."""
        offer = self.offers.get(str(form.get("style", "")))
        if offer is None:
            return [*super().fill(form), *(gr.skip() for _ in self.chips)]
        worn = Form(self.plain, self.lanes, self.sizes, offer.menus, self.numbers, self.texts, self.choices)
        updates = worn.fill(form)
        self._dress(updates, offer)
        styles = {e.kind: e.style for e in EXAMPLES}
        return [*updates, *(gr.Button(visible=styles[kind] == offer.style) for kind in self.chips)]

    def _dress(self, updates: list[Any], offer: Offer) -> None:
        """Give the updates of prompt, painters and lanes what they offer in this style."""
        names, words = list(self.plain), LOOKS[offer.style].words
        at = names.index("prompt")
        updates[at] = gr.Textbox(label=f"Describe a {words.name}", placeholder=words.example, **_value(updates[at]))
        for kind, entries in offer.painters.items():
            if f"model_{kind}" in self.plain:
                at = names.index(f"model_{kind}")
                choices = painter_choices(entries)
                updates[at] = gr.Dropdown(choices=choices, visible=bool(choices), **_value(updates[at]))
        width = 3 + sum(self.sizes.values())
        for i in range(len(self.lanes)):
            at = len(names) + i * width
            updates[at] = gr.Dropdown(choices=knobs.lane_choices(offer.known), **_value(updates[at]))


def _value(update: Any) -> dict[str, Any]:
    """The value of an update as an argument; none where it changes nothing."""
    return {"value": update} if isinstance(update, str) else {}
