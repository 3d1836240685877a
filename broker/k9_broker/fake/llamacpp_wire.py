"""`/v1/*` and the slots, props, health and metrics routes as llama.cpp's server has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json, to_json

from k9_broker.fake.answers import Answer, Question
from k9_broker.fake.exposition import Metric, exposition
from k9_broker.fake.head import Head
from k9_broker.fake.openai_wire import Choice, OpenAIWire
from k9_broker.fake.script import EPOCH, Call, Headers, Refused, Reply, Script
from k9_broker.fake.wire import State, Trouble

SLOTS = 4
"""Where the behaviour sets none."""

_JSON = "application/json; charset=utf-8"
_BUILD = "b9000-k9fake"
_KINDS = {
    400: ("invalid_request_error", "Bad request"),
    401: ("authentication_error", "Invalid API Key"),
    404: ("not_found_error", "File Not Found"),
    429: ("rate_limit_error", "Too many requests"),
    501: ("not_supported_error", "This server does not support this."),
    503: ("unavailable_error", "Loading model"),
}
_TOO_LONG = (
    "the request exceeds the available context size. try increasing the context size or enable context shift"
)


def error(status: int, message: str, kind: str, headers: Headers = (), **more: int) -> Reply:
    """llama.cpp's envelope, whose code is the status."""
    return Reply(
        to_json({"error": {"code": status, "message": message, "type": kind, **more}}), status, _JSON, headers
    )


