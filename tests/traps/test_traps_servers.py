"""What servers do beside answering: load in silence, queue out of sight, close connections, lie."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from direct import Direct
from k9_api import sse
from k9_api.app import create_app
from k9_broker import errors
from k9_broker.backends import Backend
from k9_broker.dialects.registry import dialect_named
from k9_broker.health import CircuitState, Load
from k9_broker.settings import JobSettings, Settings
from k9_broker.testing import FakeServer
from menagerie import HELLO, SPARE, Menagerie, events, only, twin
from serving import Served
from several import calling, chat, states, until

CLOSED, OPEN, HALF_OPEN, OUT = CircuitState


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture
def fake(server: FakeServer) -> FakeServer:
    server.reset()
    return server


# -- Ollama ----------------------------------------------------------------------------------------


def test_trap_16_ollama_is_told_not_to_stream(k9: Menagerie) -> None:
    """Without the field it answers in NDJSON."""
    k9.said(only("ollama"))
    assert k9.upstream("ollama")["body"]["stream"] is False
    k9.frames(only("ollama"))
    assert k9.upstream("ollama")["body"]["stream"] is True


async def test_trap_16_ollama_loads_without_being_thought_dead(fake: FakeServer) -> None:
    """While a model loads nothing comes, not even headers; a probe that infers would load one."""
    fake.behave(cold_load_ms=2500)
    async with calling(fake, dialect="ollama") as caller:
        await until(lambda: fake.stats()["paths"].get("/api/ps", 0) > 3, "it is looked after")
        assert fake.stats()["inferences"] == 0
        waiting = asyncio.create_task(caller.call(chat()))
        while not waiting.done():
            assert states(caller) == [CLOSED]
            await asyncio.sleep(0.05)
        assert (await waiting).usage.completion > 0
        assert fake.stats()["inferences"] == 1


def test_trap_16_callers_of_a_loading_model_get_headers_and_comments(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ninety seconds and a keep-alive of ten, here a fifteenth and a thirtieth of them."""
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.3)
    fake.behave(cold_load_ms=6000)
    backend = Backend(name="ollama", dialect="ollama", url=fake.url, models=("fake-chat",))

    async def opener(url: str, jobs: JobSettings) -> Direct:
        return Direct(backends=(backend,)).open()

    body = {"model": "fake-chat", "messages": HELLO, "stream": True}
    with (
        Served(create_app(Settings(), "redis://127.0.0.1:1/0", opener=opener)) as api,
        httpx.Client(timeout=5) as client,  # the loading takes longer
        client.stream("POST", f"{api.url}/v1/chat/completions", json=body) as reply,
    ):
        assert reply.status_code == 200
        text = "".join(reply.iter_text())
    assert text.startswith(": ")
    assert events(text)[-1] == "[DONE]"


def test_trap_17_ollamas_queue_is_left_empty(k9: Menagerie, breaks: Any) -> None:
    """It would take any number, and tell nobody how many wait: those above the slots wait at K-9."""
    breaks("ollama", latency_ms=600, slots=4)
    body = {"model": only("ollama"), "messages": HELLO}
    jobs = [
        k9.http.post("/v1/jobs", json={"endpoint": "/v1/chat/completions", "body": body}).json()["id"]
        for _ in range(16)
    ]
    waiting = 0
    while any(k9.job(job)["state"] in ("queued", "running") for job in jobs):
        stats = k9.fakes["ollama"].stats()
        assert stats["waiting"] == 0
        assert stats["max_active"] <= 4
        waiting = max(waiting, k9.queues()["ollama"]["waiting"]["interactive"])
    assert {k9.job(job)["state"] for job in jobs} == {"succeeded"}
    assert k9.inferences("ollama") == 16
    assert waiting > 0


async def test_trap_17_ollamas_of_one_backend_share_the_load(fake: FakeServer) -> None:
    with FakeServer(latency_ms=20) as other:
        fake.behave(latency_ms=20)
        async with calling(fake, other, dialect="ollama", slots=1) as caller:
            for _ in range(10):
                await asyncio.gather(*(caller.call(chat()) for _ in range(2)))
        shares = [one.stats()["inferences"] for one in (fake, other)]
        assert shares == [10, 10]
        assert [one.stats()["max_active"] for one in (fake, other)] == [1, 1]


