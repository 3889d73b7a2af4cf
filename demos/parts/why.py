"""Why a lane is slower than plain decoding, in one sentence made from the trace's own counts and times.

Per token, time over the baseline's is exactly: draft calls + dearer target calls + more time outside model calls
- target calls saved. The sentence names the largest of the costs first.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.trace import Trace

FASTER = 0.995  # from this ratio on nothing has to be explained
FEWEST = 4  # tokens; of less nothing can be said
SMALL = 0.03  # of the baseline's time a token: smaller costs are left out


@dataclass(frozen=True)
class Cost:
    """What a run has cost so far. Seconds of a model's parts count as its own; `calls` and `rows` do not.

    seconds: of the whole run. target: seconds in calls of the target; draft: of all other models.
    """

    units: int
    seconds: float
    calls: int
    rows: int
    target: float
    draft: float

    @property
    def call(self) -> float:
        """Seconds a target call."""
        return self.target / self.calls if self.calls else 0.0

    @property
    def other(self) -> float:
        """Seconds outside model calls."""
        return max(0.0, self.seconds - self.target - self.draft)

    @staticmethod
    def of(trace: Trace) -> Cost:
        """The cost of a trace."""
        steps = trace.steps
        spent = [(role, seconds) for step in steps for role, seconds in step.spent.items()]
        return Cost(
            len(trace.written()),
            sum(step.seconds for step in steps),
            sum(step.calls.get("target", 0) for step in steps),
            sum(step.rows.get("target", 0) for step in steps),
            sum(seconds for role, seconds in spent if is_target(role)),
            sum(seconds for role, seconds in spent if not is_target(role)),
        )


def is_target(role: str) -> bool:
    """Whether a metered role is the target or one of its parts."""
    return role.partition(".")[0] == "target"


def terms(mine: Cost, base: Cost) -> dict[str, float]:
    """Seconds a token that the run pays more than the baseline, by reason; their sum is the whole difference."""
    calls, base_calls = mine.calls / mine.units, base.calls / base.units
    return {
        "draft": (mine.draft / mine.units) - (base.draft / base.units),
        "wide": calls * (mine.call - base.call),
        "calls": base.call * (calls - base_calls),
        "other": mine.other / mine.units - base.other / base.units,
    }


def why_slower(mine: Cost, base: Cost, unit: str = "token") -> str:
    """The sentence; "" where the run is not slower, or too short to say anything. unit: what is written, one of it."""
    if min(mine.units, base.units) < FEWEST or min(mine.seconds, base.seconds) <= 0:
        return ""
    ratio = (base.seconds / base.units) / (mine.seconds / mine.units)
    if ratio >= FASTER:
        return ""
    found = terms(mine, base)
    costs = sorted(((value, name) for name, value in found.items() if value > 0), reverse=True)
    floor = SMALL * base.seconds / base.units
    parts = [_words(name, value, mine, base, unit) for at, (value, name) in enumerate(costs) if not at or value > floor]
    saved = -found["calls"]
    if saved > 0:
        parts.append(f"fewer target calls ({mine.units / mine.calls:.2f} {unit}s a call) save only {_ms(saved)}")
    return f"Why slower? {NAMES[costs[0][1]]}: per {unit} {', '.join(parts)}."


NAMES = {
    "draft": "Mostly the draft calls",
    "wide": "Mostly the wider target calls",
    "calls": "Mostly more target calls",
    "other": "Mostly the work outside model calls",
}


def _words(name: str, value: float, mine: Cost, base: Cost, unit: str) -> str:
    if name == "draft":
        return f"draft calls cost {_ms(value)}"
    if name == "wide":
        rows = f" over {mine.rows / mine.calls:.1f} rows" if mine.rows > mine.calls else ""
        return f"dearer target calls cost {_ms(value)} ({_ms(mine.call)}{rows} instead of {_ms(base.call)})"
    if name == "calls":
        each = f"{mine.calls / mine.units:.2f} instead of {base.calls / base.units:.2f} a {unit}"
        return f"more target calls cost {_ms(value)} ({each})"
    return f"work outside model calls costs {_ms(value)}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