class LlamaCppWire(OpenAIWire):
    """A server with one model, whatever name is asked for."""

    null_usage = False
    tells_limits = False
    health = "/health"
    open_paths = frozenset(("/health", "/v1/models", "/models"))
    stream_type = "text/event-stream"

    # -- answers ------------------------------------------------------------------------------------

    def model(self, call: Call) -> str:
        return str(call.body.get("model") or call.behaviour.served)

    def chat(self, call: Call) -> Script:
        return self._bounded(call, super().chat)

    def completions(self, call: Call) -> Script:
        return self._bounded(call, super().completions)

    def chat_base(self, name: str, question: Question) -> dict[str, Any]:
        base = {"id": f"chatcmpl-{question.fingerprint}", "object": "chat.completion.chunk"}
        return base | {"created": EPOCH, "model": name, "system_fingerprint": _BUILD}

    def usage(self, prompt: int, answers: list[Answer]) -> dict[str, Any]:
        completion = sum(each.tokens for each in answers)
        counts = {"completion_tokens": completion, "prompt_tokens": prompt}
        return {**counts, "total_tokens": prompt + completion, "prompt_tokens_details": {"cached_tokens": 0}}

    def message(self, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.thoughts:
            message["reasoning_content"] = "".join(answer.thoughts)
        if answer.calls:
            message["tool_calls"] = [self.call(call, "".join(call.pieces)) for call in answer.calls]
        return message

    def deltas(self, answer: Answer) -> Iterator[tuple[int, Mapping[str, Any]]]:
        yield 0, {"role": "assistant", "content": None}
        for due, thought in enumerate(answer.thoughts, 1):
            yield due, {"reasoning_content": thought}
        due = len(answer.thoughts)
        for at, piece in enumerate(answer.pieces, due + 1):
            yield at, {"content": piece}
        for index, call in enumerate(answer.calls):
            due += 1
            yield due, {"tool_calls": [{"index": index, **self.call(call, "")}]}
            for piece in call.pieces:
                due += 1
                yield due, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}

    def delta_choice(self, index: int, delta: Mapping[str, Any]) -> dict[str, Any]:
        return {"finish_reason": None, "index": index, "delta": delta}

    def finish(self, answer: Answer, named: bool) -> str:
        return answer.finish

    def endings(self, index: int, answer: Answer, named: bool) -> Iterator[Choice]:
        ending = {"finish_reason": answer.finish, "index": index, "delta": {}}
        yield answer.tokens + 1, ending, {"timings": _timings(0, answer.tokens)}

    def chat_choice(self, index: int, answer: Answer, named: bool) -> dict[str, Any]:
        return {"finish_reason": answer.finish, "index": index, "message": self.message(answer)}

    def body(self, base: Mapping[str, Any], choices: list[dict[str, Any]], usage: Any) -> dict[str, Any]:
        timings = _timings(usage["prompt_tokens"], usage["completion_tokens"])
        return {**base, "choices": choices, "usage": usage, "timings": timings}

    def usage_chunk(self, base: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
        timings = _timings(usage["prompt_tokens"], usage["completion_tokens"])
        return {**base, "choices": [], "usage": usage, "timings": timings}

    def headers(self, question: Question, streamed: bool) -> Headers:
        return ()

    # -- lists and refusals ------------------------------------------------------------------------

    def healthy(self) -> Reply:
        return Reply(b'{"status":"ok"}', content_type=_JSON)

    def inventory(self, head: Head, state: State) -> Reply | None:
        match head.path:
            case "/v1/models" | "/models":
                models = [_model(name, state) for name in state.behaviour.models[:1]]
                return Reply(to_json({"object": "list", "data": models}), content_type=_JSON)
            case "/slots":
                if head.parameters.get("fail_on_no_slot") == "1" and state.active >= _slots(state):
                    return error(503, "no slot available", "unavailable_error")
                return Reply(to_json([_slot(number, state) for number in range(_slots(state))]), 200, _JSON)
            case "/props":
                model = state.behaviour.served
                body = {
                    "default_generation_settings": {"n_ctx": _context(state)},
                    "total_slots": _slots(state),
                }
                more = {"model_path": f"models/{model}.gguf", "build_info": _BUILD, "is_sleeping": False}
                return Reply(to_json({**body, **more}), content_type=_JSON)
            case "/metrics":
                return Reply(exposition(_metrics(state)), content_type="text/plain; version=0.0.4")
        return None

    def failure(self, trouble: Trouble) -> Reply:
        kind, message = _KINDS.get(trouble.status, ("server_error", "Internal server error"))
        after = () if trouble.retry_after is None else (("retry-after", f"{trouble.retry_after:g}"),)
        return error(trouble.status, trouble.message or message, kind, after)

    def unreadable(self, body: bytes, why: str) -> Refused:
        return Refused(error(500, f"[json.exception.parse_error.101] parse error: {why}", "server_error"))

    def no_route(self, head: Head) -> Reply:
        return self.failure(Trouble(404))

    def reworded(self, reply: Reply) -> Reply:
        told = from_json(reply.body)["error"]
        if isinstance(told["code"], int):
            return reply
        return error(reply.status, told["message"], "invalid_request_error")

    def _bounded(self, call: Call, operation: Any) -> Script:
        """The answer, or llama.cpp's own refusal of what is too long for a slot."""
        try:
            script: Script = operation(call)
        except Refused as refused:
            if b"context_length_exceeded" not in refused.reply.body:
                raise
            asked = sum(
                len(str(value).split()) for value in (call.body.get("messages"), call.body.get("prompt"))
            )
            limits: dict[str, Any] = {"n_prompt_tokens": asked, "n_ctx": call.behaviour.context_tokens}
            raise Refused(error(400, _TOO_LONG, "exceed_context_size_error", **limits)) from None
        return script


def _timings(prompt: int, predicted: int) -> dict[str, float]:
    """As if every token took a millisecond."""
    return {
        "cache_n": 0,
        "prompt_n": prompt,
        "prompt_ms": float(prompt),
        "prompt_per_token_ms": 1.0,
        "prompt_per_second": 1000.0,
        "predicted_n": predicted,
        "predicted_ms": float(predicted),
        "predicted_per_token_ms": 1.0,
        "predicted_per_second": 1000.0,
    }


def _slots(state: State) -> int:
    return state.behaviour.slots or SLOTS


def _context(state: State) -> int:
    return state.behaviour.context_tokens or 65_536


def _slot(number: int, state: State) -> dict[str, Any]:
    busy = number < state.active
    head = {"id": number, "id_task": number if busy else -1, "n_ctx": _context(state), "speculative": False}
    params = {"n_predict": -1, "temperature": 0.8, "stream": True}
    following = {"has_next_token": busy, "has_new_line": False, "n_remain": -1, "n_decoded": 0}
    return {**head, "is_processing": busy, "params": params, "next_token": following}


def _model(name: str, state: State) -> dict[str, Any]:
    meta = {"vocab_type": 2, "n_vocab": 128256, "n_ctx_train": 131072, "n_embd": state.behaviour.dimensions}
    sizes = {"n_params": 8_030_261_312, "size": 4_912_898_304}
    modalities = {"input_modalities": ["text"], "output_modalities": ["text"]}
    model = {"id": name, "object": "model", "architecture": modalities, "created": EPOCH}
    return {**model, "owned_by": "llamacpp", "meta": meta | sizes}


def _metrics(state: State) -> Iterator[Metric]:
    rows: list[tuple[str, str, str, int]] = [
        ("prompt_tokens_total", "counter", "Number of prompt tokens processed.", state.seen.prompt_tokens),
        (
            "tokens_predicted_total",
            "counter",
            "Number of generation tokens processed.",
            state.seen.generated_tokens,
        ),
        ("requests_processing", "gauge", "Number of requests processing.", state.active),
        ("requests_deferred", "gauge", "Number of requests deferred.", state.waiting),
    ]
    for name, kind, described, value in rows:
        yield Metric(f"llamacpp:{name}", kind, described, [({}, value)])
