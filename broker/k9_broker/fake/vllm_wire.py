"""`/v1/*` and the health, load and metrics routes as vLLM 0.33 has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import from_json, to_json

from k9_broker.fake.answers import Answer, Question, ToolCall
from k9_broker.fake.exposition import exposition
from k9_broker.fake.head import Head
from k9_broker.fake.openai_asks import chat_question, prompt_questions
from k9_broker.fake.openai_wire import Choice, OpenAIWire
from k9_broker.fake.script import EPOCH, Call, Headers, Refused, Reply, Script
from k9_broker.fake.vllm_metrics import metrics
from k9_broker.fake.wire import State, Trouble

VERSION = "0.33.0"
"""The server whose wire format this is."""

CONTEXT = 8192
"""`max_model_len` where the behaviour sets none."""

_METRICS = "text/plain; version=1.0.0; charset=utf-8"
_NULLS = dict.fromkeys(
    ("prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params"), None
) | {"metrics": None}
_FIRST = {"prompt_token_ids": None, "prompt_text": None}
_KINDS = {
    400: ("BadRequestError", "Bad request."),
    404: ("NotFoundError", "Not found."),
    429: ("Too Many Requests", "Rate limit reached. Please try again later."),
    503: (
        "Service Unavailable",
        "The engine is currently busy and cannot accept new requests. "
        "Please try again later or on a different instance.",
    ),
}
_VALIDATED = frozenset(("missing_required_parameter", "invalid_type", "integer_below_min_value"))
"""What the server's request model refuses before the engine sees it."""


