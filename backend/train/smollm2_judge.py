"""Train `house/smollm2-judge`, which says whether a drafted token is right: `python -m backend.train.smollm2_judge`.

Judge decoding without annotators: tasks whose answers can be checked (`smollm2_tasks`), so that the label of a token
is whether some right answer still begins with the text. SmolLM2 reads a right answer; at every place guesses are hung
beside it, the draft model's and some of SmolLM2's own likelier ones, and the state that has read a token is what the
head learns from: logistic regression, wrong tokens weighing as much as right ones together, times `--negative`.
Minutes on a CPU, most of them for decoding the held-out tasks at every delta. Tasks done are kept and not done again.

Letters: M tokens that were judged, C features.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.catalog import DRAFT, LOCAL, Catalog
from backend.chance import Ask, Seeded
from backend.meter import Meter
from backend.models.causal import CausalModel
from backend.models.house.judge import LinearJudge, save_judge
from backend.protocols import CausalSession, JudgeSession, Prompt
from backend.registry import find
from backend.train.smollm2_corpus import ROOT
from backend.train.smollm2_tasks import KINDS, Task, Tasks
from backend.types import Sampling

OUT = ROOT / "assets" / "house" / "smollm2-judge.safetensors"
RANKS = range(1, 8)  # of SmolLM2's tokens that are hung beside the right one
BESIDE = 2  # of them at each place
DELTAS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
THRESHOLDS = (0.25, 0.5, 1.0, 2.0, 4.0)  # nats
ROOM = 28  # tokens of an answer


@dataclass(frozen=True)
class Models:
    """The target, its draft, and prompts that both have read: a task costs only its own tokens."""

    target: CausalModel
    draft: CausalModel

    def ids(self, text: str) -> list[int]:
        """Tokens of a text."""
        return list(self.target.codec.tokenizer.encode(text).ids)

    def open(self, text: str) -> tuple[Any, Any]:
        """Sessions of target and draft that have read a text, temperature 0."""
        prompt = Prompt(tuple(self.ids(text)))
        pair = [m.open(CausalSession, prompt, Sampling(), Meter(), 96) for m in (self.target, self.draft)]
        for session in pair:
            session.score()
        return pair[0], pair[1]

    def fork(self, session: Any) -> Any:
        """A session that goes its own way from here; weights are shared."""
        return copy.deepcopy(session, {id(m.backbone): m.backbone for m in (self.target, self.draft)})


@torch.inference_mode()
def judged_tokens(models: Models, pair: tuple[Any, Any], task: Task, draws: random.Random) -> tuple[Tensor, Tensor]:
    """States [M, C] that have read a right answer's tokens and the guesses beside them, and which are right [M]."""
    target, draft = models.fork(pair[0]), models.fork(pair[1])
    question, answer = models.ids(task.question), models.ids(task.answer)
    decode = models.target.codec.decode
    before = len(question) - 1  # row before + i + 1 has the law behind answer[:i]
    chain = [*question, *answer]
    ranked_NT = target.score(chain).raw_NV.topk(RANKS.stop, dim=1).indices[before + 1 :].tolist()
    drafted_N = draft.score(chain).p_NV.argmax(dim=1)[before + 1 :].tolist()
    x, parents, right = list(chain), list(range(-1, len(chain) - 1)), [True] * len(answer)
    for i, token in enumerate(answer):
        beside = {drafted_N[i], *(ranked_NT[i][rank] for rank in draws.sample(RANKS, BESIDE))} - {token}
        for guess in sorted(beside):
            x.append(guess)
            parents.append(before + i)
            right.append(task.completable(decode([*answer[:i], guess])))
    hidden_NC = target.score(x, parents).hidden_NC[len(question) + 1 :]
    return hidden_NC.float().cpu(), torch.tensor(right)


