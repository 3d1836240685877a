"""Every trap has a test, and streams of every wire read the same however they are cut."""

from __future__ import annotations

import ast
import http.client
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k9_broker.dialects.registry import dialect_named
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.testing import FakeServer
from menagerie import HELLO, TOOLS, USE_BOTH, WIRES

TRAPS = 25


def test_every_trap_has_a_test() -> None:
    found: Counter[int] = Counter()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if number := re.match(r"test_trap_(\d\d)_\w+$", node.name):
                    found[int(number[1])] += 1
                else:
                    assert not node.name.startswith("test_trap")
    assert sorted(found) == list(range(1, TRAPS + 1))


@pytest.fixture(scope="module")
def fakes() -> Iterator[dict[str, FakeServer]]:
    flavours = {flavour for name, (_, flavour) in WIRES.items() if name != "tei"}
    running = {flavour: FakeServer(flavour=flavour) for flavour in flavours}
    yield running
    for fake in running.values():
        fake.stop()


STREAMS: dict[tuple[str, str], bytes] = {}
"""By dialect and what was asked: the bytes of the stream, asked for once."""


def _stream(fakes: dict[str, FakeServer], name: str, ask: str) -> tuple[str, InferenceRequest, bytes]:
    dialect, flavour = WIRES[name]
    body: dict[str, Any] = {"messages": HELLO, "stream": True}
    if ask == "tools":
        body |= {"messages": USE_BOTH, "tools": TOOLS}
    request = InferenceRequest(Operation.CHAT, "fake-chat", body)
    if (name, ask) not in STREAMS:
        wire = dialect_named(dialect).build(request, {})
        link = http.client.HTTPConnection("127.0.0.1", fakes[flavour].port, timeout=10)
        link.request(wire.method, wire.path, wire.body, dict(wire.headers))
        STREAMS[name, ask] = link.getresponse().read()
        link.close()
    return dialect, request, STREAMS[name, ask]


def _noisy(raw: bytes, seed: int) -> bytes:
    """As other servers would write the same: CRLF, comments, no space after `data:`, no last blank line."""
    chance = random.Random(seed)
    raw = raw.replace(b"\n\n", b"\n\n: a comment\n\n") if chance.random() < 0.5 else raw
    raw = raw.replace(b"data: ", b"data:") if chance.random() < 0.5 else raw
    raw = raw.replace(b"\n", b"\r\n") if chance.random() < 0.5 else raw
    return raw.rstrip() if chance.random() < 0.5 else raw


def _read(dialect: str, request: InferenceRequest, pieces: list[bytes]) -> str:
    """What a stream comes to, without ids that are made up anew each time."""
    parser = dialect_named(dialect).parser(request)
    chunks = [dict(chunk) for piece in pieces for chunk in parser.feed(piece)]
    chunks += [dict(chunk) for chunk in parser.close()]
    text = json.dumps([{**chunk, "id": "", "created": 0} for chunk in chunks], sort_keys=True)
    return re.sub(r"call_[0-9a-f]{24}", "call_", text)


@pytest.mark.parametrize("ask", ["text", "tools"])
@pytest.mark.parametrize("name", [name for name in WIRES if name != "tei"])
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 5000), max_size=20), seed=st.integers(0, 1000))
def test_trap_18_sse_details_change_nothing(
    fakes: dict[str, FakeServer], name: str, ask: str, cuts: list[int], seed: int
) -> None:
    dialect, request, raw = _stream(fakes, name, ask)
    expected = _read(dialect, request, [raw])
    assert "finish_reason" in expected
    noisy = raw if dialect == "ollama" else _noisy(raw, seed)  # NDJSON has no comments
    places = sorted({0, len(noisy), *(cut % (len(noisy) + 1) for cut in cuts)})
    assert _read(dialect, request, [noisy[a:b] for a, b in pairwise(places)]) == expected


@pytest.mark.parametrize("size", [1, 2, 3])
def test_trap_18_sse_characters_are_never_cut_in_two(size: int) -> None:
    request = InferenceRequest(Operation.CHAT, "m", {"messages": HELLO, "stream": True})
    frames: list[Any] = [
        {"choices": [{"index": 0, "delta": {"content": "Grüße 🌍"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "x" * 2_000_000}, "finish_reason": "stop"}]},
    ]
    raw = b"".join(b"data:" + json.dumps(one, ensure_ascii=False).encode() + b"\r\n\r\n" for one in frames)
    head = raw[:200]
    parser = dialect_named("openai-compatible").parser(request)
    chunks = [chunk for at in range(0, 200, size) for chunk in parser.feed(head[at : min(at + size, 200)])]
    chunks += [*parser.feed(raw[200:]), *parser.close()]
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert said == "Grüße 🌍" + "x" * 2_000_000
