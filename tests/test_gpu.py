"""On a CUDA device: the same laws as on the CPU, and a decode from end to end."""

from __future__ import annotations

import pytest
import torch

from backend.meter import Meter
from backend.models.causal import CausalModel
from backend.models.house.llama import Llama, LlamaConfig
from backend.protocols import CausalSession, Prompt
from backend.types import Sampling
from tests.test_contract_models import _codec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CONFIG = LlamaConfig(
    vocab_size=97, dim=64, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=16, ffn_dim=128, context=128
)


def law(device: str, dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(3)
    llama = Llama(CONFIG).to(device).pack(dtype)
    model = CausalModel("tiny", llama, _codec(), llama.num_params)
    session = model.open(CausalSession, Prompt((5, 17, 3)), Sampling(temperature=1.0), Meter(), room=16)
    session.score([7, 8])
    session.commit([7])
    return session.score([4, 5, 6], [-1, -1, 1]).p_NV.float().cpu()


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_laws_equal_those_of_the_cpu(dtype: torch.dtype, atol: float) -> None:
    torch.testing.assert_close(law("cuda", dtype), law("cpu", torch.float32), atol=atol, rtol=0.05)
