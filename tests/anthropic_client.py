"""A program of a user of the `anthropic` SDK, old or new: asks K-9 everything once, prints what it got.

Run as `python anthropic_client.py URL MODEL`; it imports nothing of K-9's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import anthropic
from anthropic import Anthropic

LOOK = {
    "name": "look",
    "description": "Looks.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
WAIT = {"name": "wait", "input_schema": {"type": "object", "properties": {}}}
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
BOTH: list[Any] = [{"role": "user", "content": "Please use the tool look, then use the tool wait."}]
OLD = anthropic.__version__.startswith("0.")


def ask(client: Any, model: str, **more: Any) -> dict[str, Any]:
    return dict(client.messages.create(**request(model, **more)).to_dict())


def stream(client: Any, model: str, **more: Any) -> dict[str, Any]:
    with client.messages.stream(**request(model, **more)) as events:
        return dict(events.get_final_message().to_dict())


def request(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 2000, "messages": HELLO, **more}


def error(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        call()
    except anthropic.APIStatusError as problem:
        return {
            "class": type(problem).__name__,
            "status": problem.status_code,
            "request_id": problem.request_id,
            "body": problem.body,
        }
    return {}


def history(called: dict[str, Any]) -> list[Any]:
    """The turns after `called`, with thinking of two origins and the results of its tools."""
    thought = [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "b3BhcXVl"},
        {"type": "thinking", "thinking": "well", "signature": ""},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": one["id"], "content": [{"type": "text", "text": "18 C"}]}
        for one in called["content"]
        if one["type"] == "tool_use"
    ]
    return [
        *BOTH,
        {"role": "assistant", "content": [*thought, *called["content"]]},
        {"role": "user", "content": [*results, {"type": "text", "text": "And?"}]},
    ]


def main(url: str, model: str) -> None:
    client = Anthropic(base_url=url, api_key="any", max_retries=0, timeout=20)
    tools = {"tools": [LOOK, WAIT], "messages": BOTH}
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    sampling: dict[str, Any] = {"temperature": 0.5} if OLD else {"extra_body": {"temperature": 0.5}}
    called = ask(client, model, **tools)
    raw = client.messages.with_raw_response.create(**request(model))
    listed = list(client.models.list(limit=1))
    said = {
        "version": anthropic.__version__,
        "whole": ask(client, model, system="Be brief."),
        "beta": client.beta.messages.create(**request(model), betas=["context-1m-2025-08-07"]).to_dict(),
        "streamed": stream(client, model, system="Be brief."),
        "called": called,
        "called streamed": stream(client, model, **tools),
        "one": ask(client, model, **tools, tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
        "forced": ask(client, model, tools=[LOOK, WAIT], tool_choice={"type": "tool", "name": "wait"}),
        "answered": ask(client, model, messages=history(called), tools=[LOOK, WAIT], **thinking),
        "short": stream(client, model, max_tokens=2),
        "counted": client.messages.count_tokens(model=model, messages=HELLO).input_tokens,
        "models": [one.id for one in listed],
        "model": client.models.retrieve(model).to_dict(),
        "raw": {"headers": dict(raw.headers), "id": raw.parse().id},
        "sampled": error(lambda: ask(client, model, **sampling)),
        "unknown": error(lambda: ask(client, "nobody")),
        "unknown streamed": error(lambda: stream(client, "nobody")),
        "missing": error(lambda: client.models.retrieve("org/model:tag")),
        "bad": error(lambda: ask(client, model, messages=[])),
    }
    json.dump(said, sys.stdout, default=str)


if __name__ == "__main__":
    main(*sys.argv[1:])
