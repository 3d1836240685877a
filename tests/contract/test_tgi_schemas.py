"""What the dialect `tgi` sends, against the schemas of TGI and TEI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator

from k9_broker.dialects.registry import dialect_named
from k9_broker.requests import InferenceRequest, Operation

pytestmark = pytest.mark.contracts

DIALECT = dialect_named("tgi")
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
EVERYTHING = {
    "stop": "X",
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 7,
    "max_tokens": 5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.5,
    "user": "u",
}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": "low"}}
SENT: list[tuple[str, Operation, dict[str, Any]]] = [
    (
        "ChatRequest",
        Operation.CHAT,
        {
            **EVERYTHING,
            "messages": [
                {"role": "developer", "content": "rules"},
                {"role": "user", "name": "ann", "content": [{"type": "text", "text": "a"}, IMAGE]},
                {"role": "assistant", "content": "b", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c", "content": "42"},
            ],
            "stream": True,
            "logprobs": True,
            "top_logprobs": 2,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        },
    ),
    (
        "ChatRequest",
        Operation.CHAT,
        {
            "messages": [{"role": "user", "content": "a"}],
            "temperature": 0,
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
    ),
    (
        "GenerateRequest",
        Operation.COMPLETIONS,
        {
            **EVERYTHING,
            "prompt": "p",
            "top_k": 5,
            "response_format": {"type": "json_object", "schema": SCHEMA},
        },
    ),
    ("GenerateRequest", Operation.COMPLETIONS, {"prompt": ["p"], "temperature": 0, "top_p": 1, "top_k": -1}),
    ("EmbedRequest", Operation.EMBEDDINGS, {"input": ["a", "b"], "dimensions": 64}),
    ("OpenAICompatRequest", Operation.EMBEDDINGS, {"input": [[1, 2], [3]], "encoding_format": "float"}),
]


@pytest.mark.parametrize(("schema", "operation", "asked"), SENT)
def test_what_is_sent_fits_the_servers_schemas(
    contracts: Path, schema: str, operation: Operation, asked: dict[str, Any]
) -> None:
    file = "tei.openapi.json" if operation is Operation.EMBEDDINGS else "tgi.openapi.json"
    described = json.loads((contracts / file).read_text("utf-8"))
    # Where the schemas say less than the server does: it also takes `arguments` of a tool as `parameters`.
    described["components"]["schemas"].get("FunctionDefinition", {})["required"] = ["name"]
    root = {"$ref": f"#/components/schemas/{schema}", "components": described["components"]}
    body = json.loads(DIALECT.build(InferenceRequest(operation, "org/m", asked), {}).body)
    assert not [
        f"{error.json_path}: {error.message[:200]}" for error in Draft4Validator(root).iter_errors(body)
    ]
    unknown = set(body) - set(described["components"]["schemas"][schema]["properties"])
    assert not unknown
