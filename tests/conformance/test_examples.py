"""Every contract example over a real socket, through the caller that workers use: what the dialects' own
suites say of its bytes holds on the wire too, at any cut. No example is forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conformance.cases import SEEN_AS
from conformance.dialects import taken
from contract_examples import ERRORS, NO_ANSWERS, STREAM_ERRORS, WAITS, Example, examples_of, names
from k9_broker.dialects.base import Dialect
from k9_broker.dialects.openai.folding import fold
from k9_broker.dialects.registry import dialect_named
from k9_broker.dialects.wire_errors import discreet
from k9_broker.errors import BackendError, K9Error
from k9_broker.health import Load
from k9_broker.requests import Operation
from k9_broker.results import Chunk, Result
from k9_workers.transport import HttpCaller
from replaying import Reply, cut, replaying

pytestmark = pytest.mark.contracts

MODELS = (
    *("openai-models", "azure-models", "vllm-models", "llamacpp-models"),
    *("ollama-tags", "tgi-info", "anthropic-models"),
)
LOADS = ("vllm-metrics", "llamacpp-slots", "ollama-ps", "ollama-ps-idle", "tgi-metrics")

NOT_SPOKEN = {
    "a batch or a file: K-9 keeps its own": (
        *("openai-batch-cancel", "openai-batch-completed", "openai-batch-create", "openai-batch-list"),
        *("openai-batch-failed-validation", "openai-batch-input.jsonl", "openai-batch-output.jsonl"),
        *("openai-batch-errors.jsonl", "openai-batch-expired.jsonl"),
        *("openai-file-content", "openai-file-delete", "openai-file-upload"),
        *("anthropic-batch-create", "anthropic-batch-ended", "anthropic-batch-results"),
        *("anthropic-batch-results.jsonl", "azure-batch-create"),
        *("vllm-run-batch-input.jsonl", "vllm-run-batch-output.jsonl"),
    ),
    "chat completions are asked for instead": ("openai-responses", "openai-responses-stream"),
    "the list of models tells it": ("openai-model-retrieve",),
    "K-9 counts by itself": ("anthropic-count-tokens",),
    "not normalised, one input a call: /api/embed is asked": ("ollama-embeddings-legacy",),
    "/v1/embeddings is asked": ("vllm-pooling",),
    "the list of models or the load is asked, which tells more": (
        *("ollama-root", "ollama-version", "vllm-health", "vllm-version"),
        *("llamacpp-health", "tgi-health"),
    ),
    "/metrics is asked": ("vllm-load",),
    "/slots is asked": ("llamacpp-metrics",),
    "/info is asked, which tells more": ("tgi-models",),
}
"""Examples that no dialect meets, by the reason."""


@pytest.fixture(scope="module")
def examples(contracts: Path) -> dict[str, Example]:
    return examples_of(contracts)


def answers(examples: dict[str, Example], *, streamed: bool) -> list[Example]:
    other = {
        *STREAM_ERRORS,
        *NO_ANSWERS,
        *MODELS,
        *LOADS,
        *(one for some in NOT_SPOKEN.values() for one in some),
    }
    return [
        one for one in examples.values() if one.name not in {*other, *ERRORS} and one.streamed is streamed
    ]


def test_no_example_is_forgotten(contracts: Path, examples: dict[str, Example]) -> None:
    """Clients' requests are the business of `test_client_requests`."""
    wholes, streams = answers(examples, streamed=False), answers(examples, streamed=True)
    assert all(one.operation and one.status == 200 for one in (*wholes, *streams))
    answered = [one.name for one in (*wholes, *streams)]
    groups = [answered, ERRORS, STREAM_ERRORS, NO_ANSWERS, MODELS, LOADS, *NOT_SPOKEN.values()]
    met = [name for group in groups for name in group]
    assert len(set(met)) == len(met)
    every = names(contracts)
    clients = [name for name in every if name.startswith("client-")]
    assert sorted([*met, *clients]) == every
    assert (len(every), len(clients), len(wholes), len(streams)) == (215, 28, 37, 22)


def settled(value: Any) -> Any:
    """Without what is made anew for each answer: ids, and times where the server tells none."""
    if isinstance(value, dict):
        return {name: settled(one) for name, one in value.items() if name not in ("id", "created")}
    return [settled(one) for one in value] if isinstance(value, list) else value


def what(result: Result) -> tuple[Any, ...]:
    return result.model, result.usage, settled(result.body), result.vectors, result.errors


def joined(operation: Operation, chunks: Iterable[Chunk]) -> tuple[Any, Any]:
    *pieces, last = chunks
    assert last["choices"] == []
    return settled(fold(operation, pieces)), last["usage"]


