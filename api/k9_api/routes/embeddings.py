"""`POST /v1/embeddings`."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from k9_api.dialects.openai.shapes import EmbeddingBody
from k9_api.routes.describe import json_body
from k9_api.walk import infer
from k9_broker.requests import Operation

router = APIRouter(tags=["openai"])


@router.post("/v1/embeddings", openapi_extra=json_body(EmbeddingBody))
async def embeddings(request: Request) -> Response:
    """OpenAI's embeddings of strings or token ids, as floats or base64."""
    return await infer(request, Operation.EMBEDDINGS)
