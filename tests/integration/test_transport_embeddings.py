"""Embedding calls over real sockets: split, merged, and bisected down to the inputs refused."""

from __future__ import annotations

import asyncio

import pytest

from k9_broker import errors
from k9_broker.results import Vectors
from tiny_server import Exchange, embed, serving


def vector_of(text: str) -> list[float]:
    return [float(len(text)), float(sum(text.encode()))]


async def embedder(exchange: Exchange) -> None:
    """Answers out of order; refuses a call with a text that begins with "bad"."""
    inputs = exchange.body["input"]
    if any(text.startswith("bad") for text in inputs):
        await exchange.reply({"error": {"message": "an input is bad"}}, 400)
        return
    rows = Vectors.from_floats([vector_of(text) for text in inputs])
    data = [{"index": i, "embedding": rows.row_base64(i)} for i in range(len(inputs))]
    await exchange.reply({"data": data[::-1], "usage": {"prompt_tokens": len(inputs)}})


async def test_long_inputs_are_split_and_merged_in_order() -> None:
    inputs = [f"text {number} {'x' * (number % 7)}" for number in range(103)]
    async with serving(embedder, max_inputs=10) as (server, caller):
        result = await caller.call(embed(inputs))
        assert result.vectors == Vectors.from_floats([vector_of(text) for text in inputs])
        assert (result.usage.prompt, result.errors) == (103, {})
        assert sorted(len(e.body["input"]) for e in server.seen) == [3] + [10] * 10
        assert server.connections <= 4


async def test_parts_never_pass_the_connections_of_the_backend() -> None:
    now, most = 0, 0

    async def script(exchange: Exchange) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        await embedder(exchange)

    async with serving(script, max_inputs=1, slots=1) as (_, caller):
        await asyncio.gather(*(caller.call(embed([str(n) for n in range(12)])) for _ in range(4)))
    assert 2 <= most <= 5


@pytest.mark.parametrize(
    ("bad", "count"), [([], 40), ([0], 40), ([39], 40), ([3, 4, 21], 40), (list(range(40)), 40), ([0], 1)]
)
async def test_partial_isolates_the_inputs_refused(bad: list[int], count: int) -> None:
    inputs = [f"{'bad' if number in bad else 'good'} {number}" for number in range(count)]
    async with serving(embedder, max_inputs=16) as (server, caller):
        result = await caller.call(embed(inputs, partial=True))
        assert sorted(result.errors) == bad
        assert all(error["code"] == "invalid_request" for error in result.errors.values())
        vectors = result.vectors
        assert vectors is not None
        if len(bad) < count:
            expected = [[0.0, 0.0] if n in bad else vector_of(text) for n, text in enumerate(inputs)]
            assert vectors == Vectors.from_floats(expected)
        assert len(server.seen) <= 3 + 2 * 5 * max(1, len(bad))


async def test_without_partial_a_refusal_fails_the_call() -> None:
    async with serving(embedder, max_inputs=4) as (_, caller):
        with pytest.raises(errors.BadRequest, match="an input is bad"):
            await caller.call(embed(["good"] * 9 + ["bad"]))


async def test_other_errors_fail_a_partial_call() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply({"error": {"message": "boom"}}, 500)

    async with serving(script, max_inputs=2) as (_, caller):
        with pytest.raises(errors.BackendError):
            await caller.call(embed(["a"] * 9, partial=True))


async def test_a_server_without_base64_is_learnt() -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.body["encoding_format"] != "float":
            await exchange.reply({"detail": "encoding_format must be float"}, 422)
            return
        await exchange.reply({"data": [{"embedding": [1.0, 2.0]} for _ in exchange.body["input"]]})

    async with serving(script) as (server, caller):
        for _ in range(2):
            result = await caller.call(embed(["a"]))
            assert result.vectors == Vectors.from_floats([[1.0, 2.0]])
        assert [e.body["encoding_format"] for e in server.seen] == ["base64", "float", "float"]
