"""What a worker finds out about instances without a job: the dead, the healed, the loaded, the busy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from k9_broker import errors
from k9_broker.backends import Backend, Instance
from k9_broker.dialects.registry import dialect_named
from k9_broker.health import CircuitState
from k9_broker.requests import InferenceRequest, Kind
from k9_broker.testing import FakeServer
from k9_workers import probing
from k9_workers.instances import Instances
from several import calling, chat, embed, kill, states, until
from tiny_server import Exchange, serving

CLOSED, OPEN, HALF_OPEN, OUT = CircuitState


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def fake(server: FakeServer) -> FakeServer:
    server.reset()
    return server


async def test_a_dead_instance_is_found_before_a_job_meets_it(fake: FakeServer) -> None:
    dies = FakeServer()
    async with calling(dies, fake) as caller:
        await until(lambda: dies.stats()["requests"] > 1, "it is looked after")
        assert states(caller) == [CLOSED, CLOSED]
        port = dies.port
        kill(dies)
        await until(lambda: states(caller)[0] is OPEN, "it is found dead")
        assert caller.health()[0].reason == "backend_unreachable"
        assert fake.stats()["inferences"] == 0
        with FakeServer(port=port) as back:
            await until(lambda: states(caller)[0] is CLOSED, "it is found well")
            assert back.stats()["inferences"] == 0  # that it is there again is enough


@pytest.mark.parametrize("request_", [chat(), embed()], ids=["chat", "embeddings"])
async def test_what_failed_inferences_is_tried_with_the_smallest_one(
    fake: FakeServer, request_: InferenceRequest
) -> None:
    fake.behave(fail_next=4, error_status=500)
    async with calling(fake) as caller:
        for _ in range(3):
            with pytest.raises(errors.BackendError):
                await caller.call(request_)
        assert states(caller) == [OPEN]
        await until(lambda: states(caller) == [CLOSED], "probes have closed it")
        sent = [one["body"] for one in fake.requests() if one["method"] == "POST"][3:]
        assert len(sent) == 3  # the first of them was the fourth to fail
        assert {body["model"] for body in sent} == {request_.model}
        assert all(body.get("max_tokens", 1) == 1 for body in sent)
        assert caller.health()[0].in_flight == 0


async def test_nothing_is_inferred_in_a_cloud_but_jobs(fake: FakeServer) -> None:
    fake.behave(fail_next=3, error_status=500)
    async with calling(fake, kind=Kind.CLOUD) as caller:
        for _ in range(3):
            with pytest.raises(errors.BackendError):
                await caller.call(chat())
        asked = fake.stats()["requests"]
        await until(lambda: fake.stats()["requests"] > asked + 1, "its models were asked for")
        assert states(caller) == [HALF_OPEN]
        assert fake.stats()["inferences"] == 3
        for _ in range(2):
            await caller.call(chat())
        assert states(caller) == [CLOSED]


async def test_an_idle_instance_is_not_asked_to_infer_and_one_without_probes_is_not_asked(
    fake: FakeServer,
) -> None:
    async with calling(fake) as caller:
        await until(lambda: fake.stats()["requests"] >= 4, "it is looked after")
        assert fake.stats()["inferences"] == 0
        assert states(caller) == [CLOSED]
    fake.reset()
    async with calling(fake, watched=False):
        await asyncio.sleep(0.3)
        assert fake.stats()["requests"] == 0


async def test_a_look_loads_no_model(fake: FakeServer) -> None:
    """Ollama loads what it is asked to infer with: only a model that is loaded may be tried."""
    fake.behave(cold_load_ms=1, fail_next=1, error_status=503)
    async with calling(fake, dialect="ollama") as caller:
        with pytest.raises(errors.BackendOverloaded):
            await caller.call(chat())
        asked = fake.stats()["requests"]
        await until(lambda: fake.stats()["requests"] > asked + 4, "it is looked at")
        assert states(caller) == [HALF_OPEN]
        assert fake.stats()["inferences"] == 1
        load = caller.health()[0].load
        assert load is not None
        assert load.loaded == ()
        assert load.running is None  # not known is not zero


async def test_a_slow_cold_load_is_no_failure(fake: FakeServer) -> None:
    fake.behave(cold_load_ms=1500)
    async with calling(fake, dialect="ollama") as caller:
        loading = asyncio.create_task(caller.call(chat()))
        asked = fake.stats()["requests"]
        await until(lambda: fake.stats()["requests"] > asked + 5, "it is looked at while it loads")
        assert not loading.done()
        await loading
        assert states(caller) == [CLOSED]
        await until(lambda: _loaded(caller.health()[0].load) != (), "the model is seen to be loaded")


async def test_a_server_too_busy_to_be_asked_is_not_ill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(probing, "LOOK_AGAIN", 0.05)
    done = asyncio.Event()
    looks = 0

    async def script(exchange: Exchange) -> None:
        nonlocal looks
        if exchange.line.startswith("GET"):  # it tells nothing while it works
            looks += 1
            await asyncio.sleep(3600)
        await done.wait()
        await exchange.reply(b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}')

    async with serving(script) as (_, alone):
        instance = Instance(url=alone._connections._url)
        backend = Backend(name="b", dialect="vllm", instances=(instance,), probe_seconds=0.05)
        caller = Instances(backend, dialect_named("vllm"))
        working = asyncio.create_task(caller.call(chat()))
        await until(lambda: caller.health()[0].in_flight, "it works")
        watching = asyncio.create_task(caller.watch())
        await until(lambda: looks > 6, "it is looked at")
        assert states(caller) == [CLOSED]
        done.set()
        await working
        await until(lambda: states(caller) == [OPEN], "once it is idle, silence is a bad sign")
        watching.cancel()
        await asyncio.wait([watching])
        await caller.close()


async def test_a_retry_after_on_a_success_means_nothing() -> None:
    async def script(exchange: Exchange) -> None:
        body = b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}'
        await exchange.reply(body, retry_after="30")

    async with serving(script) as (_, alone):
        backend = Backend(name="b", dialect="openai", url=alone._connections._url)
        caller = Instances(backend, dialect_named("openai"))
        for _ in range(3):
            await caller.call(chat())
        assert states(caller) == [CLOSED]
        await caller.close()


def _loaded(load: object) -> object:
    return getattr(load, "loaded", ()) or ()


async def test_the_load_of_others_is_seen_and_stepped_around(fake: FakeServer) -> None:
    fake.behave(flavour="vllm", answer_tokens=10_000, tokens_per_second=100)
    with FakeServer(flavour="vllm") as free:
        async with calling(fake, free, dialect="vllm") as caller, calling(fake, watched=False) as others:
            theirs = [asyncio.create_task(others.call(chat(max_tokens=10_000))) for _ in range(3)]

            def running() -> int | None:
                load = caller.health()[0].load
                return load.running if load else None

            await until(lambda: running() == 3, "their calls are seen")
            assert caller.health()[0].in_flight == 0
            for _ in range(6):
                await caller.call(chat(max_tokens=1))
            assert free.stats()["inferences"] == 6
            for call in theirs:
                call.cancel()
            await asyncio.wait(theirs)
            await until(lambda: running() == 0, "they are seen to be gone")