def extract(models: Models, folder: Path, part: int, prefixes: int, each: int, seed: int) -> tuple[Tensor, Tensor]:
    """`judged_tokens` of all tasks of a part: for each kind `prefixes` times solved examples with `each` tasks."""
    states, labels = [], []
    for number in range(prefixes):
        for kind in KINDS:
            file = folder / f"{part}-{seed}-{kind}-{number}-{each}.npz"
            if not file.exists():
                tasks = Tasks(seed * 1000 + number, part)
                pair = models.open(tasks.prefix(kind))
                done = [judged_tokens(models, pair, tasks.draw(kind), tasks.random) for _ in range(each)]
                h_MC, right_M = (torch.cat(side).numpy() for side in zip(*done, strict=True))
                np.savez(file, h_MC=h_MC.astype(np.float16), right_M=right_M)
                print(f"{file.name}: {len(right_M)} tokens, {right_M.mean():.3f} right", flush=True)
            with np.load(file) as saved:
                states.append(torch.from_numpy(saved["h_MC"]).float())
                labels.append(torch.from_numpy(saved["right_M"]).float())
    return torch.cat(states), torch.cat(labels)


def fit(h_MC: Tensor, right_M: Tensor, negative: float, decay: float) -> tuple[Tensor, Tensor]:
    """Weights [C] and bias of the logistic head: weighted cross entropy, L2 on the weights of standardised features."""
    mean_C, deviation_C = h_MC.mean(0), h_MC.std(0).clamp_min(1e-6)
    z_MC = (h_MC - mean_C) / deviation_C
    share = float(right_M.mean())
    weight_M = torch.where(right_M > 0, 0.5 / share, negative * 0.5 / (1 - share))
    w_C = torch.zeros(h_MC.shape[1], requires_grad=True)
    b = torch.zeros((), requires_grad=True)
    solver = torch.optim.LBFGS([w_C, b], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        out = F.binary_cross_entropy_with_logits(z_MC @ w_C + b, right_M, weight_M) + decay * w_C.square().sum()
        out.backward()  # type: ignore[no-untyped-call]
        return out

    solver.step(loss)  # type: ignore[no-untyped-call]
    folded_C = w_C.detach() / deviation_C
    return folded_C, b.detach() - folded_C @ mean_C


def rates(h_MC: Tensor, right_M: Tensor, weight_C: Tensor, bias: Tensor) -> dict[str, Any]:
    """Area under the curve, and for each delta how many wrong and how many right tokens would be kept."""
    trust_M = torch.sigmoid(h_MC @ weight_C + bias)
    right, wrong = trust_M[right_M > 0], trust_M[right_M == 0]
    above = float((right[:, None] > wrong).float().mean() + 0.5 * (right[:, None] == wrong).float().mean())
    return {
        "tokens": len(right_M),
        "wrong_tokens": len(wrong),
        "auc": round(above, 4),
        "false_accept_rate": {str(d): round(float((wrong > d).float().mean()), 4) for d in DELTAS},
        "true_accept_rate": {str(d): round(float((right > d).float().mean()), 4) for d in DELTAS},
    }


def choose(h_MC: Tensor, right_M: Tensor, negative: float) -> float:
    """The L2 with the best area on the last fifth of the tokens when the head is fitted to the others."""
    cut = len(right_M) * 4 // 5
    scored = []
    for decay in (1e-4, 1e-3, 1e-2, 1e-1):
        head = fit(h_MC[:cut], right_M[:cut], negative, decay)
        scored.append((rates(h_MC[cut:], right_M[cut:], *head)["auc"], decay))
    return max(scored)[1]


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """What the held-out tasks are decoded with, by name."""
    yield "standard", {"rule": "standard"}
    yield from ((f"judge {delta}", {"rule": "judge", "delta": delta}) for delta in DELTAS)
    yield from ((f"divergence {nats}", {"rule": "divergence", "threshold": nats}) for nats in THRESHOLDS)


def decode_tasks(models: Models, judge: LinearJudge, prefixes: int, each: int, seed: int) -> dict[str, Any]:
    """Held-out tasks through the strategy: share solved, and mean acceptance length, by setting and for each kind."""
    out: dict[str, Any] = {name: {kind: [0, 0, 0, 0, 0] for kind in KINDS} for name, _ in settings()}
    for number in range(prefixes):
        for kind in KINDS:
            tasks = Tasks(seed * 1000 + 500 + number, 1)
            prefix = tasks.prefix(kind)
            for task in (tasks.draw(kind) for _ in range(each)):
                pair = models.open(prefix + task.question)
                for name, knobs in settings():
                    counts = _decode(models, judge, pair, task, knobs)
                    out[name][kind] = [a + b for a, b in zip(out[name][kind], counts, strict=True)]
            print(f"decoded {kind} {number}", flush=True)
    return {name: _summary(kinds) for name, kinds in out.items()}


def _decode(models: Models, judge: LinearJudge, pair: tuple[Any, Any], task: Task, knobs: dict[str, Any]) -> list[int]:
    """1 for a task, 1 if it was solved, its calls, its tokens up to the line's end, guesses that only trust kept."""
    target, draft = models.fork(pair[0]), models.fork(pair[1])
    head = judge.open(JudgeSession, Prompt(), Sampling(), Meter(), ROOM)
    strategy = find("judge")
    start, calls, alone = len(target.tokens), 0, 0
    decode = models.target.codec.decode
    steps = strategy.run(target, draft, head, Ask(ROOM, Seeded(0)), **strategy.settle(knobs))
    for step in steps:
        calls += 1
        alone += int(step.figures["kept_alone"])
        if "\n" in decode(target.tokens[start:]):
            break
    written = list(target.tokens[start:])
    length = next((i + 1 for i in range(len(written)) if "\n" in decode(written[: i + 1])), len(written))
    return [1, int(task.solved(decode(written))), calls, length, alone]


def _summary(kinds: dict[str, list[int]]) -> dict[str, Any]:
    count, solved, calls, length, alone = (sum(counts[i] for counts in kinds.values()) for i in range(5))
    return {
        "solved": round(solved / count, 3),
        "mean_acceptance_length": round(length / calls, 3),
        "kept_by_trust_alone_a_call": round(alone / calls, 3),
        "solved_by_kind": {kind: round(counts[1] / counts[0], 3) for kind, counts in kinds.items()},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: extract states, fit the head, measure it, write it and its card."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.smollm2_judge", description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "train-data" / "smollm2-judge")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--prefixes", type=int, default=8, help="solved examples for each kind of task")
    parser.add_argument("--each", type=int, default=10, help="tasks behind each of them")
    parser.add_argument("--negative", type=float, default=1.0, help="weight of all wrong tokens to all right ones")
    parser.add_argument("--decoded", type=int, default=8, help="held-out tasks of each kind that are decoded")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv)
    began = time.perf_counter()
    catalog = Catalog(args.device, "bfloat16", args.threads)
    target, draft = catalog.get(LOCAL), catalog.get(DRAFT)
    assert isinstance(target, CausalModel)
    assert isinstance(draft, CausalModel)
    models = Models(target, draft)
    args.data.mkdir(parents=True, exist_ok=True)
    h_MC, right_M = extract(models, args.data, 0, args.prefixes, args.each, args.seed)
    decay = choose(h_MC, right_M, args.negative)
    weight_C, bias = fit(h_MC, right_M, args.negative, decay)
    held = extract(models, args.data, 1, max(1, args.prefixes // 4), args.each, args.seed)
    measured = rates(*held, weight_C, bias)
    print(json.dumps(measured), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_judge(args.out, weight_C, bias)
    judge = LinearJudge("house/smollm2-judge", weight_C, bias, target.codec, catalog.device)
    prefixes, each = max(1, args.decoded // 4), min(4, args.decoded)
    decoded = decode_tasks(models, judge, prefixes, each, args.seed)
    recipe = {name: getattr(args, name) for name in ("device", "prefixes", "each", "negative", "decoded", "seed")}
    card = {
        "id": "house/smollm2-judge",
        "what": "Linear head on SmolLM2-135M-Instruct's last hidden state: is the token it has just read a right one?",
        "license": "Apache-2.0",
        "num_params": len(weight_C) + 1,
        "data": "Tasks of our own with checkable answers (copying words, numbers, and sentences with one name changed; "
        "writing words in any order), and wrong tokens that SmolLM2 or its draft find likely. No other text.",
        "train_tokens": len(right_M),
        "train_wrong_tokens": int((right_M == 0).sum()),
        "held_out": "Tasks with words and names that no training task has.",
        "recipe": recipe | {"decay": decay, "dtype": "bfloat16", "kept_ranks": [RANKS.start, RANKS.stop - 1]},
        "on_held_out_tokens": measured,
        "decoded_tasks": prefixes * each * len(KINDS),
        "decoded_with": {"draft": DRAFT, "gamma": find("judge").knobs["gamma"].default, "temperature": 0.0},
        "on_held_out_tasks": decoded,
        "minutes": round((time.perf_counter() - began) / 60, 1),
    }
    args.out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(decoded, indent=1))


if __name__ == "__main__":
    main()
