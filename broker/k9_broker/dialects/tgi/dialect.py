"""The dialect `tgi`: Hugging Face's text-generation-inference, and TEI, its sister for embeddings.

Chat goes to TGI's chat route, plain completions to its own `/generate`, embeddings to TEI. One server is
one of the two; `/info` tells which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import to_json

from k9_broker.dialects import wire_errors
from k9_broker.dialects.base import (
    JSON_HEADERS,
    Dialect,
    Options,
    StreamParser,
    WireRequest,
    json_value,
    unreadable,
)
from k9_broker.dialects.exposition import total
from k9_broker.dialects.finish_reasons import finish_reason
from k9_broker.dialects.openai.dialect import OpenAICompatible
from k9_broker.dialects.tgi import tei
from k9_broker.dialects.tgi.request import chat_body, generate_body, stops
from k9_broker.dialects.tgi.stream import (
    TgiChatStream,
    TgiGenerateStream,
    chat_head,
    details_usage,
    text_head,
    without_stop,
)
from k9_broker.errors import BackendError, K9Error
from k9_broker.health import Load
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Result

_OPENAI = OpenAICompatible()


class Tgi(Dialect):
    """Stateless. Backend options:

    - `adapters`: the names of LoRA adapters. A request for one of them is answered with it; every other
      name stands for the model the server serves, since TGI itself tells no name from another;
    - `image_urls`: `true` lets it fetch images by URL, from inside the operator's network;
    - `normalize`, `truncate`, `truncation_direction`, `prompt_name`: TEI's own words;
    - anything else is a default for text requests, such as `repetition_penalty`, where the operation
      knows it: the caller's own value wins.
    """

    operations = frozenset(Operation)
    max_inputs = tei.MAX_INPUTS

    def headers(self, key: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"} if key else {}

    def build(self, request: InferenceRequest, options: Options) -> WireRequest:
        if request.operation is Operation.EMBEDDINGS:
            return tei.embeddings_request(request, options)
        if request.operation is Operation.CHAT:
            path, body = "/v1/chat/completions", chat_body(request, options)
        else:
            path = "/generate_stream" if request.stream else "/generate"
            body = generate_body(request, options)
        return WireRequest("POST", path, to_json(body), JSON_HEADERS)

    def parse(self, request: InferenceRequest, body: bytes) -> Result:
        if request.operation is Operation.EMBEDDINGS:
            return tei.parse_embeddings(request, body)
        if request.operation is Operation.COMPLETIONS:
            return _completion(request, body)
        result = _OPENAI.parse(request, body)
        answer = dict(result.body or {})
        answer["choices"] = [_without_stop(choice, stops(request.body)) for choice in answer["choices"]]
        head = chat_head(answer, request.model, streamed=False)
        return replace(result, model=head["model"], body={**answer, **head})

    def complete(self, result: Result, headers: Mapping[str, str]) -> Result:
        """`result` with the tokens that a native answer tells in its headers only."""
        was = result.usage
        prompt = _header_count(headers, "x-prompt-tokens") or _header_count(headers, "x-compute-tokens")
        written = _header_count(headers, "x-generated-tokens")
        usage = replace(was, prompt=was.prompt or prompt, completion=was.completion or written)
        if usage == was:
            return result
        body = None if result.body is None else {**result.body, "usage": usage.openai()}
        return replace(result, usage=usage, body=body)

    def parser(self, request: InferenceRequest) -> StreamParser:
        return TgiChatStream(request) if request.operation is Operation.CHAT else TgiGenerateStream(request)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> K9Error:
        facts = wire_errors.read(status, body)
        if "tool_error" in facts.kind and "failed to parse" in facts.message.lower():
            # Not the request's fault, and the rest of the message is what the model wrote.
            return BackendError(
                "The tool call that the model wrote could not be read; it may have been cut off."
                " Allow it more max_tokens."
            )
        return wire_errors.classify(facts, wire_errors.retry_after(headers))

    def models_request(self, options: Options) -> WireRequest:
        return WireRequest("GET", "/info")

    def parse_models(self, body: bytes) -> Mapping[str, ModelCard]:
        """The one model. TEI's have a `model_type`; one that ranks or classifies is not offered."""
        info = json_value(body)
        name = info.get("model_id") if isinstance(info, dict) else None
        if not (isinstance(name, str) and name):
            raise unreadable("names no model")
        if "model_type" in info:
            return tei.cards(info)
        task = info.get("model_pipeline_tag")
        card = ModelCard(
            operations=(Operation.CHAT, Operation.COMPLETIONS),
            context_window=tei.count(info.get("max_total_tokens")),
            tools=True,
            json_schema=True,
            vision="image" in task if isinstance(task, str) else None,
            streaming=True,
        )
        return {name: card}

    def load_request(self, options: Options) -> WireRequest | None:
        return WireRequest("GET", "/metrics")

    def parse_load(self, body: bytes) -> Load:
        running = total(body, "tgi_batch_current_size")
        waiting = total(body, "tgi_queue_size", "te_queue_size")
        return Load(
            running=None if running is None else max(0, int(running)),
            waiting=None if waiting is None else max(0, int(waiting)),
        )


def _header_count(headers: Mapping[str, str], name: str) -> int:
    """The whole number in a header, or 0."""
    told = next((value for key, value in headers.items() if key.lower() == name), "")
    return int(told) if told.isdecimal() and len(told) < 10 else 0


def _completion(request: InferenceRequest, body: bytes) -> Result:
    """The answer of `/generate`; wrapped in a list where a gateway in front asks for it in that way."""
    answer = json_value(body)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if error := wire_errors.in_band(answer):
        raise error
    text = answer.get("generated_text") if isinstance(answer, dict) else None
    if not isinstance(text, str):
        raise unreadable("has no generated text")
    details = answer.get("details")
    details = details if isinstance(details, dict) else {}
    reason = finish_reason(details.get("finish_reason"), tools=False) or "stop"
    choice: dict[str, Any] = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
    usage = details_usage(details)
    choices = [_without_stop(choice, stops(request.body))]
    made = {**text_head(request.model), "choices": choices, "usage": usage.openai()}
    return Result(request.model, usage, body=made)


def _without_stop(choice: Mapping[str, Any], sequences: list[Any]) -> dict[str, Any]:
    """The choice without the stop string at its end, which is told as vLLM tells it."""
    message = choice.get("message")
    text = message.get("content") if isinstance(message, Mapping) else choice.get("text")
    if choice.get("finish_reason") != "stop" or not isinstance(text, str):
        return dict(choice)
    text, stop = without_stop(text, sequences)
    if stop is None:
        return dict(choice)
    where = {"message": {**message, "content": text}} if isinstance(message, Mapping) else {"text": text}
    return {**choice, **where, "stop_reason": stop}