# -- connections -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", ["vllm", "llamacpp"])
async def test_trap_24_pooled_connection_that_was_closed_costs_nothing(
    fake: FakeServer, flavour: str
) -> None:
    """Two of ten requests find their connection closed: no failure, and nothing is generated twice."""
    fake.behave(flavour=flavour, close_reused=0.2)
    dialect = {"vllm": "vllm", "llamacpp": "llama.cpp"}[flavour]
    async with calling(fake, dialect=dialect, watched=False) as caller:
        for number in range(100):
            request = chat(stream=bool(number % 2))
            if request.stream:
                assert [chunk async for chunk in caller.stream(request)]
            else:
                await caller.call(request)
        assert states(caller) == [CLOSED]
    stats = fake.stats()
    assert stats["closed_reused"] >= 15
    assert stats["inferences"] == 100


async def test_trap_24_pooled_connection_is_given_up_before_vllm_does(fake: FakeServer) -> None:
    fake.behave(keep_alive_seconds=0.05)
    async with calling(fake, dialect="vllm", watched=False) as caller:
        for _ in range(40):
            await caller.call(chat())
            await asyncio.sleep(0.06)
        assert states(caller) == [CLOSED]
    assert fake.stats()["inferences"] == 40


async def test_trap_24_timeout_is_of_silence_not_of_the_whole_answer(fake: FakeServer) -> None:
    fake.behave(tokens_per_second=10, answer_tokens=18)
    async with calling(fake, watched=False, read_timeout=1.0) as caller:
        began = time.monotonic()
        assert [chunk async for chunk in caller.stream(chat(stream=True))]
        assert time.monotonic() - began > 1.2
        fake.behave(stall_after_tokens=3)
        with pytest.raises(errors.BackendTimeout):
            _ = [chunk async for chunk in caller.stream(chat(stream=True))]


def test_trap_24_timeout_before_the_first_byte_is_failed_over(k9: Menagerie, breaks: Any) -> None:
    breaks("llamacpp", reset=True)
    reply = k9.chat(twin("llamacpp"), stream=True)
    assert reply.headers["x-k9-backend"] == SPARE
    assert events(reply.text)[-1] == "[DONE]"


# -- health ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", ["vllm", "tgi", "llamacpp"])
async def test_trap_25_health_route_that_lies_is_not_believed(fake: FakeServer, flavour: str) -> None:
    """`/health` says 200, `/v1/models` answers, and every chat is 503."""
    fake.behave(flavour=flavour, error_rate=1.0, error_status=503)
    dialect = {"llamacpp": "llama.cpp"}.get(flavour, flavour)
    async with calling(fake, dialect=dialect) as caller:
        assert httpx.get(f"{fake.url}/health").status_code == 200
        with pytest.raises(errors.K9Error):
            await caller.call(chat())
        with pytest.raises(errors.CircuitOpen):
            await caller.call(chat())
        assert fake.stats()["inferences"] == 1
        fake.behave(error_rate=0.0)
        await until(lambda: states(caller) == [CLOSED], "a probe has shown that it infers again")


@pytest.mark.parametrize("flavour", ["vllm", "llamacpp", "tgi"])
async def test_trap_25_health_of_a_server_that_loads(fake: FakeServer, flavour: str) -> None:
    dialect = {"llamacpp": "llama.cpp"}.get(flavour, flavour)
    async with calling(fake, dialect=dialect) as caller:
        fake.behave(flavour=flavour, loading=True)
        await until(lambda: states(caller) != [CLOSED], "it is found out")
        fake.behave(loading=False)
        await until(lambda: states(caller) == [CLOSED], "it is up")
        assert fake.stats()["inferences"] == 0


METRICS = {
    "vllm": b"""# HELP vllm:num_requests_running Requests.
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 4.0
vllm:gpu_cache_usage_perc{engine="0"} 0.5
vllm:gpu_cache_usage_perc{engine="1"} 1.0
vllm:prompt_tokens_total{engine="0"} 99.0
""",
    "tgi": b"tgi_queue_size 4\ntgi_batch_current_size 5\ntgi_request_count 99\n",
    "llama.cpp": b'[{"id":0,"is_processing":true},{"id":1,"is_processing":false}]',
    "ollama": b'{"models":[{"name":"m:latest","size_vram":1}]}',
}
LOADS = {
    "vllm": Load(running=5, waiting=4, saturation=0.75),
    "tgi": Load(running=5, waiting=4),
    "llama.cpp": Load(running=1, slots=2),
    "ollama": Load(loaded=("m:latest", "m")),
}


@pytest.mark.parametrize("dialect", METRICS)
def test_trap_25_health_figures_are_read_and_the_unknown_is_not_zero(dialect: str) -> None:
    """Several engines are summed, and an older release's name is read too."""
    read = dialect_named(dialect).parse_load
    assert read(METRICS[dialect]) == LOADS[dialect]
    for strange in (
        b"",
        b"<html>",
        b"{}",
        b"renamed_requests_running 7\n",
        b"\xff",
        json.dumps([{}]).encode(),
    ):
        assert read(strange) == Load()
