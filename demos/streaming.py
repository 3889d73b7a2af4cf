"""What streaming costs: the same four-lane race without a viewer, and served to a client on the same machine.

`python -m demos.streaming [--new-tokens 96] [--repeats 5] [--json OUT]`. The client is a process of its own that
presses Run on the page and reads every snapshot to the end, but draws nothing. The two ways alternate in one server;
medians of new tokens a second, all lanes together, from the first step of a race to its last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import app
from backend.types import Request
from demos.parts.examples import EXAMPLES
from demos.parts.lab import Lab
from demos.parts.race import Race, State

CLIENT = """
import sys, httpx
url, session = sys.argv[1:3]
events = size = 0
body = {**__import__("json").load(sys.stdin), "session_hash": session}
with httpx.Client(timeout=600) as client:
    client.post(f"{url}gradio_api/queue/join", json=body).raise_for_status()
    with client.stream("GET", f"{url}gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            events, size = events + line.startswith("data:"), size + len(line)
            if '"process_completed"' in line:
                break
print(events, size)
"""


def press_run(config: dict[str, Any], prompt: str, new_tokens: int) -> dict[str, Any]:
    """What the page would send for Run with its first settings, but this prompt and budget."""
    components = {c["id"]: c["props"] for c in config["components"]}
    button = next(i for i, props in components.items() if props.get("elem_id") == "text-run")
    event = next(d for d in config["dependencies"] if [button, "click"] in [list(t) for t in d["targets"]])
    given = {"text-prompt": prompt, "text-budget": new_tokens}
    values = [given.get(components[i].get("elem_id") or "", components[i].get("value")) for i in event["inputs"]]
    return {"data": values, "fn_index": event["id"], "event_data": None}


def units_per_second(race: Race) -> float:
    """New tokens a second, all lanes together. Raises RuntimeError if a lane failed."""
    for lane in race.lanes:
        if lane.state is not State.DONE or lane.trace is None:
            raise RuntimeError(f"{lane.request.strategy}: {lane.state} {lane.message}")
    return sum(len(lane.trace.written()) for lane in race.lanes if lane.trace) / race.seconds


def measure(new_tokens: int, repeats: int) -> dict[str, Any]:
    """Both ways in turn; the first round warms up and is not counted."""
    lab = Lab()
    demo = app.build(lab)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.options())
    body = json.dumps(press_run(demo.config, EXAMPLES[0].prompt, new_tokens))
    headless: list[float] = []
    streamed: list[float] = []
    requests: list[Request] = []
    events = 0
    for _ in range(repeats + 1):
        session = uuid.uuid4().hex
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, url, session], input=body, capture_output=True, text=True, check=True
        )
        events = int(done.stdout.split()[0])
        watched = lab.race_of(session)
        assert watched is not None, "the page started no race"
        streamed.append(units_per_second(watched))
        requests = [lane.request for lane in watched.lanes]
        alone = lab.race(requests, "auto", "nobody").start()
        alone.wait()
        headless.append(units_per_second(alone))
        print(f"streamed {streamed[-1]:.1f}, headless {headless[-1]:.1f} tokens a second", file=sys.stderr, flush=True)
    demo.close()
    return {
        "environment": lab.catalog().environment(),
        "date": time.strftime("%Y-%m-%d"),
        "strategies": [request.strategy for request in requests],
        "new_tokens": new_tokens,
        "repeats": repeats,
        "events": events,
        "headless_units_per_second": round(statistics.median(headless[1:]), 2),
        "streamed_units_per_second": round(statistics.median(streamed[1:]), 2),
        "ratio": round(statistics.median(s / h for s, h in zip(streamed[1:], headless[1:], strict=True)), 3),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demos.streaming", description=__doc__)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    found = json.dumps(measure(args.new_tokens, args.repeats), indent=2) + "\n"
    print(found, end="")
    if args.json:
        args.json.write_text(found)


if __name__ == "__main__":
    main()
