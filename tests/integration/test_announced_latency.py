"""A real worker announces how fast its backend is, and says so soon when that changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from k9_broker.adapters import keys
from k9_broker.backends import Announcement
from k9_broker.models import Latency
from stack import Stack, ask
from stand import wait_until


def announced(stack: Stack) -> Announcement:
    raw = stack.redis.client.get(keys.worker("k9-w1@test"))
    assert isinstance(raw, bytes)
    return Announcement.model_validate_json(raw)


def latency(stack: Stack, model: str = "fake-chat") -> Latency | None:
    return announced(stack).latencies.get(model)


def stream(stack: Stack) -> int:
    body = {"model": "fake-chat", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    status, _, _ = ask(f"{stack.url}/v1/chat/completions", body)
    return status


@contextmanager
def under_way(stack: Stack, callers: int) -> Iterator[None]:
    """So many callers, each with one stream after the other."""
    enough = threading.Event()

    def call() -> None:
        while not enough.is_set():
            stream(stack)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def test_the_announcement_follows_the_backend(own_stack: Stack) -> None:
    own_stack.fake.behave(first_token_ms=200, tokens_per_second=50)
    for _ in range(3):
        assert stream(own_stack) == 200
    usual = wait_until(lambda: latency(own_stack), "a latency is announced")
    assert isinstance(usual, Latency)
    assert 0.15 < usual.ttft < 0.4
    assert 0.015 < usual.tpot < 0.04

    def ttft() -> float:
        said = latency(own_stack)
        return said.ttft if said else 0.0

    with under_way(own_stack, 2):
        own_stack.fake.behave(first_token_ms=1000, tokens_per_second=10)
        wait_until(lambda: ttft() > 2.5 * usual.ttft, "the slowness is announced", 4)
        own_stack.fake.behave(first_token_ms=200, tokens_per_second=50)
        wait_until(lambda: ttft() < 1.5 * usual.ttft, "the recovery is announced", 8)


def test_failures_are_not_fast_and_cards_are_announced(k9: Stack) -> None:
    cards = announced(k9).cards
    assert set(cards) == {"fake-chat", "fake-embed"}
    assert cards["fake-embed"].tags == ("embedding",)
    body = {"model": "fake-embed", "input": ["a", "b"]}
    k9.fake.behave(latency_ms=200)
    for _ in range(3):
        assert ask(f"{k9.url}/v1/embeddings", body)[0] == 200
    k9.fake.behave(fail_next=8, error_status=400)
    for _ in range(8):
        assert ask(f"{k9.url}/v1/embeddings", body)[0] >= 400

    def slow() -> Latency | None:
        said = latency(k9, "fake-embed")
        return said if said and said.ttft > 0.08 else None  # the errors came within a few milliseconds

    said = wait_until(slow, "the latency of the calls that succeeded is announced")
    assert isinstance(said, Latency)
    assert said.tpot == 0.0
