"""Every test runs offline, on two threads, from the same seeds, with caches that nobody else sees."""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

SCRATCH = Path(tempfile.mkdtemp(prefix="decoding-lab-tests-"))
os.environ |= {  # before anything reads them on import
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": str(SCRATCH / "hub"),
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_TEMP_DIR": str(SCRATCH / "gradio"),
    "TOKENIZERS_PARALLELISM": "false",
}

import pytest  # noqa: E402
import torch  # noqa: E402

LOOPBACK = ("127.", "::1", "localhost")
USER_CACHE = os.environ.get("DECODING_LAB_CACHE")


def pytest_configure(config: pytest.Config) -> None:
    """Two threads, whatever the machine has: timings of a suite that others share stay the same."""
    torch.set_num_threads(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    shutil.rmtree(SCRATCH, ignore_errors=True)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket may be connected to anything but this machine."""

    def guard(connect: Any) -> Any:
        def guarded(self: socket.socket, address: Any) -> Any:
            host = address[0] if isinstance(address, tuple) else ""
            if self.family in (socket.AF_INET, socket.AF_INET6) and not str(host).startswith(LOOPBACK):
                raise OSError(f"tests run offline, but something connects to {host}")
            return connect(self, address)

        return guarded

    monkeypatch.setattr(socket.socket, "connect", guard(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guard(socket.socket.connect_ex))


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    """The global streams start at the same place; strategies must not use them anyway."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _fresh_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache folder for this test, unless it asks for `user_cache`."""
    if "user_cache" not in request.fixturenames:
        monkeypatch.setenv("DECODING_LAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def user_cache() -> Path | None:
    """The cache folder of the user: for tests on the real local model, which is converted once and then kept there.

    None where the environment names none and the default folder is used.
    """
    return Path(USER_CACHE) if USER_CACHE else None
