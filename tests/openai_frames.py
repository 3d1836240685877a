"""Streams in OpenAI's format, put together and read by the openai-compatible dialect."""

from __future__ import annotations

import json
from typing import Any

from k9_broker.dialects.openai.dialect import OpenAICompatible
from k9_broker.requests import InferenceRequest, Operation

DIALECT = OpenAICompatible()
CHAT = InferenceRequest(Operation.CHAT, "m", {"messages": []})


def replay(frames: list[Any], request: InferenceRequest = CHAT, *, done: bool = True) -> list[dict[str, Any]]:
    parser = DIALECT.parser(request)
    raw = "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames) + ("data: [DONE]\n\n" if done else "")
    return [dict(chunk) for chunk in [*parser.feed(raw.encode()), *parser.close()]]


def frame(delta: dict[str, Any] | None = None, reason: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": reason}], **more}
