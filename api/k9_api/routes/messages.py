"""`POST /v1/messages` and `POST /v1/messages/count_tokens`: Anthropic's API."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from k9_api.context import context
from k9_api.dialects.anthropic import ingress
from k9_api.dialects.anthropic.shapes import CountBody, MessagesBody
from k9_api.dialects.anthropic.surface import ANTHROPIC
from k9_api.reading import read_body
from k9_api.routes.describe import json_body
from k9_api.walk import infer
from k9_broker.requests import Operation
from k9_broker.tokens import prompt_tokens

router = APIRouter(tags=["anthropic"])


@router.post("/v1/messages", openapi_extra=json_body(MessagesBody))
async def create_message(request: Request) -> Response:
    """Anthropic's messages, whole or streamed (`stream: true`), on any backend.

    Both API versions are spoken, and what `anthropic-version: 2026-10-21` has removed is refused with
    it. Tools that run at Anthropic, MCP servers and containers are refused by name. The header
    `anthropic-beta` has no effect.
    """
    return await infer(request, Operation.CHAT, ANTHROPIC)


@router.post("/v1/messages/count_tokens", openapi_extra=json_body(CountBody))
async def count_tokens(request: Request) -> Response:
    """K-9's estimate of the tokens of a prompt, from its length and script: the same that routing uses.

    No tokenizer is asked, because which backend will answer is not decided yet; the `usage` of an
    answer is what the backend has counted.
    """
    here = context(request)
    tenant = here.keys.tenant(request)
    raw = await read_body(request, here.max_body_bytes)
    asked = ingress.parse_count(raw, request.scope["headers"], tenant)
    return Response(to_json({"input_tokens": prompt_tokens(asked).likely}), media_type="application/json")
