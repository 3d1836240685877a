"""Every dialect tells the same failures in the same words, wherever and however its server puts them."""

from __future__ import annotations

import pytest

from conformance.cases import SEEN_AS, Broken, Refusal
from conformance.dialects import TABLES, refusing, serving, taken, where
from k9_broker.errors import K9Error, StreamTruncated
from k9_broker.health import CircuitState
from k9_workers.instances import Instances
from replaying import Replaying, Reply, asked

Told = tuple[type[K9Error], int, bool, float | None, str | None]
SECRETS = ("sekret", "sk-abcd1234", "Wie ist das Wetter", "<html")


def told(error: K9Error) -> Told:
    """What callers make of an error; its message is there, and repeats nobody's secrets."""
    assert error.message
    assert not any(secret in error.message for secret in SECRETS)
    return type(error), error.status, error.retryable, error.retry_after, error.param


def expected(of: Refusal) -> Told:
    return (of.kind, *SEEN_AS[of.kind], of.retry_after, of.param)


async def failure(played: Replaying, caller: Instances, of: Refusal | Broken, reply: Reply, how: str) -> Told:
    ask, *paths = where(caller_dialect(played), of)
    played.routes[("POST", paths[how == "streamed"])] = reply
    with pytest.raises(K9Error) as caught:
        await (taken(caller, ask) if how == "streamed" else caller.call(ask))
    caller.reset()
    return told(caught.value)


def caller_dialect(played: Replaying) -> str:
    assert played.backend
    return played.backend.dialect


def text(of: Refusal | Broken) -> bool:
    return of.case not in ("vectors", "floats", "tokens")


@pytest.mark.parametrize("dialect", TABLES)
def test_no_class_of_failure_is_left_out(dialect: str) -> None:
    table = TABLES[dialect]
    kinds = {refusal.kind for refusal in table.refusals.values()}
    assert kinds | table.never == set(SEEN_AS) - {StreamTruncated}
    assert not kinds & table.never
    assert table.hidden
    assert any(b"[DONE]" in one.body for one in table.broken.values()) or dialect in ("ollama", "anthropic")


@pytest.mark.parametrize("how", ["whole", "streamed"])
@pytest.mark.parametrize("dialect", TABLES)
async def test_refusals(dialect: str, how: str) -> None:
    """Each costs one call of the server: nothing is repeated here."""
    table = TABLES[dialect]
    refusals = {name: one for name, one in table.refusals.items() if how == "whole" or text(one)}
    async with serving(dialect, {}) as (played, caller):
        got = {name: await failure(played, caller, one, refusing(one), how) for name, one in refusals.items()}
        assert len(played.seen) == len(refusals)
    assert got == {name: expected(one) for name, one in refusals.items()}


@pytest.mark.parametrize("dialect", TABLES)
async def test_errors_in_answers_of_status_200(dialect: str) -> None:
    hidden = TABLES[dialect].hidden
    async with serving(dialect, {}) as (played, caller):
        got = {
            name: await failure(played, caller, one, refusing(one), "whole") for name, one in hidden.items()
        }
    assert got == {name: expected(one) for name, one in hidden.items()}


@pytest.mark.parametrize("cut_at", [1, 50, 10_000])
@pytest.mark.parametrize("dialect", TABLES)
async def test_errors_in_streams(dialect: str, cut_at: int) -> None:
    """Also where the server cheerfully says `[DONE]` after one."""
    broken = TABLES[dialect].broken
    async with serving(dialect, {}) as (played, caller):
        got = {}
        for name, one in broken.items():
            raw = one.body.replace(b"\n", b"\r\n") if cut_at == 1 else one.body
            pieces = [raw[at : at + cut_at] for at in range(0, len(raw), cut_at)]
            got[name] = await failure(played, caller, one, Reply(pieces=pieces), "streamed")
    assert {name: error[:3] for name, error in got.items()} == {
        name: (one.kind, *SEEN_AS[one.kind]) for name, one in broken.items()
    }


@pytest.mark.parametrize("dialect", TABLES)
async def test_an_error_instead_of_a_stream(dialect: str) -> None:
    """Status 200 and a JSON body, although a stream was asked for: a failure, never an empty answer."""
    hidden = {name: one for name, one in TABLES[dialect].hidden.items() if text(one)}
    async with serving(dialect, {}) as (played, caller):
        for name, one in hidden.items():
            error = await failure(played, caller, one, refusing(one), "streamed")
            assert issubclass(error[0], K9Error), name
            assert error[1:3] in ((502, True), (503, True)), name


@pytest.mark.parametrize("dialect", TABLES)
async def test_what_a_failure_says_of_the_server(dialect: str) -> None:
    """Bad credentials and a used-up quota take it out; the caller's own faults and one error do not."""
    table = TABLES[dialect]
    async with serving(dialect, {}) as (played, caller):
        for name, one in table.refusals.items():
            ask, path, _ = where(dialect, one)
            played.routes[("POST", path)] = refusing(one)
            with pytest.raises(one.kind):
                await caller.call(ask)
            (health,) = caller.health()
            out = one.kind.code in ("backend_credentials", "insufficient_quota")
            assert (health.state is CircuitState.OUT) is out, name
            if not one.kind.retryable and not out:
                assert health.state is CircuitState.CLOSED, name
            caller.reset()
        assert {asked(one)[0] for one in played.seen} == {"POST"}
