"""What the card of a point process tells: nats an event beside the true process's own, time-rescaled residuals, and how
often the draft is accepted, on processes that training never saw; and in how many bits the weights are stored.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from backend import events
from backend.events import Events
from backend.models.house import rounded
from backend.models.house.events import EventNet, read_events, save_events
from backend.protocols import EventLaw
from backend.series.hawkes import Array, Hawkes, judged, random_processes, simulate

if TYPE_CHECKING:
    from backend.train.forecast.events import Job

HISTORY, AHEAD, BURN = 64, 128, 64  # events of a held-out sequence: known, foretold, and in front of both
HELD_OUT = 300  # processes
SHIFT = 0.005  # share by which rounding may move the held-out loss
SEED = 20_000
ROWS = 50  # sequences of a call
WHAT = {
    "target": "Transformer point process: reads a process off its events, gives the law of the next gap and kind.",
    "draft": "Draft of house/events, distilled from its laws.",
}


@dataclass(frozen=True, eq=False)
class Pool:
    """Simulated sequences: gaps and kinds [B, N], kinds that each has [B]; the processes where they are needed."""

    processes: Hawkes | None
    gaps_BN: Array
    kinds_BN: Array
    sizes_B: Array
    most: int = 4


@dataclass(frozen=True, eq=False)
class Found:
    """A model on held-out sequences [B, AHEAD]: nats of each event in true time, chance that it came later."""

    log_density_BN: Array
    elapsed_BN: Array


def held_out(kinds: int, count: int = HELD_OUT) -> Pool:
    """Sequences of processes that no model was trained on."""
    stream = np.random.default_rng(SEED)
    processes, sizes_B = random_processes(count, kinds, stream)
    gaps_BN, kinds_BN = simulate(processes, BURN + HISTORY + AHEAD, stream)
    return Pool(processes, gaps_BN, kinds_BN, sizes_B, kinds)


def prompts(pool: Pool, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gaps in units of the history's mean, kinds, how many, and the unit [B], of some held-out sequences."""
    gaps_BT = torch.from_numpy(pool.gaps_BN[rows, BURN:].copy())
    unit_B = gaps_BT[:, 1:HISTORY].mean(1)
    gaps_BT = gaps_BT / unit_B[:, None]
    gaps_BT[:, 0] = torch.nan
    return gaps_BT, torch.from_numpy(pool.kinds_BN[rows, BURN:]), torch.from_numpy(pool.sizes_B[rows]), unit_B


@torch.no_grad()
def laws(model: EventNet, pool: Pool, rows: slice) -> tuple[EventLaw, Events, Tensor]:
    """Laws, float64, of the foretold events of some sequences; the events; and the unit of time."""
    gaps_BT, kinds_BT, sizes_B, unit_B = prompts(pool, rows)
    device = model.speed_P.device
    law = model(gaps_BT.float().to(device), kinds_BT.to(device), sizes_B.to(device))[:, HISTORY - 1 : -1]
    parts = (law.log_weight_NM, law.mean_NM, law.spread_NM, law.log_kind_NMV)
    wide = EventLaw(*(x.cpu().double() for x in parts))
    return wide, Events(gaps_BT[:, HISTORY:].clamp_min(1e-12), kinds_BT[:, HISTORY:]), unit_B


def found(model: EventNet, pool: Pool) -> Found:
    """The model on every held-out sequence."""
    nats, shares = [], []
    for start in range(0, len(pool.gaps_BN), ROWS):
        law, event, unit_B = laws(model, pool, slice(start, start + ROWS))
        nats.append((events.log_density(law, event) - unit_B.log()[:, None]).numpy())
        shares.append(events.elapsed(law, event.gap_N).numpy())
    return Found(np.concatenate(nats), np.concatenate(shares))


def distance(share_N: Array) -> float:
    """Kolmogorov-Smirnov distance of numbers from uniform ones."""
    sorted_N, count = np.sort(share_N.ravel()), share_N.size
    above, below = np.arange(1, count + 1) / count - sorted_N, sorted_N - np.arange(count) / count
    return float(max(above.max(), below.max()))


def poisson(pool: Pool) -> Array:
    """Nats of the foretold events under a Poisson process with the history's rate and shares of kinds. [B, AHEAD]"""
    gaps_BN, kinds_BN = pool.gaps_BN[:, BURN:], pool.kinds_BN[:, BURN:]
    rate_B = 1 / gaps_BN[:, 1:HISTORY].mean(1)
    count_BV = (kinds_BN[:, :HISTORY, None] == np.arange(pool.most)).sum(1) + 0.5
    count_BV = count_BV * (np.arange(pool.most) < pool.sizes_B[:, None])
    share_BV = count_BV / count_BV.sum(1, keepdims=True)
    kind_BN = np.take_along_axis(share_BV, kinds_BN[:, HISTORY:], 1)
    return np.asarray(np.log(rate_B)[:, None] - rate_B[:, None] * gaps_BN[:, HISTORY:] + np.log(kind_BN))


