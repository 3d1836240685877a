"""A program of a user of the `anthropic` SDK who streams: a text, and tools one of which has no arguments.

Run as `python anthropic_streams.py URL KEY MODEL …`; it imports nothing of K-9's.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anthropic

TOOLS: list[Any] = [
    {
        "name": "look",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
    {"name": "wait", "input_schema": {"type": "object", "properties": {}}},
]
ASKS: dict[str, dict[str, Any]] = {
    "text": {"messages": [{"role": "user", "content": "hello"}]},
    "tools": {
        "messages": [{"role": "user", "content": "Please use the tool look, then use the tool wait."}],
        "tools": TOOLS,
    },
}


def main(url: str, key: str, *models: str) -> None:
    client = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=20)
    said: dict[str, Any] = {"version": anthropic.__version__}
    for model in models:
        said[model] = {}
        for name, more in ASKS.items():
            with client.messages.stream(model=model, max_tokens=2000, **more) as events:
                said[model][name] = events.get_final_message().to_dict()
    json.dump(said, sys.stdout, default=str)


if __name__ == "__main__":
    main(*sys.argv[1:])
