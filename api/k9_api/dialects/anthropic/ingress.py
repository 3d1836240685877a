"""Bytes of a Messages request, and K-9's own controls beside it, turned into an `InferenceRequest`.

The same parameters mean the same on every backend: they are translated into OpenAI's words, with
the few that OpenAI does not have (`top_k`, `thinking`, `thinking_blocks`, `cache_control`) as they are.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from k9_api.dialects.anthropic import shapes
from k9_api.dialects.anthropic.options import options_of
from k9_api.dialects.anthropic.turns import messages_of
from k9_api.dialects.anthropic.version import keep_to, version_of
from k9_api.dialects.controls import Headers, controlled, header_controls
from k9_api.dialects.decoding import decode, valid
from k9_api.dialects.openai.shapes import BODIES
from k9_broker.requests import InferenceRequest, Operation


def parse(raw: bytes, headers: Headers, tenant: str) -> InferenceRequest:
    """The request in the body of `POST /v1/messages`; the `k9` object wins over the headers.

    Raises `BadRequest` naming the field.
    """
    return _read(shapes.MESSAGES, raw, headers, tenant)


def parse_count(raw: bytes, headers: Headers, tenant: str) -> InferenceRequest:
    """The request in the body of `POST /v1/messages/count_tokens`, which needs no `max_tokens`."""
    return _read(shapes.COUNT, raw, headers, tenant)


def _read(shape: TypeAdapter[Any], raw: bytes, headers: Headers, tenant: str) -> InferenceRequest:
    headers = list(headers)
    body = decode(raw)
    valid(shape, body)
    keep_to(version_of(headers), body)
    canonical = {**options_of(body), "messages": messages_of(body)}
    valid(BODIES[Operation.CHAT], canonical)  # fields of OpenAI's that passed must be right as well
    said = body.get("k9") or {}
    return controlled(Operation.CHAT, canonical, tenant, said=said, controls=header_controls(headers))
