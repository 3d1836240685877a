"""Why a model stopped, in OpenAI's five words.

Servers write their own (`eos_token`, `stop_sequence`), write nothing, or say `stop` although they
asked for a tool; an agent that reads those literally stalls or loops.
"""

from __future__ import annotations

from k9_broker.errors import BackendError

_WORDS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "function_call",
    "max_tokens": "length",
    "model_length": "length",
    "end_turn": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_NO_ANSWER = frozenset({"error", "abort", "cancelled", "load", "unload"})


def finish_reason(said: object, *, tools: bool) -> str | None:
    """OpenAI's word for what a server `said`; `None` while it has said nothing.

    `tools`: the answer has tool calls. Raises `BackendError` for a reason that means there is no
    whole answer.
    """
    if not said or not isinstance(said, str):
        return None
    if said in _NO_ANSWER:
        raise BackendError(f"The backend stopped without a whole answer ({said}).")
    reason = _WORDS.get(said, "stop")
    return "tool_calls" if tools and reason != "length" else reason
