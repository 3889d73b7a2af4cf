"""The forecasting tab: one series, one forecaster, and every way of unrolling it side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from backend.errors import UserError
from backend.registry import Strategy
from backend.trace import Trace
from demos.parts import backtest, events, forecast_form, page, predictability
from demos.parts.buttons import refused
from demos.parts.fans import fan, to_table
from demos.parts.forecast_form import BASELINE, CHOICES, EXAMPLES, HOLD, LABELS, NUMBERS, OWN
from demos.parts.form import PRECISIONS, Form
from demos.parts.knobs import model_menus, pool_sizes
from demos.parts.lab import Lab
from demos.parts.views import scores_table, series_card

ID, TITLE = "forecast", "Forecasting"
USUAL = tuple(strategy for strategy, _ in EXAMPLES[0].shown)  # lanes 2 to 4 where no race was recorded
READ = ("data", "csv", "own", "horizon", "truth", "context", "back", "season")  # what the card of the series tells


def build(lab: Lab) -> None:
    """Place the tab and connect it."""

    def below(form: Form) -> None:
        backtest.build(lab, form, ID)
        predictability.build(lab, ID)
        events.build(lab, ID)

    page.build(PAGE, lab, forecast_form.offered(lab.catalog()), _build_form, lambda: scores_table(ID), below)


def run(lab: Lab, form: Mapping[str, Any], owner: str) -> Iterator[tuple[Any, ...]]:
    """Race the lanes of a form; see `page.run`."""
    return page.run(PAGE, lab, form, owner)


def _build_form(lab: Lab, known: Sequence[Strategy], traces: Sequence[Trace]) -> tuple[Form, dict[str, Any]]:
    """The left column. traces: of the race that is shown, whose settings become the defaults."""
    asked = forecast_form.form_of(traces) if traces else _asked(EXAMPLES[0].kind)
    first: dict[str, Any] = {name: default for name, (_, _, default, _) in NUMBERS.items()}
    first |= {"data": "", "csv": "", "own": "", "truth": HOLD, "model": "", **asked}
    menus = model_menus(lab.catalog(), known, "series")
    plain: dict[str, Any] = {}
    buttons: dict[str, Any] = {}
    with gr.Column(elem_classes=["dl-ask", "dl-group"]):
        plain["data"] = gr.Dropdown(
            forecast_form.choices(), value=first["data"], label="Series", filterable=True, elem_id=f"{ID}-data"
        )
        card = series_card(forecast_form.reading(first), ID)
        with gr.Row(elem_classes="dl-chiprow"):
            buttons["chips"] = {
                e.kind: gr.Button(e.kind[:1].upper() + e.kind[1:], size="sm", elem_id=f"{ID}-chip-{_slug(e.kind)}")
                for e in EXAMPLES
            }
        plain |= _build_own(first, plain["data"])
        plain["horizon"] = page.slider(ID, "horizon", first["horizon"], NUMBERS, LABELS)
        plain["truth"] = gr.Radio(
            list(CHOICES["truth"]), value=first["truth"], show_label=False, container=False, elem_id=f"{ID}-truth"
        )
        buttons |= page.build_actions(ID)
    lanes = page.build_lanes(known, menus, traces, f"{ID}-", USUAL, BASELINE)
    with gr.Column(elem_classes="dl-more-settings"):
        plain |= _build_settings(lab, first)
    _connect_card(plain, card)
    order = (*READ, "paths", "temperature", "seed", "lock", "model", "precision")
    inputs = {name: plain[name] for name in order}
    texts = ("csv", "own", "model")
    return Form(inputs, lanes, pool_sizes(known), menus, NUMBERS, texts, CHOICES), buttons


def _build_own(first: Mapping[str, Any], data: gr.Dropdown) -> dict[str, Any]:
    """The visitor's own file: pasted or uploaded, and which of its series."""
    plain: dict[str, Any] = {}
    with gr.Accordion("Your own data", open=first["data"] == OWN, elem_classes="dl-fold"):
        upload = gr.UploadButton(
            "Upload a CSV", file_types=[".csv", ".txt", ".tsv"], size="sm", elem_id=f"{ID}-upload",
            elem_classes="dl-upload",
        )  # fmt: skip
        plain["csv"] = gr.Textbox(
            first["csv"],
            label="CSV, up to 1 MB and 10,000 rows",
            info="unique_id, ds, y; or ds and y; or a column for each series. Gaps may stay empty.",
            placeholder="unique_id,ds,y\nshop,2024-01-01,12.5\nshop,2024-01-02,13",
            lines=4,
            max_lines=9,
            elem_id=f"{ID}-csv",
        )
        names = _names(first["csv"])
        plain["own"] = gr.Dropdown(
            names, value=first["own"] or next(iter(names), ""), label="Series of the file", allow_custom_value=True,
            elem_id=f"{ID}-own",
        )  # fmt: skip

    def on_upload(path: str) -> tuple[Any, ...]:
        try:
            csv = forecast_form.loaded(path)
        except UserError as error:
            raise refused(error, "This file does not fit") from error
        return csv, OWN

    upload.upload(on_upload, upload, [plain["csv"], data], **page.TELLING)
    return plain


