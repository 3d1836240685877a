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
