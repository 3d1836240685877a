"""Decisions that take long are made beside the event loop."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from fleets import chat, embeddings, fleet
from k9_api.auth import Keys
from k9_api.context import Broker, Context
from k9_api.standing import Standings
from k9_broker.policy import Policy
from k9_broker.requests import InferenceRequest
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.engine import Router


class Watched(Router):
    thread = ""

    def decide(self, request: InferenceRequest, snapshot: Snapshot) -> Decision:
        self.thread = threading.current_thread().name
        return super().decide(request, snapshot)


@pytest.mark.parametrize(
    ("asked", "beside"),
    [
        (chat("hello"), False),
        (chat("hello " * 20_000), True),
        (embeddings(["a short text"] * 2000), True),
        (embeddings([list(range(100))] * 2000), False),
    ],
    ids=["short", "long", "many", "token-ids"],
)
async def test_long_and_many_texts_are_looked_through_in_a_thread(
    asked: InferenceRequest, beside: bool
) -> None:
    router = Watched(Policy())
    here = Context(cast(Broker, None), router, cast(Keys, None), 0, cast(Standings, None))
    await here.decide(asked, fleet())
    assert (router.thread != threading.current_thread().name) is beside
