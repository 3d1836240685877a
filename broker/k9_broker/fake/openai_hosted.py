"""What OpenAI's own service does and those that copy its paths do not."""

from __future__ import annotations

from typing import Any

from k9_broker.fake.answers import Question
from k9_broker.fake.openai_asks import refuse
from k9_broker.fake.openai_wire import OpenAIWire
from k9_broker.fake.script import Call, Headers, Reply, Script


class HostedWire(OpenAIWire):
    """OpenAI's own service: answers name the dated snapshot of the model, headers tell more.

    Models that think refuse `max_tokens` and every temperature but the usual one.
    """

    def chat(self, call: Call) -> Script:
        if call.behaviour.reasoning_tokens:
            _check_thinking(call)
        return super().chat(call)

    def chat_base(self, name: str, question: Question) -> dict[str, Any]:
        return super().chat_base(f"{name}-2026-08-07", question)

    def headers(self, question: Question, streamed: bool) -> Headers:
        return (*super().headers(question, streamed), ("openai-processing-ms", "21"))

    def unauthorized(self) -> Reply:
        reply = super().unauthorized()
        return Reply(reply.body, 401, headers=(("www-authenticate", "Bearer"),))


def _check_thinking(call: Call) -> None:
    if call.body.get("max_tokens") is not None:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead."
        )
        raise refuse(message, "max_tokens", "unsupported_parameter")
    temperature = call.body.get("temperature")
    if temperature not in (None, 1):
        message = (
            f"Unsupported value: 'temperature' does not support {temperature} with this model. "
            "Only the default (1) value is supported."
        )
        raise refuse(message, "temperature", "unsupported_value")
