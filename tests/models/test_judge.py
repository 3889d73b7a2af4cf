"""The linear judge: its numbers, its file, and what it says where a target does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.catalog import ASSETS, JUDGE, LOCAL, Catalog
from backend.codecs.text import TextCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.judge import LinearJudge, LinearJudgeSession, load_judge, save_judge
from backend.protocols import JudgeSession, Prompt
from backend.run import decode
from backend.types import Request, Sampling

CPU = torch.device("cpu")


@pytest.fixture
def codec() -> TextCodec:
    return TextCodec.from_folder(ASSETS / "house" / "smollm2-codec")


def session_of(judge: LinearJudge, meter: Meter | None = None) -> LinearJudgeSession:
    return judge.open(JudgeSession, Prompt(), Sampling(), meter or Meter(), 8)


def test_a_logistic_function_of_the_state(codec: TextCodec) -> None:
    judge = LinearJudge("house/test", torch.tensor([1.0, -2.0]), torch.tensor(0.5), codec, CPU)
    meter = Meter()
    chances_N = session_of(judge, meter).score(torch.tensor([[0.0, 0.0], [3.0, 1.0]]))
    assert chances_N.tolist() == pytest.approx([1 / (1 + 2.718281828**-0.5), 1 / (1 + 2.718281828**-1.5)])
    assert (meter.calls, meter.rows) == (1, 2)
    assert judge.num_params == 3


def test_file_round_trip(tmp_path: Path, codec: TextCodec) -> None:
    weight_C = torch.arange(4.0)
    save_judge(tmp_path / "judge.safetensors", weight_C, torch.tensor(-1.25))
    judge = load_judge("house/test", tmp_path / "judge.safetensors", codec, CPU)
    assert torch.equal(judge.weight_C, weight_C)
    assert float(judge.bias) == -1.25
    with pytest.raises(UserError, match="train it with"):
        load_judge("house/test", tmp_path / "other.safetensors", codec, CPU)


@pytest.mark.parametrize(
    ("hidden_NC", "shown"), [(torch.zeros(2, 3), "hidden states of 3 numbers"), (None, "no hidden states")]
)
def test_other_states_are_refused(codec: TextCodec, hidden_NC: torch.Tensor | None, shown: str) -> None:
    judge = LinearJudge("house/test", torch.zeros(2), torch.tensor(0.0), codec, CPU)
    with pytest.raises(UserError, match=shown):
        session_of(judge).score(hidden_NC)


@pytest.mark.skipif(not (ASSETS / f"{JUDGE}.safetensors").exists(), reason="the judge is not built")
@pytest.mark.usefixtures("user_cache")
def test_the_shipped_judge_judges() -> None:
    """It is the default of its role, reads the target's states, and has the size that its card says."""
    pytest.importorskip("gguf")
    catalog = Catalog("cpu", "float32")
    judge = catalog.get(JUDGE)
    entry = next(entry for entry in catalog.entries() if entry.id == JUDGE)
    assert (judge.num_params, entry.num_params, entry.available) == (577, 577, True)
    prompt = {
        "text": "Words: moon, chair, river\nAgain: moon, chair, river\nWords: apple, tiger\nAgain:",
        "chat": False,
    }
    with decode(Request("judge", prompt, {"target": LOCAL}, {"gamma": 2}, budget=3), catalog) as run:
        steps = list(run)
    assert all(0 <= step.figures.get("judge 1", 0.5) <= 1 for step in steps)
