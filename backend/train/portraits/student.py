"""Train the student of the next-scale painter, house/portraits-student: `python -m backend.train.portraits.student`.

Its teacher is house/portraits-scales. First the teacher paints: prompts are those of fresh portraits with a part of
them left open, as `raster` draws them, and a flow turns noise into the teacher's tokens (`backend.flows`), at
temperature 1 under guidance GUIDANCE, which the student so learns with them. Then the student learns to tell these
tokens from the noise, all of them or those behind the first ENTRIES[1] maps (Liu et al. 2024, 2412.17153). The loss is
their mean cross-entropy alone; the paper adds a perceptual loss of the picture and averages weights.

`--device cpu` uses two processes of one thread: about 3 minutes of painting and 6 of training on two free cores, as
estimated from a few steps; `--device cuda` paints and trains more. Both go on where they were. The optimiser is that of
`raster` (`loop`). The card is written from what was measured.

Letters: A attributes, K maps, L cells of all maps, V codes, D numbers of a code, B pictures of a batch, P painted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.chance import Ask, Seeded
from backend.codecs.atlas import Pixels
from backend.codecs.portraits import draw_many
from backend.codecs.scales import ScaleCodec
from backend.meter import Meter
from backend.models.house.scales import Scales, read_scales, save_scales
from backend.models.house.student import DIMS, Student, read_student, taught, trajectory
from backend.models.scales import ScaleModel, guided
from backend.models.student import StudentModel
from backend.protocols import DistilledSession, Prompt, ScaleSession
from backend.registry import find
from backend.train.portraits import script
from backend.train.portraits.judged import judged
from backend.train.portraits.loop import optimise
from backend.train.portraits.raster import left_open
from backend.train.smollm2_draft import Job, Recipe, join_trainers
from backend.train.tales import TaleJob
from backend.types import Sampling

NAME, TEACHER = "portraits-student", "portraits-scales"
GUIDANCE = 3.0  # of the teacher's last map, convention A
TOP_K = 16  # codes of a slot that the flow looks at
FLOW_STEPS = 50
ENTRIES = (0, 4)  # maps that are known: for one call, and for the second of two
ONE_CALL = 0.65  # share of the batches in which none is
CHUNK = 64  # pictures that the teacher paints at once
HELD = 128  # pictures that the student is held against
FRESH = 40_000_000  # seed of these

# of a Recipe, `tokens` is pictures that the teachers paint in all, and `batch` is pictures of a trainer's batch
_cpu = Recipe(tokens=4096, writers=0, batch=16, trainers=2, steps=350, batch_tokens=0, rate=2e-3)
RECIPES = {"cpu": _cpu, "cuda": replace(_cpu, tokens=200_000, batch=512, trainers=1, steps=4000)}


@dataclass(frozen=True)
class StudentJob(TaleJob):
    """What every process of a run needs to know. out: folder of the house models, the teacher among them."""

    @property
    def name(self) -> str:
        """Of the model, as the catalog and its files know it."""
        return NAME

    def pairs(self, rank: int) -> Path:
        """What the teacher of a process has painted."""
        return self.data / f"student-pairs-{rank}.pt"


# ------------------------------------------------------------------------------------------------------------- painting
def noise_of(seed: Sequence[int], pictures: int, length: int) -> Tensor:
    """Standard normal noise [B, L, D], the same for the same seed."""
    drawn = np.random.default_rng([*seed, 3]).standard_normal((pictures, length, DIMS), dtype=np.float32)
    return torch.from_numpy(drawn)


def asked(seed: Sequence[int], pictures: int) -> Tensor:
    """Conditions [B, A] of fresh portraits, a part of them left open."""
    rng = np.random.default_rng(list(seed))
    return torch.from_numpy(left_open(draw_many(pictures, rng)[1], rng))


def painted(teacher: Scales, conditions_BA: Tensor, noise_BLD: Tensor) -> Tensor:
    """The teacher's tokens [B, L], on the CPU."""
    asked_BA, noise_BLD = conditions_BA.to(teacher.device), noise_BLD.to(teacher.device)
    return trajectory(teacher, asked_BA, noise_BLD, GUIDANCE, TOP_K, FLOW_STEPS).cpu()


