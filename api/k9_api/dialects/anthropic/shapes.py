"""The shapes of a Messages request and of its blocks: only what would otherwise fail later, less clearly.

Blocks are checked one by one, by their type, so that an error names the block and nothing else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12

from k9_api.dialects.controls import Controls
from k9_api.dialects.fields import LOOSE, Count, ModelName, Share, Text

Effort = Literal["low", "medium", "high", "xhigh", "max"]


class Block(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    type: Required[Text]
    cache_control: dict[str, Any] | None


Blocks = Annotated[list[Block], Field(fail_fast=True)]


class Turn(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    role: Required[Literal["user", "assistant", "system"]]
    content: Required[str | Blocks]


class Tool(TypedDict, total=False):
    """A tool that the caller runs itself."""

    __pydantic_config__ = LOOSE  # type: ignore[misc]
    type: str | None
    name: Required[Text]
    description: str | None
    input_schema: Required[dict[str, Any]]
    strict: bool | None
    cache_control: dict[str, Any] | None


class ToolChoice(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    type: Required[Literal["auto", "any", "none", "tool"]]
    name: Text
    disable_parallel_tool_use: bool | None


class Thinking(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    type: Required[Literal["enabled", "adaptive", "between_tools", "disabled"]]
    budget_tokens: Annotated[int, Field(ge=1024)] | None
    display: Literal["summarized", "omitted"] | None


class Format(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    type: Required[Literal["json_schema"]]
    schema: Required[dict[str, Any]]


class OutputConfig(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    effort: Effort | None
    format: Format | None


class Metadata(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    user_id: str | None


class CountBody(TypedDict, total=False):
    """The body of `POST /v1/messages/count_tokens`, and all but `max_tokens` of a Messages request."""

    __pydantic_config__ = LOOSE  # type: ignore[misc]
    model: Required[ModelName]
    messages: Required[Annotated[list[Turn], Field(min_length=1, fail_fast=True)]]
    system: str | Blocks | None
    stream: bool | None
    stop_sequences: Annotated[list[Text], Field(fail_fast=True)] | None
    temperature: Share | None
    top_p: Share | None
    top_k: Annotated[int, Field(ge=0)] | None
    tools: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None
    tool_choice: ToolChoice | None
    thinking: Thinking | None
    output_config: OutputConfig | None
    output_format: Format | None
    metadata: Metadata | None
    service_tier: Literal["auto", "standard_only"] | None
    cache_control: dict[str, Any] | None
    k9: Controls | None


class MessagesBody(CountBody, total=False):
    """The body of `POST /v1/messages`."""

    __pydantic_config__ = LOOSE  # type: ignore[misc]
    max_tokens: Required[Count]


class TextBlock(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    text: Required[str]
    citations: list[Any] | None


class Source(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    type: Required[Text]


class SourcedBlock(TypedDict, total=False):
    """An image or a document."""

    __pydantic_config__ = LOOSE  # type: ignore[misc]
    source: Required[Source]
    title: str | None
    context: str | None
    citations: dict[str, Any] | None
    transformations: dict[str, Any] | None


class Base64Source(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    media_type: Required[Text]
    data: Required[Text]


class TextSource(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    data: Required[str]


class UrlSource(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    url: Required[Text]


class ContentSource(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    content: Required[str | Blocks]


class ToolUse(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    id: Required[Text]
    name: Required[Text]
    input: Required[dict[str, Any]]


class ToolResult(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    tool_use_id: Required[Text]
    content: str | Blocks | None
    is_error: bool | None


class ThinkingBlock(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    thinking: Required[str]
    signature: str | None


class RedactedBlock(TypedDict, total=False):
    __pydantic_config__ = LOOSE  # type: ignore[misc]
    data: Required[str]


MESSAGES: TypeAdapter[Any] = TypeAdapter(MessagesBody)
COUNT: TypeAdapter[Any] = TypeAdapter(CountBody)
TOOL: TypeAdapter[Any] = TypeAdapter(Tool)
BLOCKS: dict[str, TypeAdapter[Any]] = {
    "text": TypeAdapter(TextBlock),
    "image": TypeAdapter(SourcedBlock),
    "document": TypeAdapter(SourcedBlock),
    "tool_use": TypeAdapter(ToolUse),
    "tool_result": TypeAdapter(ToolResult),
    "thinking": TypeAdapter(ThinkingBlock),
    "redacted_thinking": TypeAdapter(RedactedBlock),
}
"""The blocks that are understood, by their type."""
SOURCES: dict[str, TypeAdapter[Any]] = {
    "base64": TypeAdapter(Base64Source),
    "url": TypeAdapter(UrlSource),
    "text": TypeAdapter(TextSource),
    "content": TypeAdapter(ContentSource),
}
"""Where images and documents come from, by the type of their source."""
