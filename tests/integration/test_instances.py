"""A backend of several instances, each a real process that is killed, overloaded, out of quota or busy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from k9_broker import errors
from k9_broker.breaker import TRIAL_WAIT
from k9_broker.health import CircuitState
from k9_broker.requests import Kind
from k9_broker.testing import FakeServer
from several import answered, calling, chat, embed, kill, states, until

CLOSED, OPEN, HALF_OPEN, OUT = CircuitState


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[FakeServer, FakeServer]]:
    with FakeServer() as one, FakeServer() as two:
        yield one, two


@pytest.fixture
def pair(servers: tuple[FakeServer, FakeServer]) -> tuple[FakeServer, FakeServer]:
    for fake in servers:
        fake.reset()
    return servers


def inferences(*fakes: FakeServer) -> list[int]:
    return [fake.stats()["inferences"] for fake in fakes]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_every_call_is_answered_while_an_instance_is_killed_and_comes_back(streamed: bool) -> None:
    with FakeServer(first_token_ms=10, tokens_per_second=1000) as stays:
        dies = FakeServer(first_token_ms=10, tokens_per_second=1000)
        port = dies.port
        enough = asyncio.Event()
        answers = 0

        async with calling(dies, stays) as caller:

            async def customer() -> None:
                nonlocal answers
                while not enough.is_set():
                    await answered(caller, chat(stream=streamed))
                    answers += 1

            async with asyncio.TaskGroup() as customers:
                for _ in range(6):
                    customers.create_task(customer())
                await until(lambda: answers > 20, "there is traffic")
                assert all(one.in_flight for one in caller.health())
                kill(dies)
                await until(lambda: states(caller)[0] is OPEN, "the dead one is left alone")
                seen = answers
                await until(lambda: answers > seen + 30, "the other one answers")
                with FakeServer(port=port, first_token_ms=10, tokens_per_second=1000) as back:
                    await until(lambda: states(caller) == [CLOSED, CLOSED], "it is called again")
                    await until(lambda: inferences(back)[0] > 5, "it has its share again")
                    enough.set()
            assert [one.in_flight for one in caller.health()] == [0, 0]


async def test_the_second_call_after_a_failure_goes_elsewhere(
    pair: tuple[FakeServer, FakeServer],
) -> None:
    async with calling(*pair, watched=False) as caller:
        for fake, status in ((pair[0], 500), (pair[0], 500), (pair[1], 400)):
            fake.behave(fail_next=1, error_status=status)
        with pytest.raises(errors.BackendError):
            await caller.call(chat())
        assert caller.spare("fake-chat")
        assert states(caller) == [CLOSED, CLOSED]
        with pytest.raises(errors.BadRequest):
            await caller.call(chat())
        assert inferences(*pair) == [1, 1]


async def test_overload_means_the_other_one_now(pair: tuple[FakeServer, FakeServer]) -> None:
    busy, free = pair
    busy.behave(fail_next=10_000, error_status=503)
    async with calling(*pair) as caller:
        attempts = [await answered(caller, chat()) for _ in range(40)]
        assert max(attempts) == 2
        assert sum(attempts) <= 42
        assert states(caller)[0] in (OPEN, HALF_OPEN)
        assert caller.health()[0].reason == "backend_overloaded"
        # Its health route and its list of models are fine all the while; a real inference tells better.
        await until(lambda: inferences(busy)[0] >= 2, "it was tried")
        assert states(caller)[0] is not CLOSED
        assert inferences(free)[0] == 40
        busy.behave(fail_next=0)
        await until(lambda: states(caller)[0] is CLOSED, "it is called again")


async def test_retry_after_is_obeyed(pair: tuple[FakeServer, FakeServer]) -> None:
    pair[0].behave(fail_next=1, error_status=503, retry_after=3600)
    async with calling(*pair) as caller:
        with pytest.raises(errors.BackendOverloaded):
            await caller.call(chat())
        wait = caller.health()[0].retry_seconds
        assert wait is not None
        assert 58 < wait <= 60
        caller.reset()
        assert states(caller) == [CLOSED, CLOSED]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "insufficient_quota", errors.BackendQuotaExceeded),
        (401, "invalid_api_key", errors.BackendCredentials),
    ],
)
async def test_without_quota_or_credentials_it_is_out_until_told_otherwise(
    pair: tuple[FakeServer, FakeServer], status: int, code: str, kind: type[errors.K9Error]
) -> None:
    pair[0].behave(fail_next=1, error_status=status, error_code=code)
    async with calling(*pair) as caller:
        with pytest.raises(kind):
            await caller.call(chat())
        assert states(caller) == [OUT, CLOSED]
        await asyncio.sleep(0.1)  # a look may have been under way
        asked = pair[0].stats()["requests"]
        seen = pair[1].stats()["requests"]
        for _ in range(10):
            await caller.call(chat())
        assert await caller.models()
        await until(lambda: pair[1].stats()["requests"] > seen + 12, "the other one is looked after")
        assert pair[0].stats()["requests"] == asked
        pair[1].behave(fail_next=1, error_status=status, error_code=code)
        with pytest.raises(kind):
            await caller.call(chat())
        assert caller.fit == 0
        with pytest.raises(errors.CircuitOpen, match=kind.code) as caught:
            await caller.call(chat())
        assert caught.value.retry_after is None  # waiting does not help
        caller.reset()
        assert caller.fit == 2
        await caller.call(chat())


async def test_half_open_lets_one_call_through() -> None:
    fake = FakeServer()
    port = fake.port
    async with calling(fake, watched=False) as caller:
        await caller.call(chat())
        kill(fake)
        for _ in range(2):
            with pytest.raises(errors.BackendUnreachable):
                await caller.call(chat())
        with pytest.raises(errors.CircuitOpen) as caught:
            await caller.call(chat())
        assert 0 < (caught.value.retry_after or 0) <= 1
        with FakeServer(port=port, latency_ms=100) as back:
            await until(lambda: states(caller) == [HALF_OPEN], "its time is over")
            calls = [caller.call(chat()) for _ in range(5)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            refused = [result for result in results if isinstance(result, errors.CircuitOpen)]
            assert len(refused) == 4
            assert {error.retry_after for error in refused} == {TRIAL_WAIT}
            assert inferences(back) == [1]
            await caller.call(chat())
            assert states(caller) == [CLOSED]
            await asyncio.gather(*(caller.call(chat()) for _ in range(5)))


async def test_a_stream_has_shown_enough_with_its_first_words(pair: tuple[FakeServer, FakeServer]) -> None:
    one = pair[0]
    one.behave(fail_next=1, error_status=503, retry_after=0, answer_tokens=1000, tokens_per_second=100)
    async with calling(one, watched=False) as caller:
        with pytest.raises(errors.BackendOverloaded):
            await caller.call(chat())
        await until(lambda: states(caller) == [HALF_OPEN], "its time is over")
        async with aclosing(caller.stream(chat(stream=True))) as stream:
            await anext(stream)
            assert states(caller) == [CLOSED]
            assert caller.health()[0].in_flight == 1
        assert caller.health()[0].in_flight == 0


@pytest.mark.parametrize("how", ["cancelled", "closed early"])
async def test_a_call_that_its_caller_ends_is_no_sign(pair: tuple[FakeServer, FakeServer], how: str) -> None:
    pair[0].behave(answer_tokens=1000, tokens_per_second=100)
    async with calling(pair[0], watched=False) as caller:
        for _ in range(4):
            if how == "closed early":
                async with aclosing(caller.stream(chat(stream=True))) as stream:
                    await anext(stream)
                continue
            call = asyncio.create_task(caller.call(chat()))
            await until(lambda: caller.health()[0].in_flight == 1, "it is under way")
            call.cancel()
            await asyncio.wait([call])
        assert states(caller) == [CLOSED]
        assert caller.health()[0].in_flight == 0


async def test_the_callers_faults_and_rate_limits_open_nothing(pair: tuple[FakeServer, FakeServer]) -> None:
    one = pair[0]
    async with calling(one, watched=False, heard=lambda limits: None) as caller:
        for status, more in ((400, {}), (429, {"retry_after": 30})):
            one.behave(fail_next=5, error_status=status, **more)
            for _ in range(5):
                with pytest.raises(errors.K9Error):
                    await caller.call(embed())
            assert states(caller) == [CLOSED]
            assert not caller.spare("fake-embed")
    one.behave(fail_next=1, error_status=429, retry_after=30)
    async with calling(one, watched=False) as caller:  # nobody keeps the pace
        with pytest.raises(errors.BackendRateLimited):
            await caller.call(embed())
        assert states(caller) == [OPEN]


async def test_a_session_stays_where_it_is(pair: tuple[FakeServer, FakeServer]) -> None:
    async with calling(*pair, affinity="session", slots=8, watched=False) as caller:
        for _ in range(10):
            await caller.call(chat(user="one and the same"))
        assert sorted(inferences(*pair)) == [0, 10]
        for number in range(40):
            await caller.call(chat(user=f"number {number}"))
        assert min(inferences(*pair)) >= 3
        for fake in pair:  # wherever it is, it goes on elsewhere when it must
            fake.behave(fail_next=1, error_status=503)
            assert await answered(caller, chat(user="one and the same")) <= 2
            fake.behave(fail_next=0)
            caller.reset()


async def test_work_is_shared_by_slots(pair: tuple[FakeServer, FakeServer]) -> None:
    for fake in pair:
        fake.behave(latency_ms=200)
    async with calling(*pair, watched=False) as caller:
        await asyncio.gather(*(caller.call(embed(str(number))) for number in range(8)))
        assert inferences(*pair) == [4, 4]
        for number in range(8):
            await caller.call(embed(str(number)))
        assert min(inferences(*pair)) >= 6  # one after the other they take turns


async def test_models_of_all_that_answer(pair: tuple[FakeServer, FakeServer]) -> None:
    pair[1].behave(models=["fake-chat", "only-here"])
    async with calling(*pair, watched=False, kind=Kind.CLOUD) as caller:
        assert set(await caller.models()) == {"fake-chat", "fake-embed", "only-here"}
        for _ in range(4):
            await caller.call(chat(model="only-here"))
        assert inferences(*pair) == [0, 4]
    with FakeServer() as gone:
        pass
    async with calling(gone, pair[0], watched=False) as caller:
        assert set(await caller.models()) == {"fake-chat", "fake-embed"}
    async with calling(gone, watched=False) as caller:
        with pytest.raises(errors.BackendUnreachable):
            await caller.models()


async def test_models_of_an_instance_that_is_away_are_unavailable_not_unknown(
    pair: tuple[FakeServer, FakeServer],
) -> None:
    with FakeServer(models=["only-there"]) as dies:
        async with calling(pair[0], dies, watched=False) as caller:
            before = await caller.models()
            assert set(before) == {"fake-chat", "fake-embed", "only-there"}
            kill(dies)
            assert await caller.models() == before
            pair[0].behave(models=["fake-chat"])  # what it no longer lists is gone
            assert set(await caller.models()) == {"fake-chat", "only-there"}