def error(
    status: int, message: str, kind: str, param: str | None = None, headers: Headers = ()
) -> Reply:  # fmt: skip
    """vLLM's envelope, whose code is the status."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": status}}
    return Reply(to_json(body), status, headers=headers)


class VllmWire(OpenAIWire):
    """One server with one engine; `slots` is how many requests run at once."""

    null_usage = False
    tells_limits = False
    health = "/health"
    late = True
    open_paths = frozenset(("/health", "/metrics", "/load", "/version", "/ping"))

    # -- answers ------------------------------------------------------------------------------------

    def model(self, call: Call) -> str:
        name = call.body.get("model")
        if isinstance(name, str) and call.model is None:
            aliases = ", ".join(call.behaviour.models)
            message = f"The model `{name}` does not exist. Valid aliases: {aliases}."
            raise Refused(error(404, message, "NotFoundError", "model"))
        return super().model(call)

    def chat(self, call: Call) -> Script:
        _check_options(call)
        self.model(call)
        return super().chat(_clamped(call, chat_question))

    def completions(self, call: Call) -> Script:
        _check_options(call)
        self.model(call)
        return super().completions(_clamped(call, lambda whole: prompt_questions(whole)[0]))

    def chat_base(self, name: str, question: Question) -> dict[str, Any]:
        identity = f"chatcmpl-{question.fingerprint}00000000"
        return {"id": identity, "object": "chat.completion.chunk", "created": EPOCH, "model": name}

    def text_base(self, name: str, question: Question) -> dict[str, Any]:
        identity = f"cmpl-{question.fingerprint}00000000"
        return {"id": identity, "object": "text_completion", "created": EPOCH, "model": name}

    def embeddings_base(self, name: str, data: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        body = {"id": "embd-0000000000000000", "object": "list", "created": EPOCH, "model": name}
        return {**body, "data": data, "usage": _usage(tokens, 0)}

    def usage(self, prompt: int, answers: list[Answer]) -> dict[str, Any]:
        return _usage(prompt, sum(each.tokens for each in answers))

    def message(self, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant", "content": None if answer.calls else answer.text,
            "refusal": None, "annotations": None, "audio": None, "function_call": None,
        }  # fmt: skip
        if answer.calls:
            message["tool_calls"] = [self.call(call, "".join(call.pieces)) for call in answer.calls]
        return message | {"reasoning": "".join(answer.thoughts) or None}

    def call(self, call: ToolCall, arguments: str) -> dict[str, Any]:
        identity = "chatcmpl-tool-" + call.id.removeprefix("call_")[:16]
        function = {"name": call.name, "arguments": arguments}
        return {"id": identity, "type": "function", "function": function}

    def deltas(self, answer: Answer) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for due, thought in enumerate(answer.thoughts, 1):
            yield due, {"reasoning": thought}
        due = len(answer.thoughts)
        for at, piece in enumerate(answer.pieces, due + 1):
            yield at, {"content": piece}
        for index, call in enumerate(answer.calls):
            due += 1
            head = self.call(call, "")
            name = {"name": call.name}
            opened = {"id": head["id"], "type": "function", "index": index, "function": name}
            yield due, {"tool_calls": [opened]}
            for piece in call.pieces:
                due += 1
                yield due, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}

    def beginnings(self, index: int, answer: Answer) -> Iterator[Choice]:
        delta = {"role": "assistant", "content": ""}
        yield 0, {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}, _FIRST

    def delta_choice(self, index: int, delta: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().delta_choice(index, delta), "token_ids": None}

    def endings(self, index: int, answer: Answer, named: bool) -> Iterator[Choice]:
        ending = {"index": index, "delta": {"content": ""}, "logprobs": None}
        ending |= {"finish_reason": self.finish(answer, named), "stop_reason": answer.stopped}
        yield answer.tokens + 1, {**ending, "token_ids": None}, {}

    def chat_choice(self, index: int, answer: Answer, named: bool) -> dict[str, Any]:
        choice = super().chat_choice(index, answer, named)
        more = {"stop_reason": answer.stopped, "token_ids": None}
        return choice | more | {"routed_experts": None, "weight_versions": None}

    def text_choice(self, index: int, answer: Answer, text: str, last: bool) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "text": text, "logprobs": None}
        choice |= {"finish_reason": answer.finish if last else None}
        choice |= {"stop_reason": answer.stopped if last else None, "token_ids": None}
        choice |= {"prompt_logprobs": None, "prompt_token_ids": None}
        return choice | ({"routed_experts": None, "weight_versions": None} if last else {})

    def body(self, base: Mapping[str, Any], choices: list[dict[str, Any]], usage: Any) -> dict[str, Any]:
        service = {"service_tier": None, "system_fingerprint": None}
        nulls = _NULLS
        if base["object"] == "text_completion":
            nulls = {name: None for name in _NULLS if not name.startswith("prompt_")}
        return {**base, "choices": choices, **service, "usage": usage, **nulls}

    def usage_chunk(self, base: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
        counts = {name: count for name, count in usage.items() if count is not None}
        return {**base, "choices": [], "usage": counts, "system_fingerprint": "vllm-0.33.0-fake"}

    def headers(self, question: Question, streamed: bool) -> Headers:
        return ()

    def broken_frames(self) -> bytes:
        """`[DONE]` proves nothing: it comes after an error too."""
        return super().broken_frames() + b"data: [DONE]\n\n"

    # -- lists and refusals ------------------------------------------------------------------------

    def inventory(self, head: Head, state: State) -> Reply | None:
        match head.path:
            case "/v1/models":
                limit = state.behaviour.context_tokens or CONTEXT
                models = [_model(name, limit) for name in state.behaviour.models]
                return Reply(to_json({"object": "list", "data": models}))
            case "/version":
                return Reply(to_json({"version": VERSION}))
            case "/load":
                return Reply(to_json({"server_load": state.active + state.waiting}))
            case "/metrics":
                return Reply(exposition(metrics(state)), content_type=_METRICS)
            case "/ping":
                return self.healthy()
        return None

    def failure(self, trouble: Trouble) -> Reply:
        if trouble.status == 401:
            return Reply(b'{"error":"Unauthorized"}', 401)
        usual = ("InternalServerError", "Internal server error")
        kind, message = _KINDS.get(trouble.status, usual)
        after = () if trouble.retry_after is None else (("retry-after", f"{trouble.retry_after:g}"),)
        return error(trouble.status, trouble.message or message, kind, headers=after)

    def ailing(self, status: int) -> Reply:
        return Reply(b"", status, content_type="")

    def unreadable(self, body: bytes, why: str) -> Refused:
        message = f"1 validation error:\n  {{'type': 'json_invalid', 'loc': 'body', 'msg': '{why}'}}"
        return Refused(error(400, message, "Bad Request", "body"))

    def no_route(self, head: Head) -> Reply:
        """A wrong path and a wrong method look alike."""
        return Reply(b'{"detail":"Not Found"}', 404)

    def reworded(self, reply: Reply) -> Reply:
        told = from_json(reply.body)["error"]
        message, param, kind = told["message"], told["param"], "BadRequestError"
        if told["code"] in _VALIDATED:
            kind, message, param = "Bad Request", f"1 validation error:\n  {message}", f"body.{param}"
        elif told["code"] == "context_length_exceeded":
            param = "input_tokens"
        return error(reply.status, message, kind, param) if isinstance(told["code"], str | None) else reply


def _check_options(call: Call) -> None:
    if call.body.get("stream_options") is not None and call.body.get("stream") is not True:
        message = "Stream options can only be defined when `stream=True`."
        raise Refused(
            Reply(to_json({"error": {"message": message, "param": "stream_options", "code": None}}), 400)
        )


def _clamped(call: Call, read: Callable[[Call], Question]) -> Call:
    """The request with a limit for which there is room. Raises `Refused` if the prompt leaves none."""
    limit = call.behaviour.context_tokens
    if not limit:
        return call
    call = replace(call, behaviour=call.behaviour.model_copy(update={"context_tokens": 0}))
    question = read(call)
    if question.tokens >= limit:
        raise Refused(
            error(
                400,
                f"This model's maximum context length is {limit} tokens. However, your prompt contains at "
                f"least {question.tokens} input tokens, which exceeds this limit even without any output "
                "tokens. Please reduce the length of the input prompt. "
                f"(parameter=input_tokens, value={question.tokens})",
                "BadRequestError",
                "input_tokens",
            )
        )
    wanted = question.max_tokens
    if wanted is not None and wanted > limit:
        message = f"max_tokens={wanted} cannot be greater than max_model_len={limit}."
        raise Refused(error(400, message, "BadRequestError", "max_tokens"))
    room = limit - question.tokens
    clamped = min(wanted or room, room)
    body = {name: value for name, value in call.body.items() if name != "max_completion_tokens"}
    return replace(call, body={**body, "max_tokens": clamped})


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
    return {**counts, "prompt_tokens_details": None, "completion_tokens_details": None}


def _model(name: str, limit: int) -> dict[str, Any]:
    model = {"id": name, "object": "model", "created": EPOCH, "owned_by": "vllm", "root": name}
    permission = {"id": "modelperm-0000", "object": "model_permission", "created": EPOCH}
    permission |= dict.fromkeys(
        ("allow_create_engine", "allow_search_indices", "allow_fine_tuning", "is_blocking"), False
    )
    permission |= dict.fromkeys(("allow_sampling", "allow_logprobs", "allow_view"), True)
    permission |= {"organization": "*", "group": None}
    return {**model, "parent": None, "max_model_len": limit, "permission": [permission]}
