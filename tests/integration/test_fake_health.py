"""What the fake tells of its health and its load, as each server tells it."""

from __future__ import annotations

import json
import re

import pytest

from fake_calls import CHAT, EMBED, STREAM, ask, get, refusal, send
from k9_broker.testing import FakeServer


def readings(data: bytes) -> dict[str, float]:
    """The values of a text of metrics by name, summed over labels."""
    found: dict[str, float] = {}
    for line in data.decode().splitlines():
        if match := re.fullmatch(r"([\w:]+)(\{.*\})? (\S+)", line):
            found[match[1]] = found.get(match[1], 0) + float(match[3])
    return found


@pytest.mark.parametrize(
    ("flavour", "running", "waiting"),
    [
        ("vllm", "vllm:num_requests_running", "vllm:num_requests_waiting"),
        ("tgi", "tgi_batch_current_size", "tgi_queue_size"),
        ("llamacpp", "llamacpp:requests_processing", "llamacpp:requests_deferred"),
    ],
)
def test_metrics_tell_who_runs_and_who_waits(
    fake: FakeServer, flavour: str, running: str, waiting: str
) -> None:
    fake.behave(flavour=flavour, slots=2, hang=True)
    links = [send(fake, CHAT) for _ in range(5)]
    fake.wait(lambda stats: (stats["active"], stats["waiting"]) == (2, 3))
    status, kind, data = get(fake, "/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    found = readings(data)
    assert (found[running], found[waiting]) == (2, 3)
    for link in links:
        link.close()
    fake.wait(lambda stats: (stats["active"], stats["waiting"]) == (0, 0))
    assert readings(get(fake, "/metrics")[2])[running] == 0


def test_tei_has_a_queue_and_a_description(fake: FakeServer) -> None:
    fake.behave(flavour="tei", slots=1, hang=True)
    links = [send(fake, EMBED) for _ in range(3)]
    fake.wait(lambda stats: stats["waiting"] == 2)
    assert readings(get(fake, "/metrics")[2])["te_queue_size"] == 2
    for link in links:
        link.close()
    info = json.loads(get(fake, "/info")[2])
    assert (info["max_client_batch_size"], "embedding" in info["model_type"]) == (32, True)


def test_llamacpp_loads(fake: FakeServer) -> None:
    fake.behave(flavour="llamacpp", loading=True)
    for path in ("/health", "/v1/models", "/slots"):
        status, _, data = get(fake, path)
        assert (status, json.loads(data)["error"]["message"]) == (503, "Loading model")
    assert refusal(fake, 503)["type"] == "unavailable_error"
    fake.behave(loading=False)
    assert get(fake, "/health")[2] == b'{"status":"ok"}'


@pytest.mark.parametrize("flavour", ["vllm", "tgi", "tei"])
def test_others_do_not_listen_while_they_load(fake: FakeServer, flavour: str) -> None:
    fake.behave(flavour=flavour, loading=True)
    for path in ("/health", "/v1/models"):
        with pytest.raises(ConnectionResetError):
            get(fake, path)
    with pytest.raises(ConnectionResetError):
        ask(fake)
    fake.behave(loading=False)
    assert get(fake, "/health")[0] == 200


@pytest.mark.parametrize(
    ("flavour", "path"),
    [("vllm", "/health"), ("tgi", "/health"), ("tei", "/health"), ("llamacpp", "/health"),
     ("plain", "/v1/models"), ("plain", "/api/version"), ("plain", "/openai/models?api-version=1")],
)  # fmt: skip
def test_health_that_lies(fake: FakeServer, flavour: str, path: str) -> None:
    work = EMBED if flavour == "tei" else CHAT
    fake.behave(flavour=flavour, health_status=503)
    assert get(fake, path)[0] == 503
    assert ask(fake, work)[0] == 200
    fake.behave(health_status=200, error_rate=1, error_status=500)
    assert get(fake, path)[0] == 200
    assert ask(fake, work)[0] == 500


def test_a_stream_is_counted_when_it_has_only_begun(fake: FakeServer) -> None:
    fake.behave(flavour="vllm", tokens_per_second=5)
    link = send(fake, STREAM)
    assert link.getresponse().readline().startswith(b"data: ")
    assert readings(get(fake, "/metrics")[2])["vllm:num_requests_running"] == 1
    link.close()
