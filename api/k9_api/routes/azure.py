"""Azure OpenAI's paths: its clients need only another endpoint. A deployment's name is a model's here."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from k9_api.dialects.controls import Headers, header_controls
from k9_api.dialects.decoding import decode
from k9_api.dialects.openai import ingress
from k9_api.dialects.openai.shapes import ChatBody, CompletionBody, EmbeddingBody
from k9_api.dialects.openai.surface import OpenAISurface
from k9_api.routes.describe import json_body
from k9_api.walk import infer
from k9_broker.requests import InferenceRequest, Operation

router = APIRouter(tags=["azure"])


class _Deployment(OpenAISurface):
    """OpenAI's surface with the model in the path; as at Azure, the body's own does not count."""

    def __init__(self, model: str) -> None:
        self._model = model

    def parse(self, operation: Operation, raw: bytes, headers: Headers, tenant: str) -> InferenceRequest:
        body = {**decode(raw), "model": self._model}
        return ingress.check(operation, body, tenant, controls=header_controls(headers))


@router.post("/openai/v1/chat/completions", openapi_extra=json_body(ChatBody))
async def v1_chat(request: Request) -> Response:
    """Azure's v1 API: as `/v1/chat/completions`."""
    return await infer(request, Operation.CHAT)


@router.post("/openai/v1/completions", openapi_extra=json_body(CompletionBody))
async def v1_completions(request: Request) -> Response:
    """Azure's v1 API: as `/v1/completions`."""
    return await infer(request, Operation.COMPLETIONS)


@router.post("/openai/v1/embeddings", openapi_extra=json_body(EmbeddingBody))
async def v1_embeddings(request: Request) -> Response:
    """Azure's v1 API: as `/v1/embeddings`."""
    return await infer(request, Operation.EMBEDDINGS)


@router.post("/openai/deployments/{deployment:path}/chat/completions", openapi_extra=json_body(ChatBody))
async def chat(request: Request, deployment: str) -> Response:
    """Azure's classic API; any `api-version` will do."""
    return await infer(request, Operation.CHAT, _Deployment(deployment))


@router.post("/openai/deployments/{deployment:path}/completions", openapi_extra=json_body(CompletionBody))
async def completions(request: Request, deployment: str) -> Response:
    """Azure's classic API; any `api-version` will do."""
    return await infer(request, Operation.COMPLETIONS, _Deployment(deployment))


@router.post("/openai/deployments/{deployment:path}/embeddings", openapi_extra=json_body(EmbeddingBody))
async def embeddings(request: Request, deployment: str) -> Response:
    """Azure's classic API; any `api-version` will do."""
    return await infer(request, Operation.EMBEDDINGS, _Deployment(deployment))
