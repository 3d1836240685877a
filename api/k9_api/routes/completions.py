"""`POST /v1/completions`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from k9_api.dialects.openai.shapes import CompletionBody
from k9_api.routes.describe import json_body
from k9_api.walk import infer
from k9_broker.requests import Operation

router = APIRouter(tags=["openai"])


@router.post("/v1/completions", openapi_extra=json_body(CompletionBody))
async def completions(request: Request) -> Response:
    """OpenAI's text completions, whole or streamed."""
    return await infer(request, Operation.COMPLETIONS)