def quality(model: EventNet, pool: Pool) -> dict[str, Any]:
    """Nats an event of the model, of the true intensity and of a Poisson fit; residuals; by number of kinds."""
    assert pool.processes is not None
    true = judged(pool.processes, pool.gaps_BN, pool.kinds_BN)
    true_BN, ours, plain_BN = true.log_density_BN[:, BURN + HISTORY :], found(model, pool), poisson(pool)

    def told(rows: Any) -> dict[str, float]:
        nats = {"model": ours.log_density_BN, "true_process": true_BN, "poisson_fit": plain_BN}
        return {name: round(float(-x_BN[rows].mean()), 4) for name, x_BN in nats.items()}

    by_kinds = {str(n): told(pool.sizes_B == n) for n in range(1, pool.most + 1)}
    residual_BN = 1 - np.exp(-true.residual_BN[:, BURN + HISTORY :])
    single = [distance(row_N) * AHEAD**0.5 for row_N in ours.elapsed_BN]
    return {
        "nats_per_event": told(slice(None)),
        "nats_per_event_by_kinds": by_kinds,
        "residuals": {
            "events": ours.elapsed_BN.size,
            "ks_distance_model": round(distance(ours.elapsed_BN), 5),
            "ks_distance_true_process": round(distance(residual_BN), 5),
            "sequences_within_95_percent_band": round(float(np.mean(np.array(single) < 1.358)), 4),
        },
    }


def acceptance(target: EventNet, draft: EventNet, pool: Pool) -> dict[str, float]:
    """How often an event that the draft draws is kept, at the prefixes of held-out sequences; and judged in parts."""
    kept, apart, stream = [], [], torch.Generator().manual_seed(SEED)
    for start in range(0, len(pool.gaps_BN), ROWS):
        p, q = (laws(net, pool, slice(start, start + ROWS))[0] for net in (target, draft))
        noise = torch.randn(*q.mean_NM.shape[:-1], events.NOISES, generator=stream)
        drawn = events.placed(q, noise)
        kept.append(events.log_ratio(p, q, drawn).clamp_max(0).exp().mean())
        apart.append(events.apart(p, q, drawn).mean())
    return {"event": round(float(torch.stack(kept).mean()), 4), "apart": round(float(torch.stack(apart).mean()), 4)}


def fewest_bits(model: EventNet, pool: Pool) -> int:
    """The fewest bits, from 8 down to 5, in which the held-out loss stays within SHIFT of what it was."""
    some = Pool(None, pool.gaps_BN[:ROWS], pool.kinds_BN[:ROWS], pool.sizes_B[:ROWS], pool.most)
    before, best = found(model, some).log_density_BN.mean(), 8
    state = {name: weight.float().cpu() for name, weight in model.state_dict().items()}
    for bits in (7, 6, 5):
        other = EventNet(model.config)
        other.load_state_dict(rounded.from_bytes(rounded.in_bits(state, bits)))
        if abs(found(other.eval(), some).log_density_BN.mean() - before) > SHIFT * abs(before):
            break
        best = bits
    return best


def measure(job: Job, model: EventNet, teacher: EventNet | None, keep: bool = False) -> None:
    """Write the weights, in as few bits as may be, and the card. keep: the weights are what they were read from."""
    job.out.mkdir(parents=True, exist_ok=True)
    path = job.out / f"{job.name}.json"
    if job.tiny:
        save_events(job.weights, model)
        return
    pool = held_out(model.config.kinds)
    bits = json.loads(path.read_text(encoding="utf-8"))["bits"] if keep else fewest_bits(model, pool)
    if not keep:
        save_events(job.weights, model, bits)
    stored = read_events(job.weights)
    card = {
        "id": f"house/{job.name}",
        "what": WHAT[job.role],
        "license": "Apache-2.0",
        "num_params": stored.num_params,
        "config": asdict(stored.config),
        "bits": bits,
        "data": "Our own simulation by thinning of Hawkes processes with exponential kernels and random parameters, up "
        "to four kinds of events, one in ten a Poisson process (backend/series/hawkes.py).",
        "recipe": asdict(job.recipe) | {"device": job.device},
        "held_out": {"processes": HELD_OUT, "history": HISTORY, "events_each": AHEAD, **quality(stored, pool)},
        "about_held_out": "Nats an event, time and kind, on processes that training never saw, beside the true "
        "intensity's own and that of a Poisson process fitted to the history; lower is better. KS: distance of the "
        "chance that the next event would have come by now from uniform, over all events; share of sequences inside "
        "the 95 % band of their own.",
        **({"acceptance": acceptance(teacher, stored, pool)} if teacher is not None else {}),
        "torch": str(torch.__version__),
    }
    path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: card[name] for name in ("bits", "held_out")}, indent=1), flush=True)
