"""What the learned tokenizer keeps of pictures that training never saw: they, their reconstruction, the difference."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from backend.codecs.atlas import FOLDER, Pixels
from backend.codecs.vq import file_of, learned

STYLE = "thumbs"
SHEET, CARD = FOLDER / f"{STYLE}.png", file_of(STYLE).with_suffix(".json")
SHOWN = 6  # pictures beside each other
TIMES = 2  # every pixel is drawn so large
GREY = 128  # of the difference where there is none


def build(name: str) -> None:
    """Place the view, where the tokenizer is built; it needs no model."""
    if not (SHEET.is_file() and CARD.is_file() and file_of(STYLE).is_file()):
        return
    with gr.Accordion("What a learned tokenizer keeps", open=False, elem_classes=["dl-group", "dl-fold"]):
        gr.Markdown(text(), elem_id=f"{name}-tokenizer-told")
        gr.Image(
            strips(),
            label="Original, reconstruction, difference",
            format="png",
            buttons=[],
            interactive=False,
            elem_id=f"{name}-tokenizer",
        )


@cache
def strips() -> Any:
    """Three rows of pictures: as rendered, as drawn from their tokens, and the difference around grey, halved."""
    pictures = sheet()[:SHOWN]
    tokenizer = learned(STYLE)
    drawn = tokenizer.decode(tokenizer.encode(pictures))
    apart = (GREY + (drawn.astype(np.int16) - pictures) // 2).clip(0, 255).astype(np.uint8)
    rows = [np.concatenate(list(row), axis=1) for row in (pictures, drawn, apart)]
    return np.concatenate(rows, axis=0).repeat(TIMES, axis=0).repeat(TIMES, axis=1)


def sheet() -> Pixels:
    """The held-out pictures [B, 64, 64, 3] that ship."""
    side = learned(STYLE).side
    with Image.open(SHEET) as opened:
        flat = np.asarray(opened.convert("RGB"))
    cut = flat.reshape(-1, side, flat.shape[1] // side, side, 3).swapaxes(1, 2)
    return np.ascontiguousarray(cut.reshape(-1, side, side, 3))


def text() -> str:
    """What its card tells."""
    card = json.loads(CARD.read_text(encoding="utf-8"))
    kept, recipe = card["measured"]["held_out_pairs"], card["recipe"]
    judged = kept.get("judge_reads_the_same")
    read = f", and the judge reads {judged:.1%} of the attributes as before" if judged is not None else ""
    return (
        f"Pictures of 64x64 pixels as 16x16 codes of {recipe['codes']}: here with pairs of attributes that training "
        f"never saw. Over {kept['pictures']} of them the error is {kept['psnr_db']:.1f} dB (PSNR), "
        f"{kept['codes_in_use']} codes are in use{read}. Rows: the picture, its reconstruction, and the difference "
        "(grey is none). Drawings: Thumbs by DiceBear, CC0 1.0."
    )
