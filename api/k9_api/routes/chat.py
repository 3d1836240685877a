"""`POST /v1/chat/completions`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from k9_api.dialects.openai.shapes import ChatBody
from k9_api.routes.describe import json_body
from k9_api.walk import infer
from k9_broker.requests import Operation

router = APIRouter(tags=["openai"])


@router.post("/v1/chat/completions", openapi_extra=json_body(ChatBody))
async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completions, whole or streamed (`stream: true`), tools passed through."""
    return await infer(request, Operation.CHAT)
