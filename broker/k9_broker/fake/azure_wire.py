"""Azure OpenAI: OpenAI's operations under deployments and under `/openai/v1`, with content filters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import from_json, to_json

from k9_broker.fake.allowance import Breach, Levels
from k9_broker.fake.answers import Answer, Question
from k9_broker.fake.head import Head
from k9_broker.fake.openai_asks import waiting
from k9_broker.fake.openai_wire import Choice, OpenAIWire
from k9_broker.fake.script import EPOCH, Call, Headers, Reply, Script
from k9_broker.fake.wire import Operation, State, Trouble

_CLASSIC = "/openai/deployments/"
_V1 = "/openai/v1/"
_REQUEST = "00000000-0000-4000-8000-00006b396661"
_SAFE = {
    name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")
}
_PROMPT = [{"prompt_index": 0, "content_filter_results": _SAFE}]
_FIRST: Mapping[str, Any] = {
    "id": "", "choices": [], "created": 0, "model": "", "object": "", "system_fingerprint": None,
    "prompt_filter_results": _PROMPT,
}  # fmt: skip
_MESSAGES = {
    401: "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide "
    "a valid key for an active subscription and use a correct regional API endpoint for your resource.",
    429: "Requests have exceeded call rate limit of your current AIServices S0 pricing tier.",
    500: "The server had an error while processing your request. Sorry about that!",
    503: "The service is temporarily unable to process your request. Please try again later.",
}
_BLOCKED = {
    "message": "The response was filtered due to the prompt triggering Azure OpenAI's content "
    "management policy. Please modify your prompt and retry.",
    "type": None,
    "param": "prompt",
    "code": "content_filter",
    "status": 400,
    "innererror": {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {**_SAFE, "violence": {"filtered": True, "severity": "high"}},
    },
}


def error(status: int, code: str, message: str, headers: Headers = ()) -> Reply:
    """Often there is no more to it than a code, which is a string, and a message."""
    body = {"error": {"code": code, "message": message}}
    return Reply(to_json(body), status, headers=(("apim-request-id", _REQUEST), *headers))


_NO_RESOURCE = error(404, "404", "Resource not found")


class AzureWire(OpenAIWire):
    """Every model of the fake is a deployment of the same name."""

    keys = (b"api-key", b"authorization")

    def __init__(self) -> None:
        super().__init__()
        self._by_name: Mapping[str, Operation] = {
            "chat/completions": self.chat, "completions": self.completions, "embeddings": self.embeddings
        }  # fmt: skip

    def locate(self, head: Head) -> tuple[Operation | None, str | None]:
        """The deployment is in the path, which needs an `api-version`, or it is the body's model."""
        if head.path.startswith(_V1):
            return self._by_name.get(head.path.removeprefix(_V1)), None
        name, _, operation = head.path.removeprefix(_CLASSIC).partition("/")
        if not head.path.startswith(_CLASSIC) or not head.parameters.get("api-version"):
            return None, None
        return self._by_name.get(operation), name

    # -- answers ------------------------------------------------------------------------------------

    def chat(self, call: Call) -> Script:
        return _charged(call, super().chat(call))

    def completions(self, call: Call) -> Script:
        return _charged(call, super().completions(call))

    def chat_base(self, name: str, question: Question) -> dict[str, Any]:
        base = {"id": f"chatcmpl-{question.fingerprint}", "object": "chat.completion.chunk"}
        return {**base, "created": EPOCH, "model": name, "system_fingerprint": "fp_k9fake"}

    def delta_choice(self, index: int, delta: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().delta_choice(index, delta), "content_filter_results": _SAFE}

    def endings(self, index: int, answer: Answer, named: bool) -> Iterator[Choice]:
        for due, choice, more in super().endings(index, answer, named):
            yield due, {**choice, "content_filter_results": _SAFE}, more

    def chat_choice(self, index: int, answer: Answer, named: bool) -> dict[str, Any]:
        return {**super().chat_choice(index, answer, named), "content_filter_results": _SAFE}

    def text_choice(self, index: int, answer: Answer, text: str, last: bool) -> dict[str, Any]:
        return {**super().text_choice(index, answer, text, last), "content_filter_results": _SAFE}

    def body(self, base: Mapping[str, Any], choices: list[dict[str, Any]], usage: Any) -> dict[str, Any]:
        return {**base, "prompt_filter_results": _PROMPT, "choices": choices, "usage": usage}

    def opening(self) -> list[bytes]:
        """The first chunk has nothing but what the filter found in the prompt."""
        return [b"data: " + to_json(_FIRST) + b"\n\n"]

    def headers(self, question: Question, streamed: bool) -> Headers:
        return (("apim-request-id", _REQUEST), ("x-ms-region", "Fake Central"))

    # -- lists and refusals ------------------------------------------------------------------------

    def inventory(self, head: Head, state: State) -> Reply | None:
        """`/openai/models` has the base models of the region, whatever is deployed."""
        if head.path == "/openai/models" and head.parameters.get("api-version"):
            return Reply(to_json({"object": "list", "data": [_base_model(each) for each in _BASE_MODELS]}))
        if head.path == "/openai/v1/models":
            listed = [{**_base_model(each), "created": EPOCH, "owned_by": "system"} for each in _BASE_MODELS]
            return Reply(to_json({"object": "list", "data": listed}))
        return None

    def failure(self, trouble: Trouble) -> Reply:
        headers = waiting(trouble.retry_after)
        if trouble.code == "content_filter":
            return Reply(to_json({"error": _BLOCKED}), 400, headers=(("apim-request-id", _REQUEST), *headers))
        code, usual = trouble.code or str(trouble.status), "The request is not valid."
        message = trouble.message or _MESSAGES.get(trouble.status, usual)
        return error(trouble.status, code, message, headers)

    def no_route(self, head: Head) -> Reply:
        return _NO_RESOURCE

    def reworded(self, reply: Reply) -> Reply:
        """A model that is not there is a deployment that is not there; else as OpenAI says it."""
        if from_json(reply.body)["error"]["code"] == "model_not_found":
            return error(
                404,
                "DeploymentNotFound",
                "The API deployment for this resource does not exist. If you created the deployment "
                "within the last 5 minutes, please wait a moment and try again.",
            )
        return reply

    def limited(self, breach: Breach, model: str, trouble: Trouble) -> Reply:
        kind = {"requests": "call", "tokens": "token"}[breach.kind]
        message = (
            f"Requests to the Operation under Azure OpenAI API have exceeded {kind} rate limit of your "
            f"current AIServices S0 pricing tier. Please retry after {breach.seconds} seconds."
        )
        headers = (("retry-after", str(breach.seconds)), ("retry-after-ms", str(breach.milliseconds)))
        return error(429, "429", message, headers)

    def limit_headers(self, levels: Levels) -> Headers:
        """The resets are whole seconds."""
        both = {"requests": levels.requests, "tokens": levels.tokens}
        return tuple(
            (f"x-ratelimit-{what}-{kind}", str(value))
            for kind, level in both.items()
            if level is not None
            for what, value in
            {"limit": level.limit, "remaining": level.left, "reset": -int(-level.full_in // 1)}.items()
        )  # fmt: skip


_BASE_MODELS = ("gpt-4o", "gpt-4o-mini", "text-embedding-3-small")


def _base_model(name: str) -> dict[str, Any]:
    embeds = name.startswith("text-embedding")
    abilities = {"fine_tune": False, "inference": True, "completion": not embeds}
    abilities |= {"chat_completion": not embeds, "embeddings": embeds}
    model = {"status": "succeeded", "capabilities": abilities, "lifecycle_status": "generally-available"}
    return {
        **model,
        "deprecation": {"fine_tune": 1_900_000_000, "inference": 1_900_000_000},
        "id": name,
        "created_at": EPOCH,
        "object": "model",
    }


def _charged(call: Call, script: Script) -> Script:
    """Limits take what is asked for, before it is known what comes of it."""
    wanted = call.body.get("max_completion_tokens") or call.body.get("max_tokens")
    return replace(script, charge=script.prompt + wanted) if wanted else script
