"""Writes Anthropic's answers: blocks of text, thought and tool calls, whole or as events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import to_json

from k9_broker.fake import anthropic_asks as asks
from k9_broker.fake.allowance import Breach, Levels
from k9_broker.fake.answers import Answer, answer
from k9_broker.fake.anthropic_words import (
    REQUEST,
    error,
    event,
    models,
    rate_headers,
    signature,
    usual,
)
from k9_broker.fake.head import Head
from k9_broker.fake.script import Call, Headers, Refused, Reply, Script
from k9_broker.fake.wire import State, Trouble, Wire

_STREAM = "text/event-stream; charset=utf-8"
_ENDS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_PREFACE = 3
"""Tokens of text before tools that are called without being forced."""


@dataclass(frozen=True, slots=True)
class Block:
    """One content block: whole, as it begins, and the deltas that make it, a token each."""

    whole: Mapping[str, Any]
    start: Mapping[str, Any]
    deltas: tuple[Mapping[str, Any], ...]
    unpaid: int = 0
    """Of the deltas, those at the end that are no token."""


class AnthropicWire(Wire):
    """`/v1/messages` and what belongs to it; a key is taken from either header."""

    keys = (b"x-api-key", b"authorization")
    largest = 32 * 2**20

    def __init__(self) -> None:
        self.operations = {"/v1/messages": _message}
        self.descriptions = {"/v1/messages/count_tokens": _count}

    def version(self, head: Head) -> str | None:
        version = head.header(b"anthropic-version")
        if version is None:
            asks.refuse("anthropic-version: header is required")
        if version not in asks.VERSIONS:
            asks.refuse(f"anthropic-version: {version!r} is not a valid version")
        return version

    def inventory(self, head: Head, state: State) -> Reply | None:
        return models(head, state.behaviour.models)

    def failure(self, trouble: Trouble) -> Reply:
        return usual(trouble.status, trouble.code, trouble.retry_after, trouble.message)

    def unreadable(self, body: bytes, why: str) -> Refused:
        return Refused(error(400, "invalid_request_error", f"The request body is not valid JSON: {why}"))

    def no_route(self, head: Head) -> Reply:
        if head.path in self.operations or head.path in self.descriptions or head.path == "/v1/models":
            return error(405, "invalid_request_error", "Method Not Allowed")
        return error(404, "not_found_error", "Not found")

    def limited(self, breach: Breach, model: str, trouble: Trouble) -> Reply:
        unit = {"requests": "requests", "tokens": "input tokens"}[breach.kind]
        message = (
            f"This request would exceed your organization's rate limit of {breach.limit:,} {unit} per minute."
        )
        return usual(429, None, breach.seconds, message)

    def limit_headers(self, levels: Levels) -> Headers:
        return rate_headers(levels)


def _count(call: Call) -> Reply:
    """`POST /v1/messages/count_tokens`."""
    asks.model(call)
    asks.read_tools(call.body)
    body = {"input_tokens": asks.counted(call).question.tokens}
    return Reply(to_json(body), headers=(("request-id", REQUEST),))


def _message(call: Call) -> Script:
    """`POST /v1/messages`."""
    name, asked = asks.model(call), asks.message(call)
    question = asked.question
    told = answer(question, call.behaviour.answer_tokens)
    if told.calls and question.tool_choice == "auto":
        before = answer(replace(question, tools=(), thinking=0, schema=None), _PREFACE)
        told = replace(told, pieces=before.pieces)
    stop = "stop_sequence" if told.stopped else _ENDS[told.finish]
    ends = {"stop_reason": stop, "stop_sequence": told.stopped}
    blocks = list(_blocks(told))
    head = {"id": f"msg_{question.fingerprint}", "type": "message", "role": "assistant", "model": name}
    headers: Headers = (("request-id", f"req_{question.fingerprint}"),)
    if call.behaviour.retry_after is not None:  # the service tells it with answers too
        headers = (*headers, ("retry-after", f"{call.behaviour.retry_after:g}"))
    usage = _usage(asked)
    sizes: dict[str, Any] = {"tokens": told.tokens, "prompt": question.tokens, "generated": told.tokens}
    if call.body.get("stream") is True:
        frames = [(0, _started(head, usage))]
        frames += _events(blocks, told.tokens)
        spent = {"input_tokens": asked.fresh, "cache_creation_input_tokens": asked.written}
        spent |= {"cache_read_input_tokens": asked.read, "output_tokens": told.tokens}
        frames.append((told.tokens + 1, event("message_delta", delta=ends, usage=spent)))
        frames.append((told.tokens + 1, event("message_stop")))
        return Script(_STREAM, frames, _BROKEN_EVENT, True, headers=headers, remembers=asked.marks, **sizes)
    body = {**head, "content": [block.whole for block in blocks], **ends}
    whole = to_json({**body, "usage": {**usage, "output_tokens": told.tokens, "service_tier": "standard"}})
    return Script(
        "application/json", ((told.tokens, whole),), _BROKEN, headers=headers, remembers=asked.marks, **sizes
    )


def _usage(asked: asks.Asked) -> dict[str, Any]:
    """`input_tokens` are those that the cache neither has nor takes."""
    created = {"ephemeral_5m_input_tokens": asked.written, "ephemeral_1h_input_tokens": 0}
    usage = {"input_tokens": asked.fresh, "cache_creation_input_tokens": asked.written}
    return {**usage, "cache_read_input_tokens": asked.read, "cache_creation": created}


def _blocks(told: Answer) -> Iterator[Block]:
    if told.thoughts:
        thought = "".join(told.thoughts)
        signed = signature(thought)
        deltas: list[Mapping[str, Any]]
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in told.thoughts]
        deltas.append({"type": "signature_delta", "signature": signed})
        whole = {"type": "thinking", "thinking": thought, "signature": signed}
        yield Block(whole, {"type": "thinking", "thinking": "", "signature": ""}, tuple(deltas), unpaid=1)
    if told.pieces:
        pieces = tuple({"type": "text_delta", "text": piece} for piece in told.pieces)
        yield Block({"type": "text", "text": told.text}, {"type": "text", "text": ""}, pieces)
    for call in told.calls:
        head = {"type": "tool_use", "id": call.id.replace("call_", "toolu_"), "name": call.name}
        # The first fragment is empty and stands for the name, a token; without arguments there is none.
        fragments = ("", *call.pieces) if call.arguments else ()
        parts = tuple({"type": "input_json_delta", "partial_json": piece} for piece in fragments)
        unpaid = 0 if fragments else -1 - len(call.pieces)
        yield Block({**head, "input": call.arguments}, {**head, "input": {}}, parts, unpaid)


def _started(head: Mapping[str, Any], usage: Mapping[str, Any]) -> bytes:
    begun = {**head, "content": [], "stop_reason": None, "stop_sequence": None}
    return event("message_start", message={**begun, "usage": {**usage, "output_tokens": 1}})


def _events(blocks: list[Block], tokens: int) -> Iterator[tuple[int, bytes]]:
    """The events of all blocks, each with the number of tokens that exist by then."""
    due = 0
    for index, block in enumerate(blocks):
        yield due, event("content_block_start", index=index, content_block=block.start)
        if not index:
            yield due, b'event: ping\ndata: {"type": "ping"}\n\n'
        paid = len(block.deltas) - block.unpaid
        for at, delta in enumerate(block.deltas, due + 1):
            yield min(at, due + paid), event("content_block_delta", index=index, delta=delta)
        due += paid
        # What closes the last block is the first sign of the end, so that a fault can fall before it.
        closed = due + (index == len(blocks) - 1)
        yield closed, event("content_block_stop", index=index)


_BROKEN = usual(500, None, None).body
_BROKEN_EVENT = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
