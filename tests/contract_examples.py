"""The contract examples, and what the failures among them mean: one truth for every suite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k9_broker import errors
from k9_broker.requests import InferenceRequest, Operation

Kind = type[errors.K9Error]

ERRORS: Mapping[str, Kind] = {
    "openai-error-400-context-length": errors.ContextTooLong,
    "openai-error-400-unsupported-value": errors.UnsupportedParameter,
    "openai-error-401": errors.BackendCredentials,
    "openai-error-404-embedding-model": errors.ModelNotFound,
    "openai-error-404-model": errors.ModelNotFound,
    "openai-error-429-quota": errors.BackendQuotaExceeded,
    "openai-error-429-rate-limit": errors.BackendRateLimited,
    "openai-error-500": errors.BackendError,
    "openai-error-502-html": errors.BackendError,
    "openai-error-503": errors.BackendOverloaded,
    "vllm-error-400-content-type": errors.BadRequest,
    "vllm-error-400-context": errors.ContextTooLong,
    "vllm-error-400-legacy": errors.ContextTooLong,
    "vllm-error-400-validation": errors.BadRequest,
    "vllm-error-401": errors.BackendCredentials,
    "vllm-error-401-x-api-key": errors.BackendCredentials,
    "vllm-error-404-model": errors.ModelNotFound,
    "vllm-error-404-model-retrieve": errors.BadRequest,
    "vllm-error-404-route": errors.BadRequest,
    "vllm-error-500": errors.BackendError,
    "vllm-error-503-queue": errors.BackendOverloaded,
    "vllm-error-503-tokens": errors.BackendOverloaded,
    "vllm-health-503": errors.BackendOverloaded,
    "llamacpp-error-400-context": errors.ContextTooLong,
    "llamacpp-error-401": errors.BackendCredentials,
    "llamacpp-error-501-metrics": errors.UnsupportedParameter,
    "llamacpp-health-loading": errors.BackendOverloaded,
    "ollama-error-400-bad-json": errors.BadRequest,
    "ollama-error-400-context": errors.ContextTooLong,
    "ollama-error-400-embed-context": errors.ContextTooLong,
    "ollama-error-400-embed-tokens": errors.BadRequest,
    "ollama-error-400-no-body": errors.BadRequest,
    "ollama-error-400-no-model": errors.BadRequest,
    "ollama-error-400-no-tools": errors.UnsupportedParameter,
    "ollama-error-400-think": errors.UnsupportedParameter,
    "ollama-error-404-model": errors.ModelNotFound,
    "ollama-error-500": errors.BackendError,
    "ollama-error-503-queue": errors.BackendOverloaded,
    "ollama-v1-error-404": errors.ModelNotFound,
    "ollama-v1-messages-error-404": errors.ModelNotFound,
    "tgi-error-401": errors.BackendCredentials,
    "tgi-error-413": errors.BodyTooLarge,
    "tgi-error-422-deserialize": errors.BadRequest,
    "tgi-error-422-tools-and-format": errors.BadRequest,
    "tgi-error-422-validation": errors.ContextTooLong,
    "tgi-error-424": errors.BackendError,
    "tgi-error-429": errors.BackendOverloaded,
    "tgi-error-500": errors.BackendError,
    "tgi-health-503": errors.BackendOverloaded,
    "tei-error-422-length": errors.ContextTooLong,
    "tei-error-429": errors.BackendOverloaded,
    "tei-v1-error-422-batch-size": errors.BadRequest,
    "azure-error-400-content-filter": errors.ContentFiltered,
    "azure-error-401": errors.BackendCredentials,
    "azure-error-404-deployment": errors.ModelNotFound,
    "azure-error-404-resource": errors.BadRequest,
    "azure-error-429": errors.BackendRateLimited,
    "anthropic-error-400": errors.BadRequest,
    "anthropic-error-400-context": errors.ContextTooLong,
    "anthropic-error-400-effort": errors.UnsupportedParameter,
    "anthropic-error-400-sampling-removed": errors.UnsupportedParameter,
    "anthropic-error-401": errors.BackendCredentials,
    "anthropic-error-402": errors.BackendQuotaExceeded,
    "anthropic-error-403": errors.BackendCredentials,
    "anthropic-error-404-model": errors.ModelNotFound,
    "anthropic-error-413": errors.BodyTooLarge,
    "anthropic-error-429": errors.BackendRateLimited,
    "anthropic-error-500": errors.BackendError,
    "anthropic-error-504": errors.BackendTimeout,
    "anthropic-error-529": errors.BackendOverloaded,
}
"""The exact class of every example with an error status."""

WAITS: Mapping[str, float] = {
    "openai-error-429-rate-limit": 1.2,
    "openai-error-503": 1.0,
    "azure-error-429": 37.0,
    "anthropic-error-429": 21.0,
}
"""Seconds to wait, where an error tells."""

STREAM_ERRORS: Mapping[str, Kind] = {
    "openai-stream-truncated": errors.StreamTruncated,
    "openai-stream-reset": errors.StreamTruncated,
    "ollama-v1-stream-error-mid": errors.StreamTruncated,
    "openai-stream-error-mid": errors.BackendError,
    "vllm-stream-error-mid": errors.BackendError,
    "ollama-stream-error-mid": errors.BackendError,
    "tgi-chat-stream-error-overloaded": errors.BackendOverloaded,
    "tgi-stream-error-overloaded": errors.BackendOverloaded,
    "anthropic-stream-error-overloaded": errors.BackendOverloaded,
}
"""Streams of status 200 that are no answers."""

NO_ANSWERS = ("ollama-chat-load", "ollama-chat-unload", "ollama-embed-empty")
"""Successes of a server that answer nothing."""

_DIALECTS = {"llamacpp": "llama.cpp", "tei": "tgi"}
"""The dialects of families that are not named alike."""

_OPERATIONS = {
    "/v1/chat/completions": Operation.CHAT,
    "/v1/messages": Operation.CHAT,
    "/api/chat": Operation.CHAT,
    "/v1/completions": Operation.COMPLETIONS,
    "/api/generate": Operation.COMPLETIONS,
    "/generate": Operation.COMPLETIONS,
    "/generate_stream": Operation.COMPLETIONS,
    "/": Operation.COMPLETIONS,
    "/v1/embeddings": Operation.EMBEDDINGS,
    "/api/embed": Operation.EMBEDDINGS,
    "/embed": Operation.EMBEDDINGS,
}
"""Where a server is asked, and for what."""


def names(contracts: Path) -> list[str]:
    """Every entry: exchanges and clients' requests by their names, files of lines by their files'."""
    folder = contracts / "examples"
    return sorted([path.stem for path in folder.glob("*.json")] + [p.name for p in folder.glob("*.jsonl")])


def errors_of(*families: str) -> dict[str, Kind]:
    return {name: kind for name, kind in ERRORS.items() if name.partition("-")[0] in families}


class Example:
    """One exchange of the contract."""

    def __init__(self, path: Path) -> None:
        data = json.loads(path.read_text("utf-8"))
        self.name: str = data["name"]
        self.family = self.name.partition("-")[0]
        self.method: str = data["request"]["method"]
        self.sent: dict[str, Any] = data["request"].get("json") or {}
        self.reply: dict[str, Any] = data.get("response") or {}
        self.status: int = self.reply.get("status", 0)
        self.headers: dict[str, str] = self.reply.get("headers") or {}
        self.streamed = "stream_file" in self.reply
        self.folder = path.parent
        where = data["request"]["path"].partition("?")[0]
        if "/deployments/" in where:
            where = "/v1/" + where.partition("/deployments/")[2].partition("/")[2]
        self.path: str = where
        self.operation = _OPERATIONS.get(where) if self.method == "POST" else None

    @property
    def dialect(self) -> str:
        """The dialect K-9 speaks to such a server; servers have OpenAI's surface besides."""
        if self.name.startswith("ollama-v1-") or (self.path == "/v1/completions" and self.family == "tgi"):
            return "openai-compatible"
        return _DIALECTS.get(self.family, self.family)

    @property
    def body(self) -> bytes:
        if self.streamed:
            return (self.folder / self.reply["stream_file"]).read_bytes()
        if "json" in self.reply:
            return json.dumps(self.reply["json"]).encode()
        return str(self.reply.get("text", "")).encode()

    @property
    def request(self) -> InferenceRequest:
        """What K-9 would have been asked: no more of it than the answer depends on."""
        operation = self.operation or Operation.CHAT
        body: dict[str, Any] = {"model": "asked/for", "stream": self.streamed}
        if operation is Operation.EMBEDDINGS:
            given = self.sent.get("inputs", self.sent.get("input"))
            dimensions = {"dimensions": self.sent["dimensions"]} if "dimensions" in self.sent else {}
            body = {"model": "asked/for", "input": given, **dimensions}
        elif operation is Operation.COMPLETIONS:
            body["prompt"] = "Hi"
        else:
            body["messages"] = [{"role": "user", "content": "Hi"}]
        return InferenceRequest(operation, "asked/for", body)


def examples_of(contracts: Path) -> dict[str, Example]:
    """Every exchange; clients' requests, which have no answer, are not among them."""
    paths = sorted((contracts / "examples").glob("*.json"))
    return {path.stem: Example(path) for path in paths if not path.name.startswith("client-")}
