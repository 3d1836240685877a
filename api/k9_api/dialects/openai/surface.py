"""OpenAI's surface: chat, completions and embeddings."""

from __future__ import annotations

from pydantic_core import to_json

from k9_api.dialects.controls import Headers
from k9_api.dialects.openai import egress, ingress
from k9_api.dialects.surface import StreamWriter
from k9_api.errors import error_object
from k9_api.frames import frame
from k9_broker.errors import K9Error
from k9_broker.jobs import Job
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Chunk, Result

DONE = b"data: [DONE]\n\n"


class OpenAISurface:
    """A `Surface`."""

    keep_alive = b": waiting\n\n"
    """A comment, which every reader of server-sent events skips."""
    request_id_headers = (b"x-request-id",)

    def parse(self, operation: Operation, raw: bytes, headers: Headers, tenant: str) -> InferenceRequest:
        return ingress.parse(operation, raw, headers, tenant)

    def whole(self, asked: InferenceRequest, job: Job, result: Result) -> bytes:
        base64 = asked.body.get("encoding_format") == "base64"
        return egress.answer(job, result, "base64" if base64 else "float")

    def stream(self, asked: InferenceRequest, job: Job) -> StreamWriter:
        return _Frames(egress.Chunks(job, include_usage=asked.include_usage))

    def error(self, error: K9Error, request_id: str) -> bytes:
        return to_json({"error": error_object(error)})

    def error_frame(self, error: K9Error, request_id: str) -> bytes:
        return frame(self.error(error, request_id))


class _Frames:
    """A `StreamWriter`: one frame for each chunk."""

    def __init__(self, chunks: egress.Chunks) -> None:
        self._chunks = chunks

    def write(self, chunk: Chunk) -> bytes | None:
        data = self._chunks.write(chunk)
        return None if data is None else frame(data)

    def close(self) -> bytes:
        return DONE


OPENAI = OpenAISurface()
