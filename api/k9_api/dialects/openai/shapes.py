"""The shapes a request body must have: only what would otherwise fail later, somewhere less clear.

Unknown fields pass, because backends have parameters of their own. Types are strict: `"yes"` is
no boolean. Lists stop at their first bad item, so that a bad body cannot cost memory.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, Field, TypeAdapter
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12

from k9_api.dialects.controls import Controls
from k9_api.dialects.fields import CLOSED, LOOSE, Count, ModelName, Number, Seconds, Share, Text
from k9_broker.requests import Operation

MAX_INPUTS = 2048
"""Embedding inputs in one interactive request, as OpenAI has it."""

Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, fail_fast=True)]
Texts = Annotated[list[Text], Field(min_length=1, fail_fast=True)]
TokenLists = Annotated[list[Tokens], Field(min_length=1, fail_fast=True)]


class Part(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    type: Required[Text]


class Message(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    role: Required[Text]
    content: str | Annotated[list[Part], Field(min_length=1, fail_fast=True)] | None
    tool_calls: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None


def _has_content(message: Message) -> Message:
    # Only an assistant may say nothing: its turn can consist of tool calls.
    if message.get("content") is None and message["role"] != "assistant":
        raise PydanticCustomError("no_content", "needs a content")
    return message


class Function(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    name: Required[Text]
    parameters: dict[str, Any] | None


class Tool(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    type: Required[Text]
    function: Function


class StreamOptions(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    include_usage: bool | None


class _Body(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    model: Required[ModelName]
    k9: Controls | None


class _Generation(_Body, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    stream: bool | None
    stream_options: StreamOptions | None
    max_tokens: Annotated[int, Field(ge=0)] | None
    n: Annotated[int, Field(ge=1, le=128)] | None
    temperature: Annotated[Number, Field(ge=0)] | None
    top_p: Share | None
    frequency_penalty: Number | None
    presence_penalty: Number | None
    seed: int | None
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None
    logit_bias: dict[str, Any] | None


class ChatBody(_Generation, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    messages: Required[
        Annotated[list[Annotated[Message, AfterValidator(_has_content)]], Field(min_length=1, fail_fast=True)]
    ]
    max_completion_tokens: Count | None
    tools: Annotated[list[Tool], Field(fail_fast=True)] | None
    tool_choice: str | dict[str, Any] | None
    parallel_tool_calls: bool | None
    response_format: dict[str, Any] | None
    logprobs: bool | None
    top_logprobs: Annotated[int, Field(ge=0)] | None


class CompletionBody(_Generation, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    prompt: Required[str | Annotated[list[str], Field(min_length=1, fail_fast=True)] | Tokens | TokenLists]
    logprobs: Annotated[int, Field(ge=0)] | None


class EmbeddingBody(_Body, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    input: Required[Text | Texts | Tokens | TokenLists]
    encoding_format: Literal["float", "base64"] | None
    dimensions: Count | None


class JobBody(TypedDict, total=False):
    """The body of `POST /v1/jobs`."""

    __pydantic_config__ = CLOSED  # type: ignore[misc]
    endpoint: Required[Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]]
    body: Required[dict[str, Any]]
    priority: Literal["interactive", "batch"] | None
    deadline: Seconds | None
    queue: Literal["wait", "refuse"] | None
    partial: bool | None


BODIES: dict[Operation, TypeAdapter[Any]] = {
    Operation.CHAT: TypeAdapter(ChatBody),
    Operation.COMPLETIONS: TypeAdapter(CompletionBody),
    Operation.EMBEDDINGS: TypeAdapter(EmbeddingBody),
}
JOB: TypeAdapter[Any] = TypeAdapter(JobBody)

ENDPOINTS = {
    Operation.CHAT: "/v1/chat/completions",
    Operation.COMPLETIONS: "/v1/completions",
    Operation.EMBEDDINGS: "/v1/embeddings",
}