def spoken(example: Example) -> Dialect:
    return dialect_named(example.dialect)


async def test_whole_answers(examples: dict[str, Example]) -> None:
    for example in answers(examples, streamed=False):
        request = example.request
        expected = spoken(example).complete(spoken(example).parse(request, example.body), example.headers)
        routes = {("POST", "*"): Reply(example.body, headers=_sendable(example))}
        async with replaying(example.dialect, routes) as (played, caller):
            assert what(await caller.call(request)) == what(expected), example.name
            assert len(played.seen) == 1, example.name


@pytest.mark.parametrize("seed", range(4))
async def test_streams(examples: dict[str, Example], seed: int) -> None:
    for example in answers(examples, streamed=True):
        request, raw = example.request, example.body
        parser = spoken(example).parser(request)
        expected = joined(request.operation, [*parser.feed(raw), *parser.close()])
        framed = raw.replace(b"\n", b"\r\n") if seed % 2 else raw
        pieces = cut(framed, Random(f"{example.name} {seed}"))
        routes = {("POST", "*"): Reply(pieces=pieces, headers=_sendable(example))}
        async with replaying(example.dialect, routes) as (_, caller):
            assert joined(request.operation, await taken(caller, request)) == expected, example.name


@pytest.mark.parametrize("how", ["whole", "streamed"])
async def test_errors(examples: dict[str, Example], how: str) -> None:
    """Status, class, whether it may be tried again and when, and the words."""
    for name, kind in ERRORS.items():
        example = examples[name]
        request = _askable(example)
        if how == "streamed" and request.operation is Operation.EMBEDDINGS:
            continue
        routes = {("POST", "*"): Reply(example.body, example.status, _sendable(example))}
        async with replaying(example.dialect, routes) as (_, caller):
            with pytest.raises(K9Error) as caught:
                await (taken(caller, request) if how == "streamed" else caller.call(request))
        error = caught.value
        assert type(error) is kind, name
        assert (error.status, error.retryable) == SEEN_AS[kind], name
        assert error.retry_after == WAITS.get(name), name
        pure = spoken(example).error(example.status, example.headers, example.body)
        assert error.message == discreet(pure, request).message, name
        assert not any(secret in error.message for secret in ("sk-test", "sk-ant", "azkey", "<html")), name


@pytest.mark.parametrize("seed", range(4))
async def test_broken_streams(examples: dict[str, Example], seed: int) -> None:
    for name, kind in STREAM_ERRORS.items():
        example = examples[name]
        pieces = cut(example.body, Random(f"{name} {seed}"))
        ending = example.reply["end"]
        routes = {("POST", "*"): Reply(pieces=pieces, ending=ending, headers=_sendable(example))}
        async with replaying(example.dialect, routes) as (_, caller):
            with pytest.raises(K9Error) as caught:
                await taken(caller, example.request)
        assert type(caught.value) is kind, name


async def test_successes_that_answer_nothing(examples: dict[str, Example]) -> None:
    for name in NO_ANSWERS:
        example = examples[name]
        async with replaying(example.dialect, {("POST", "*"): Reply(example.body)}) as (_, caller):
            with pytest.raises(BackendError):
                await caller.call(_askable(example))


async def test_models(examples: dict[str, Example]) -> None:
    for name in MODELS:
        example = examples[name]
        async with replaying(example.dialect, {("GET", "*"): Reply(example.body)}) as (_, caller):
            listed = await caller.models()
        assert set(listed) == set(spoken(example).parse_models(example.body)), name
        assert bool(listed) is (name != "azure-models")


async def test_loads(examples: dict[str, Example]) -> None:
    for name in LOADS:
        example = examples[name]
        routes = {("GET", "*"): Reply(example.body, headers=_sendable(example))}
        async with replaying(example.dialect, routes) as (played, _):
            assert played.backend
            alone = HttpCaller(played.backend, played.backend.servers[0], spoken(example))
            load = await alone.load()
            await alone.close()
        assert load == spoken(example).parse_load(example.body), name
        assert load != Load(), name


def _askable(example: Example) -> Any:
    """A request that the dialect sends, although the example is one that its server refuses."""
    request = example.request
    if request.operation is not Operation.EMBEDDINGS:
        return request
    return type(request)(request.operation, request.model, {"model": request.model, "input": "Hi"})


def _sendable(example: Example) -> dict[str, str]:
    """The headers of the example that are not the transport's own."""
    own = ("content-length", "transfer-encoding", "connection", "content-encoding")
    return {name.lower(): value for name, value in example.headers.items() if name.lower() not in own}