def _connect_card(plain: dict[str, Any], card: gr.HTML) -> None:
    """The card follows the form; pasted text is chosen at once, and its series fill their menu."""

    def on_change(*values: Any) -> dict[str, Any]:
        return forecast_form.reading(dict(zip(READ, values, strict=True)))

    def on_text(csv: str, own: str, data: str) -> tuple[Any, Any]:
        names = _names(csv)
        menu = gr.Dropdown(choices=names, value=own if own in names else next(iter(names), ""))
        return menu, OWN if (csv or "").strip() else data

    plain["csv"].change(  # not `input`, which text that is pasted whole does not always set off
        on_text, [plain["csv"], plain["own"], plain["data"]], [plain["own"], plain["data"]],
        **page.QUICK, trigger_mode="always_last",
    )  # fmt: skip
    changes = [plain[name].change for name in READ]
    gr.on(changes, on_change, [plain[name] for name in READ], card, **page.QUICK, trigger_mode="always_last")


def _names(csv: str) -> list[str]:
    """The usable series of a text, none where it cannot be read."""
    try:
        return list(forecast_form.pasted(csv).series) if (csv or "").strip() else []
    except UserError:
        return []


def _build_settings(lab: Lab, first: Mapping[str, Any]) -> dict[str, Any]:
    """Context and season, sampling and seed, forecaster and precision."""
    plain: dict[str, Any] = {}
    with gr.Column(elem_classes="dl-group"):
        plain["context"] = page.slider(ID, "context", first["context"], NUMBERS, LABELS)
        with gr.Row():
            for name in ("season", "back"):
                low, high = (int(x) for x in NUMBERS[name][:2])
                plain[name] = gr.Number(
                    first[name], label=LABELS[name], precision=0, minimum=low, maximum=high, min_width=120,
                    elem_id=f"{ID}-{name}",
                )  # fmt: skip
        for name in ("paths", "temperature"):
            plain[name] = page.slider(ID, name, first[name], NUMBERS, LABELS)
        plain |= page.build_seed(first["seed"])
        with gr.Accordion("Forecaster and precision", open=False):
            entries = forecast_form.models_of_menu(lab.catalog())
            usual = next((e.id for e in entries if e.available), entries[0].id if entries else "")
            plain["model"] = gr.Dropdown(
                [(f"{e.title}{'' if e.available else ' (not here)'}", e.id) for e in entries],
                value=first["model"] or usual,
                label="Forecaster",
                info="Strategies that need another kind of model get that one; or type hub/<owner>/<name>.",
                allow_custom_value=True,
                elem_id=f"{ID}-model",
            )
            plain["precision"] = gr.Radio(
                list(PRECISIONS), value="auto", label="Precision", info="the same for every lane"
            )
    return plain


def _asked(kind: str) -> dict[str, Any]:
    """The form of an example without a recorded race."""
    example = next(e for e in EXAMPLES if e.kind == kind)
    plain = {"data": example.series, "horizon": example.horizon, "truth": HOLD, "back": 0, "season": 0}
    return {**plain, "lanes": example.lanes}


def _slug(kind: str) -> str:
    return kind.lower().replace(" ", "-")


PAGE = page.Page(
    ID, [e.kind for e in EXAMPLES], forecast_form.requests_of, forecast_form.form_of, _asked, unit="value", film=fan,
    baseline=BASELINE, export=to_table,
)  # fmt: skip
