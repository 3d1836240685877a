"""The table of every dialect, and a replaying server for any of them."""

from __future__ import annotations

import re
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from conformance.cases import ASKS, Broken, Exchange, Refusal
from conformance.exchanges import (
    anthropic,
    azure,
    llamacpp,
    ollama,
    openai,
    openai_compatible,
    tgi,
    vllm,
)
from k9_broker.requests import InferenceRequest
from k9_broker.results import Chunk
from k9_workers.instances import Instances
from replaying import Replaying, Reply, dump, replaying

TABLES = {
    module.TABLE.dialect: module.TABLE
    for module in (openai, azure, anthropic, ollama, vllm, tgi, llamacpp, openai_compatible)
}
STREAMS_ALL = frozenset({"llama.cpp"})
"""Dialects that ask for whole texts as streams too."""
CASES = [(name, case) for name, table in TABLES.items() for case in table.exchanges]
STREAMS = [
    (name, case)
    for name, table in TABLES.items()
    for case, row in table.exchanges.items()
    if isinstance(row, Exchange) and row.stream
]
ENDS = re.compile(rb'_reason":"[^"]|"done":true|"generated_text":"')
"""How a frame that ends an answer is known."""


def exchange(dialect: str, case: str) -> Exchange:
    row = TABLES[dialect].exchanges[case]
    assert isinstance(row, Exchange)
    return row


def streamed(ask: InferenceRequest) -> InferenceRequest:
    return InferenceRequest(ask.operation, ask.model, {**ask.body, "stream": True})


async def taken(caller: Instances, ask: InferenceRequest) -> list[Chunk]:
    """All chunks of a streamed answer."""
    async with aclosing(caller.stream(streamed(ask))) as chunks:
        return [chunk async for chunk in chunks]


def serving(
    dialect: str, routes: dict[str, Reply | list[Reply]], **settings: Any
) -> AbstractAsyncContextManager[tuple[Replaying, Instances]]:
    """A server that answers `POST` at these paths, and the caller for it."""
    table = TABLES[dialect]
    settings = {"models": table.models_configured, "options": table.options, **settings}
    return replaying(dialect, {("POST", path): reply for path, reply in routes.items()}, **settings)


def whole(found: Exchange) -> Reply:
    return Reply(found.whole, headers=found.headers)


def stream_path(found: Exchange) -> str:
    return found.stream_path or found.path


def stream(found: Exchange, **more: Any) -> Reply:
    return Reply(pieces=[*found.stream], **more)


def before_the_end(found: Exchange) -> int:
    """The byte at which the frame begins that ends the answer."""
    at = 0
    for frame in found.stream:
        if ENDS.search(frame):
            return at
        at += len(frame)
    return at - len(found.stream[-1])  # it tells nothing but that it is done


def where(dialect: str, of: Refusal | Broken) -> tuple[InferenceRequest, str, str]:
    """What is asked, and the paths of the whole and of the streamed answer."""
    found = exchange(dialect, of.case)
    return ASKS[of.case], found.path, stream_path(found)


def refusing(of: Refusal) -> Reply:
    return Reply(of.body if isinstance(of.body, bytes) else dump(of.body), of.status, of.headers)
