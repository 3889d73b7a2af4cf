"""The public endpoints: exactly these, typed, documented, and usable at once by several clients."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from backend.registry import strategies

PUBLIC = {"/list_strategies", "/list_models", "/health", "/run", "/race"}
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False, analytics_enabled=False)


def test_only_these_endpoints_are_public(client: Client) -> None:
    described: Any = client.view_api(return_format="dict", print_info=False)
    assert set(described["named_endpoints"]) == PUBLIC
    assert described["unnamed_endpoints"] == {}
    for endpoint in described["named_endpoints"].values():
        assert endpoint["description"]
    names = [p["parameter_name"] for p in described["named_endpoints"]["/run"]["parameters"]]
    assert names[:3] == ["prompt", "strategy", "model"]


def test_lists_and_health(client: Client) -> None:
    assert [s["id"] for s in client.predict(api_name="/list_strategies")] == list(strategies())
    assert "local/fake" in [m["id"] for m in client.predict(api_name="/list_models")]
    health = client.predict(api_name="/health")
    assert health["ok"] is True
    assert health["environment"]["device"] == "cpu"


def test_run_returns_text_and_measures(client: Client) -> None:
    result = client.predict("hello", "speculative", budget=12, knobs={"gamma": 2}, api_name="/run")
    assert result["state"] == "done"
    assert result["summary"]["new_slots"] == 12
    assert result["text"]
    assert result["environment"]["dtype"] == "float32"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [({"strategy": "no_such"}, "no_such"), ({"budget": 0}, "budget"), ({"model": "hub/x/y"}, "hub/x/y")],
)
def test_mistakes_come_back_as_a_sentence(client: Client, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AppError, match=sentence):
        client.predict("hello", **arguments, api_name="/run")


def test_a_race_streams_and_can_be_cancelled(client: Client) -> None:
    job = client.submit("hello", ["autoregressive", "jacobi"], budget=16, api_name="/race")
    last = job.result(timeout=60)
    assert job.outputs()
    lanes = job.outputs()[-1]["lanes"] if isinstance(job.outputs()[-1], dict) else last["lanes"]
    assert [lane["state"] for lane in lanes] == ["done", "done"]
    assert lanes[0]["text"] == lanes[1]["text"]


def test_two_clients_take_turns(url: str) -> None:
    results: list[Any] = []

    def ask() -> None:
        client = Client(url, verbose=False, analytics_enabled=False)
        results.append(client.predict("hello", "autoregressive", budget=24, api_name="/run"))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [r["state"] for r in results] == ["done", "done"]
    assert results[0]["text"] == results[1]["text"]
