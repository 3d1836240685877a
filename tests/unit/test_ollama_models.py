"""What Ollama tells of its models and of its load."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.dialects.ollama.dialect import Ollama
from k9_broker.health import Load
from k9_broker.models import ModelCard
from k9_broker.requests import Operation

DIALECT = Ollama()
TEXT = (Operation.CHAT, Operation.COMPLETIONS)
INFO = {"general.architecture": "llama", "llama.context_length": 131072, "llama.embedding_length": 4096}


def described(answer: Any, **options: Any) -> ModelCard:
    return DIALECT.parse_description(json.dumps(answer).encode(), options)


def test_a_model_is_asked_for_by_name() -> None:
    wire = DIALECT.describe_request("llama3.2", {})
    assert wire is not None
    assert (wire.method, wire.path, json.loads(wire.body)) == ("POST", "/api/show", {"model": "llama3.2"})


@pytest.mark.parametrize(
    ("capabilities", "told"),
    [
        (["completion"], {"operations": TEXT, "tools": False, "vision": False, "json_schema": True}),
        (
            ["completion", "tools", "vision", "thinking"],
            {"operations": TEXT, "tools": True, "vision": True, "json_schema": True},
        ),
        (
            ["embedding"],
            {"operations": (Operation.EMBEDDINGS,), "tools": False, "tags": ("embedding",)},
        ),
        (["completion", "embedding"], {"operations": (*TEXT, Operation.EMBEDDINGS), "tags": ()}),
        ([], {"operations": (), "tools": None, "vision": None, "json_schema": None, "streaming": None}),
        (None, {"operations": (), "tools": None, "vision": None}),
        ("nonsense", {"operations": (), "tools": None}),
    ],
)
def test_capabilities(capabilities: Any, told: dict[str, Any]) -> None:
    card = described({"capabilities": capabilities})
    assert {name: getattr(card, name) for name in told} == told


@pytest.mark.parametrize(
    ("answer", "options", "tokens"),
    [
        ({"model_info": INFO}, {}, 131072),
        ({"model_info": INFO}, {"num_ctx": 8192}, 8192),
        ({"model_info": INFO}, {"num_ctx": 999999}, 131072),
        ({"model_info": INFO, "parameters": 'stop   "x"\nnum_ctx    4096\n'}, {}, 4096),
        ({"model_info": INFO, "parameters": "num_ctx 4096"}, {"num_ctx": 16384}, 16384),
        ({"model_info": {"bert.context_length": 512}}, {}, 512),
        ({}, {"num_ctx": 2048}, 2048),
        ({}, {}, None),
        ({"model_info": {"general.architecture": "x", "x.context_length": "many"}}, {}, None),
        ({"model_info": 3, "parameters": ["num_ctx 1"]}, {"num_ctx": "8k"}, None),
        ({"parameters": "num_ctx lots\nnum_ctx 0"}, {}, None),
    ],
)
def test_the_context_is_what_the_server_will_use_at_most(
    answer: Any, options: dict[str, Any], tokens: int | None
) -> None:
    assert described(answer, **options).context_window == tokens


def test_a_description_can_be_read_without_the_options() -> None:
    assert DIALECT.parse_description(b'{"capabilities":["tools"]}').tools is True


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error":"model \'x\' not found"}'])
def test_no_description(body: bytes) -> None:
    with pytest.raises(errors.BackendError):
        DIALECT.parse_description(body)


def test_models_in_memory() -> None:
    wire = DIALECT.load_request({})
    assert wire is not None
    assert (wire.method, wire.path) == ("GET", "/api/ps")
    body = {"models": [{"name": "mistral:latest", "size_vram": 1}, {"model": "b:7b"}, {}]}
    assert DIALECT.parse_load(json.dumps(body).encode()) == Load(loaded=("mistral:latest", "mistral", "b:7b"))
    assert DIALECT.parse_load(b'{"models":[]}') == Load(loaded=())


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"models":3}', b'{"models":[3,{"name":4}]}']
)
def test_load_is_unknown_where_nothing_is_told(body: bytes) -> None:
    assert DIALECT.parse_load(body) in (Load(), Load(loaded=()))


def test_the_runners_own_error_is_read() -> None:
    inner = {
        "error": {
            "code": 400,
            "message": "request (8889 tokens) exceeds the available context size (4096 tokens)",
            "type": "exceed_context_size_error",
        }
    }
    error = DIALECT.error(400, {}, json.dumps({"error": json.dumps(inner)}).encode())
    assert type(error) is errors.ContextTooLong
    assert error.message == "request (8889 tokens) exceeds the available context size (4096 tokens)"


@pytest.mark.parametrize("said", ["plain", '"text"', "[1]", "{}", '{"error":""}', '{"error"'])
def test_other_errors_stay_as_they_are(said: str) -> None:
    error = DIALECT.error(400, {}, json.dumps({"error": said}).encode())
    assert type(error) is errors.BadRequest
    assert error.message == said
