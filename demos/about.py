"""The about tab: how to read the screen, what is measured, and where to go on."""

from __future__ import annotations

import gradio as gr

from demos.parts.lab import Lab

ID, TITLE = "about", "About"
TEXT = """
### How to read a race
Every lane answers the same prompt with the same seed and precision, and with the same model where its kind allows.
Lane 1 decodes plainly: one model call a token. The others guess ahead, and the model judges many guesses in one call.

A lane's clock counts **its own compute only**. One worker steps the lane with the smallest clock, so lanes do
not disturb each other and the picture is a true race in lane time; the waiting you feel is the sum of all
lanes.

### Pictures
The *Image* tab paints portraits of 16x16 cells with three kinds of painters: pixel by pixel, in any order, or scale by
scale. Beside each picture stands its token grid, coloured by what happened to every cell or by the step that wrote it;
small squares on the picture are guesses. A scale painter leaves a strip of the picture after every scale. Ratios are
per picture cell, so that one call for a whole map counts for what it paints. *as asked* is the share of the attributes
in the prompt that our judge, a small network trained on other portraits, reads back from the finished picture.

Strategies that draw every cell with noise of its own paint the same pixel wherever their laws agree: *Compare two
pictures* shows where they do not. *Paint over a part* keeps the rest of a picture; painters that go row by row can only
do that for its lower end, and say so.

### Forecasts
The *Forecasting* tab continues a series in every way that one forecaster allows: sampled patch by patch, drafted and
judged, swept in noise until nothing changes, or all steps at once. All lanes share one axis of values, and lanes that
share their noise draw the same paths. Dark lines are the past and, behind the origin, the truth that was held back;
bands hold 50, 80 and 90 % of the paths or lie between quantiles that the model gives. Below each fan every call has a
bar over the steps that it wrote; acceptance by place in the draft stands beside 2 Φ(-D/2), what theory says for laws
whose means lie D deviations apart; and a line tells how wide the band is, so that bands that shrink on the way are
seen.

A strategy that is not lossless is another forecast, not a faster one: MASE (error of the median, 1 is repeating the
season), WQL (all quantiles), the share of the truth inside the 80 % band, and CRPS of the sum over the horizon, which
only paths can answer, stand beside its speed. Your own CSV stays on this server for as long as the race is shown;
what cannot be used of it is told with row and column, and the rest of the file works.

### Three speedups

| | what it compares |
|---|---|
| calls | model calls per token: the upper limit, where a call costs the same whatever it scores |
| modelled | the same, with the drafter's calls at a price you choose, as a large model on an accelerator sees it |
| time | measured compute time on this machine, in this process: indicative, shown plainly when below 1 |

### Look inside
Below the race, *Look inside* takes one lane and one step apart: the draft tree with what was accepted, how far
drafts survive, drafted against kept, which model computed when, the gap to the best possible acceptance, and
whatever else the strategy says about its steps. All of it comes from the trace, so it works live, in a replay
and on a file that you open. The moment is that of the replay bar.

*All strategies* runs one prompt through every strategy of text in turn, and lists what was measured of the others.
A lane or row that is slower than plain decoding says why, from its own counts and times.

### Guarantees
**lossless**: the output has exactly the target's distribution. **greedy-exact**: at temperature 0 the tokens
equal plain greedy decoding. **lossy**: another distribution, so compare the text and not only the speed. Each
is proven by a test that enumerates every random branch on a small exact model. On a real model two runs can
still part where the best two tokens are nearly tied, since a batch of rows is rounded differently from a single
row; the badge then names the place and the gap.

### Use it from code
The endpoints `list_strategies`, `list_models`, `run`, `race` and `health` are typed; the link *Use via API*
below shows them. In Python: `from backend.run import decode`.

Keyboard: press **?** anywhere outside a text box.
"""


def build(lab: Lab) -> None:
    """Place the tab."""
    gr.Markdown(TEXT, elem_classes=["dl-prose", "dl-about"])
