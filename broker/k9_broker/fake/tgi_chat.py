"""`/v1/*` as TGI has it: OpenAI's shape with habits of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import from_json, to_json

from k9_broker.fake.answers import Answer, Question, ToolCall
from k9_broker.fake.openai_asks import chat_question
from k9_broker.fake.openai_wire import Choice, OpenAIWire
from k9_broker.fake.script import EPOCH, Call, Headers, Refused, Reply, Script
from k9_broker.fake.tgi_words import (
    STREAM_HEADERS,
    VERSION,
    TgiServer,
    answer_headers,
    error,
    unread,
    within,
)

_FORMATS = ("json", "json_object", "json_schema", "regex")


class TgiChatWire(TgiServer, OpenAIWire):
    """One model, whatever name is asked for; tool calls by force of grammar, one at most."""

    stream_type = "text/event-stream"
    tells_limits = False

    def __init__(self) -> None:
        super().__init__()
        self.operations = {"/v1/chat/completions": self.chat, "/v1/completions": self.completions}

    # -- answers ------------------------------------------------------------------------------------

    def model(self, call: Call) -> str:
        name = call.body.get("model")
        return str(name) if name not in (None, "tgi") else call.behaviour.served

    def chat(self, call: Call) -> Script:
        call = replace(call, body=_as_openai(call.body))
        _check(call, chat_question(_unbounded(call)))
        return super().chat(_unbounded(call))

    def completions(self, call: Call) -> Script:
        _as_openai(call.body)
        script = super().completions(_unbounded(call))
        within(call, script.prompt, call.body.get("max_tokens"))
        return script

    def chat_base(self, name: str, question: Question) -> dict[str, Any]:
        base = {"object": "chat.completion.chunk", "id": "", "created": EPOCH, "model": name}
        return base | {"system_fingerprint": f"{VERSION}-native"}

    def text_base(self, name: str, question: Question) -> dict[str, Any]:
        return {**self.chat_base(name, question), "object": "text_completion"}

    def usage(self, prompt: int, answers: list[Answer]) -> dict[str, Any]:
        completion = sum(each.tokens + (each.finish == "stop") for each in answers)
        return {
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion
        }  # fmt: skip

    def message(self, answer: Answer) -> dict[str, Any]:
        if not answer.calls:
            return {"role": "assistant", "content": answer.text}
        call = answer.calls[0]
        return {"role": "assistant", "tool_calls": [self.call(call, "".join(call.pieces))]}

    def call(self, call: ToolCall, arguments: str) -> dict[str, Any]:
        """The id is always `0`."""
        function = {"description": None, "name": call.name, "arguments": arguments}
        return {"id": "0", "type": "function", "function": function}

    def deltas(self, answer: Answer) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The role is in every delta, and so are the id and the type of a call."""
        for due, piece in enumerate(answer.pieces, 1):
            yield due, {"role": "assistant", "content": piece}
        for call in answer.calls[:1]:
            for due, piece in enumerate(call.pieces, 2):
                function = {"name": call.name if due == 2 else None, "arguments": piece}
                told = {"index": 0, "id": "0", "type": "function", "function": function}
                yield due, {"role": "assistant", "tool_calls": [told]}

    def finish(self, answer: Answer, named: bool) -> str:
        if answer.stopped:
            return "stop_sequence"
        return "stop" if answer.calls else answer.finish

    def endings(self, index: int, answer: Answer, named: bool) -> Iterator[Choice]:
        """A stream of a tool call just ends."""
        if not answer.calls:
            delta = {"role": "assistant", "content": ""}
            ending = {"index": index, "delta": delta, "logprobs": None}
            yield answer.tokens + 1, {**ending, "finish_reason": self.finish(answer, named)}, _UNCOUNTED

    def text_choice(self, index: int, answer: Answer, text: str, last: bool) -> dict[str, Any]:
        """Before the end the reason is empty, not null."""
        choice: dict[str, Any] = {"index": index, "text": text, "logprobs": None}
        return choice | {"finish_reason": self.finish(answer, False) if last else ""}

    def headers(self, question: Question, streamed: bool) -> Headers:
        return STREAM_HEADERS if streamed else answer_headers(question.tokens, 0)

    def usage_chunk(self, base: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
        details = {"prompt_tokens_details": None, "completion_tokens_details": None}
        return {**base, "choices": [], "usage": {**usage, **details}}

    def broken_frames(self) -> bytes:
        """The status in the body is 422 whatever went wrong; `[DONE]` comes after."""
        return _frames_of("Request failed during generation: Server error: the worker died")

    # -- lists and refusals ------------------------------------------------------------------------

    def failed_stream(self, message: str, kind: str) -> Reply:
        return Reply(_frames_of(message), 200, "text/event-stream", STREAM_HEADERS)

    def reworded(self, reply: Reply) -> Reply:
        """OpenAI's words of what is wrong, as text: that is how a body of the wrong shape is refused."""
        if b'"error":{' not in reply.body:
            return reply
        told = from_json(reply.body)["error"]
        return unread(f"{told['param']}: {told['message']}").reply


_UNCOUNTED: Mapping[str, Any] = {}


def _frames_of(message: str) -> bytes:
    told = {"error": {"message": message, "http_status_code": 422}}
    return b"data: " + to_json(told) + b"\n\ndata: [DONE]\n\n"


def _unbounded(call: Call) -> Call:
    """Without OpenAI's limit of the context; TGI has its own words for that."""
    if not call.behaviour.context_tokens:
        return call
    free = call.behaviour.model_copy(update={"context_tokens": 0})
    return replace(call, behaviour=free)


def _check(call: Call, question: Question) -> None:
    if question.tools and question.schema is not None:
        message = "Tool error: Grammar and tools are mutually exclusive"
        raise Refused(error(422, message, "tool_error"))
    within(call, question.tokens, question.max_tokens)


def _as_openai(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request as OpenAI would have it: `stop` was a list, `n` is not known. Raises `Refused`."""
    stop, wanted = body.get("stop"), body.get("response_format")
    if isinstance(stop, str):
        raise unread(f'stop: invalid type: string "{stop}", expected a sequence')
    changed = {name: value for name, value in body.items() if name not in ("n", "response_format")}
    changed |= {"parallel_tool_calls": False, "reasoning_effort": "none"}  # it tells no thought apart
    if isinstance(wanted, dict):
        if wanted.get("type") not in _FORMATS:
            raise unread(f"response_format: unknown variant `{wanted.get('type')}`")
        if "value" not in wanted:
            raise unread("response_format: missing field `value`")
        value = wanted["value"]
        schema = value.get("schema", value) if isinstance(value, dict) else None
        if isinstance(schema, dict):
            changed["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    choice = body.get("tool_choice")
    if isinstance(choice, str) and choice not in ("auto", "none", "required"):
        changed["tool_choice"] = {"type": "function", "function": {"name": choice}}
    return changed
