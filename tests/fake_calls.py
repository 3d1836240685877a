"""Calls of a fake backend with nothing but a socket between, to see exactly what it does."""

from __future__ import annotations

import http.client
import json
from typing import Any

from k9_broker.testing import FakeServer

Call = tuple[str, Any]
"""A path and the body to post to it."""

SAID = [{"role": "user", "content": "hello there"}]
CHAT: Call = ("/v1/chat/completions", {"model": "fake-chat", "messages": SAID})
STREAM: Call = ("/v1/chat/completions", {"model": "fake-chat", "messages": SAID, "stream": True})
NATIVE: Call = ("/api/chat", {"model": "fake-chat", "messages": SAID})
EMBED: Call = ("/v1/embeddings", {"model": "fake-embed", "input": ["a", "b", "c", "d"]})


def send(fake: FakeServer, call: Call, **headers: str) -> http.client.HTTPConnection:
    """The open connection, before any answer is read."""
    link = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=10)
    link.request("POST", call[0], json.dumps(call[1]), headers)
    return link


def ask(fake: FakeServer, call: Call = CHAT, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and the bytes of the body."""
    link = send(fake, call, **headers)
    try:
        answer = link.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        link.close()


def call(**changes: Any) -> Call:
    """A chat request to the fake with changes."""
    return CHAT[0], {**CHAT[1], **changes}


def get(fake: FakeServer, path: str, **headers: str) -> tuple[int, str, bytes]:
    """Status, content type and the bytes of the body."""
    link = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=10)
    link.request("GET", path, headers=headers)
    answer = link.getresponse()
    data = answer.read()
    link.close()
    return answer.status, answer.getheader("content-type", ""), data


def chunks(fake: FakeServer, **changes: Any) -> list[Any]:
    """The frames of a chat stream; `[DONE]` as that text."""
    status, headers, data = ask(fake, call(stream=True, **changes))
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/event-stream")
    found = [frame.removeprefix(b"data: ") for frame in data.removesuffix(b"\n\n").split(b"\n\n")]
    return [json.loads(each) if each != b"[DONE]" else "[DONE]" for each in found]


def refusal(fake: FakeServer, status: int, asked: Call = CHAT) -> Any:
    """The `error` of an answer that has this status."""
    got, _, data = ask(fake, asked)
    assert got == status, data
    return json.loads(data)["error"]