def collect(job: StudentJob, teacher: Scales, rank: int) -> tuple[Tensor, Tensor]:
    """Conditions [P, A] and tokens [P, L] of a process; goes on where it was. Chunk c has noise of its own."""
    wanted = -(-job.recipe.tokens // (job.recipe.trainers * CHUNK))
    path, chunks = job.pairs(rank), []
    if path.exists():
        chunks = list(torch.load(path, weights_only=True))
    began, before = time.monotonic(), len(chunks)
    while len(chunks) < wanted:
        seed = (job.recipe.seed, rank, len(chunks))
        conditions_BA = asked(seed, CHUNK)
        tokens_BL = painted(teacher, conditions_BA, noise_of(seed, CHUNK, teacher.pyramid.length))
        chunks.append((conditions_BA.to(torch.uint8), tokens_BL.to(torch.uint8)))
        if len(chunks) % 8 == 0 or len(chunks) == wanted:
            scratch = path.with_suffix(".part")
            torch.save(chunks, scratch)
            scratch.rename(path)
            speed = (time.monotonic() - began) / (len(chunks) - before)
            print(f"painted {len(chunks) * CHUNK} of {wanted * CHUNK}, {speed:.1f} s a chunk", flush=True)
    conditions, tokens = zip(*chunks[:wanted], strict=True)
    return torch.cat(conditions).long(), torch.cat(tokens).long()


# ------------------------------------------------------------------------------------------------------------- training
def batches(job: StudentJob, pairs: tuple[Tensor, Tensor], rank: int, step: int) -> Iterator[tuple[Tensor, ...]]:
    """Endless batches from a step on: conditions, noise, tokens, and how many maps are known, [1]."""
    conditions_PA, tokens_PL = pairs
    while True:
        rng = np.random.default_rng([job.recipe.seed, rank, step, 4])
        at_B = rng.integers(len(tokens_PL), size=job.recipe.batch)
        noise = {
            chunk: noise_of((job.recipe.seed, rank, chunk), CHUNK, tokens_PL.shape[1]) for chunk in {*at_B // CHUNK}
        }
        noise_BLD = torch.stack([noise[at // CHUNK][at % CHUNK] for at in at_B])
        entry = ENTRIES[int(rng.random() >= ONE_CALL)]
        yield conditions_PA[at_B], noise_BLD, tokens_PL[at_B], torch.tensor([entry])
        step += 1


def loss_of(student: Student, conditions_BA: Tensor, noise_BLD: Tensor, tokens_BL: Tensor, entry_1: Tensor) -> Tensor:
    """Mean loss in nats of the tokens behind the known maps."""
    first = student.pyramid.starts[int(entry_1)]
    with torch.autocast(tokens_BL.device.type, torch.bfloat16):
        logits_BNV = student.told(conditions_BA, noise_BLD, tokens_BL[:, :first])
    return F.cross_entropy(logits_BNV.float().flatten(0, 1), tokens_BL[:, first:].flatten())


def prepare(job: StudentJob) -> tuple[Scales, Student]:
    """The teacher, and a student that begins with its weights. Raises UserError if the teacher is not trained yet."""
    teacher = read_scales(job.out / f"{TEACHER}.safetensors", job.device)
    torch.manual_seed(job.recipe.seed)
    return teacher, taught(teacher)


def train(job: StudentJob, student: Student, pairs: tuple[Tensor, Tensor], rank: int) -> None:
    """Train in place, together with the other trainers; resumes from the checkpoint, if there is one."""
    optimise(job, student, rank, lambda step: batches(job, pairs, rank, step), lambda *batch: loss_of(student, *batch))


def _train(rank: int, job: Job) -> None:
    """One process: its teacher paints, then its student learns."""
    assert isinstance(job, StudentJob)
    teacher, student = prepare(job)
    pairs = collect(job, teacher, rank)
    join_trainers(rank, job)
    train(job, student, pairs, rank)


# ------------------------------------------------------------------------------------------------------------- measures
@torch.inference_mode()
def follows(student: Student, teacher: Scales, pictures: int) -> dict[str, Any]:
    """How far the student's pictures are from the teacher's, painted from the same noise for the same fresh prompts.

    For one call and two: the mean difference of colours from 0 to 1, and the share of pixels that are the same; beside
    them those of the teacher's pictures from other noise. And nats and right tokens of what each call tells, given the
    teacher's maps before its entry.
    """
    conditions_BA, pyramid = asked([FRESH], pictures), teacher.pyramid
    noise_BLD, other_BLD = (noise_of([FRESH, i], pictures, pyramid.length) for i in (0, 1))
    tokens_BL = painted(teacher, conditions_BA, noise_BLD)
    device = student.device
    told: dict[str, Any] = {"pictures": pictures}
    given = (conditions_BA.to(device), noise_BLD.to(device))
    for entry in ENTRIES:
        first = pyramid.starts[entry]
        raw_BNV = student.told(*given, tokens_BL[:, :first].to(device)).float().cpu()
        wanted_BN = tokens_BL[:, first:]
        told[f"behind_{entry}_maps"] = {
            "nats_per_token": round(float(F.cross_entropy(raw_BNV.flatten(0, 1), wanted_BN.flatten())), 4),
            "right_tokens": round(float((raw_BNV.argmax(-1) == wanted_BN).float().mean()), 4),
        }
    once_BL = student.told(*given, tokens_BL[:, :0].to(device)).argmax(-1)
    kept_BM = once_BL[:, : pyramid.starts[ENTRIES[1]]]
    twice_BL = torch.cat((kept_BM, student.told(*given, kept_BM).argmax(-1)), dim=1)
    ways = {
        "1_call": once_BL.cpu(),
        "2_calls": twice_BL.cpu(),
        "other_noise": painted(teacher, conditions_BA, other_BLD),
    }
    wanted = pyramid.decode(tokens_BL.numpy())
    return told | {name: apart(pyramid.decode(canvas.numpy()), wanted) for name, canvas in ways.items()}


def apart(pixels: Pixels, wanted: Pixels) -> dict[str, float]:
    """How far two lists of pictures are apart."""
    distance = np.abs(pixels.astype(np.float32) - wanted.astype(np.float32)).mean() / 255
    return {
        "pixel_distance": round(float(distance), 4),
        "same_pixels": round(float((pixels == wanted).all(axis=-1).mean()), 4),
    }


def shown(net: Student, teacher: Scales, folder: Path, pictures: int) -> dict[str, Any]:
    """What student and teacher paint, as the judge in the folder sees it; empty where there is none."""
    codec = ScaleCodec(net.pyramid)
    model, master = StudentModel(NAME, net.cpu(), codec), guided(ScaleModel(TEACHER, teacher.cpu(), codec), GUIDANCE)
    sampling = Sampling(1.0, top_k=TOP_K)

    def paint(conditions_A: list[int], seed: int, entry: int | None) -> Pixels:
        prompt, ask = Prompt((), {"conditions": conditions_A}), Ask(codec.length, Seeded(seed))
        if entry is None:
            session = master.open(ScaleSession, prompt, sampling, Meter(), codec.length)
            steps = list(find("next_scale").run(session, ask))
        else:
            student = model.open(DistilledSession, prompt, sampling, Meter(), codec.length)
            steps = list(find("one_step").run(student, ask, entry=entry))
        tokens = {mark.slot: mark.token for step in steps for mark in step.marks}  # later ones stand in for guesses
        return codec.pyramid.decode(np.asarray([tokens[slot] for slot in range(codec.length)]))

    entries = {"1_call": 0, "2_calls": ENTRIES[1] + 1, f"teacher_{len(net.pyramid.sizes)}_calls": None}
    ways = [(name, lambda asked, seed, entry=entry: paint(asked, seed, entry)) for name, entry in entries.items()]
    told = judged(ways, folder, pictures)
    return {"strategy": "one_step", "teacher_strategy": "next_scale", **told} if told else {}


def save(job: StudentJob, student: Student, teacher: Scales, pictures: int, held: int = HELD) -> None:
    """Write the model and its card, with everything measured."""
    path = job.out / f"{job.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_scales(path, student)
    student = read_student(path, job.device)  # what ships is measured, in its rounded weights
    recipe, pyramid = job.recipe, student.pyramid
    card: dict[str, Any] = {
        "id": f"house/{job.name}",
        "what": f"Student of house/{TEACHER}: paints its described portraits of 16x16 pixels in one call or two.",
        "license": "Apache-2.0; the drawings its teacher has learned from are CC0 1.0 (Pixel Art by DiceBear).",
        "num_params": student.num_params,
        "config": asdict(student.config),
        "maps": {"sizes": pyramid.sizes, "kind": pyramid.kind, "fingerprint": pyramid.fingerprint},
        "vocabulary": ScaleCodec(pyramid).vocabulary,
        "data": f"Pictures that house/{TEACHER} painted from noise for prompts of backend.codecs.portraits, never with "
        "a held-out pair of attributes.",
        "painted_by_the_teacher": {"pictures": recipe.tokens, "guidance": GUIDANCE, "top_k": TOP_K, "temperature": 1.0}
        | {"flow_steps": FLOW_STEPS},
        "recipe": script.told(recipe, job.device) | {"known_maps": ENTRIES, "share_with_none_known": ONE_CALL},
        "beside_its_teacher": follows(student, teacher, held),
        "painted": shown(student, teacher, job.out, pictures),
        "cannot": "Follows its teacher only as far as the figures beside it say. Paints whole pictures, no parts of "
        "given ones, and always under the guidance it was taught with.",
    }
    script.write_card(path, card, ("num_params", "beside_its_teacher", "painted"))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: paint and train what is missing, measure, and save the model with its card."""
    parser = script.options("backend.train.portraits.student", __doc__, RECIPES)
    parser.add_argument("--painted", type=int, help="pictures of the teacher, where not what the recipe says")
    parser.add_argument("--pictures", type=int, default=64, help="that are painted to measure the model")
    args = script.asked(parser, argv)
    recipe = RECIPES[args.device]
    recipe = replace(recipe, steps=args.steps or recipe.steps, tokens=args.painted or recipe.tokens)
    job = StudentJob(recipe, args.device, args.data, "student", args.out)
    teacher, student = prepare(job)
    script.train(_train, job, student)
    save(job, student, teacher, args.pictures)


if __name__ == "__main__":
    main()
