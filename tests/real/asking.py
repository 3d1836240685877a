"""Asking a caller as a worker does, with no queue before it."""

from __future__ import annotations

from typing import Any

from k9_broker.ports import Caller
from k9_broker.requests import InferenceRequest


async def answer_of(caller: Caller, request: InferenceRequest, stream: bool) -> Any:
    """The answer, asked for in chunks or as a whole."""
    if stream:
        return [chunk async for chunk in caller.stream(request)]
    return await caller.call(request)
