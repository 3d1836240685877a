"""Embeddings of TEI through the dialect `tgi`."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.dialects.tgi.dialect import Tgi
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Usage, Vectors, pack

DIALECT = Tgi()


def embed(given: Any, **body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.EMBEDDINGS, "org/e", {"model": "alias", "input": given, **body})


def sent(request: InferenceRequest, **options: Any) -> tuple[str, dict[str, Any]]:
    wire = DIALECT.build(request, options)
    return wire.path, json.loads(wire.body)


BARE = {"normalize": True, "truncate": False}


@pytest.mark.parametrize(
    ("given", "path", "body"),
    [
        ("a", "/embed", {"inputs": ["a"], **BARE}),
        (["a", "b"], "/embed", {"inputs": ["a", "b"], **BARE}),
        ([1, 2], "/v1/embeddings", {"model": "org/e", "input": [[1, 2]], "encoding_format": "base64"}),
        (
            [[1], [2, 3]],
            "/v1/embeddings",
            {"model": "org/e", "input": [[1], [2, 3]], "encoding_format": "base64"},
        ),
    ],
)
def test_texts_and_token_ids_go_where_they_are_understood(
    given: Any, path: str, body: dict[str, Any]
) -> None:
    assert sent(embed(given)) == (path, body)
    assert sent(embed(given, dimensions=64))[1] == {**body, "dimensions": 64}
    assert sent(embed(given, encoding_format="float", user="u", dimensions=None)) == (path, body)


def test_the_operators_options() -> None:
    options = {"truncate": True, "prompt_name": "query", "adapters": [], "temperature": 1}
    assert sent(embed("a"), **options)[1] == {
        "inputs": ["a"],
        "normalize": True,
        "truncate": True,
        "prompt_name": "query",
    }


@pytest.mark.parametrize(
    ("request_", "kind", "param"),
    [
        (embed([]), errors.BadRequest, "input"),
        (embed(""), errors.BadRequest, "input"),
        (embed(["a", ""]), errors.BadRequest, "input"),
        (embed([[1], []]), errors.BadRequest, "input"),
        (embed(["a", [1]]), errors.UnsupportedParameter, "input"),
        (embed([["a"]]), errors.UnsupportedParameter, "input"),
        (embed(None), errors.UnsupportedParameter, "input"),
        (embed("a", temperature=1), errors.UnsupportedParameter, "temperature"),
    ],
)
def test_refused_by_name(request_: InferenceRequest, kind: type[errors.K9Error], param: str) -> None:
    with pytest.raises(errors.BadRequest) as caught:
        DIALECT.build(request_, {})
    assert (type(caught.value), caught.value.param) == (kind, param)


ROWS = [[0.25, -0.5], [1.0, 0.0]]


def openai_shape(rows: list[Any]) -> dict[str, Any]:
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    return {"object": "list", "data": data[::-1], "usage": {"prompt_tokens": 4, "total_tokens": 4}}


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        (ROWS, Usage()),
        (openai_shape(ROWS), Usage(prompt=4)),
        (openai_shape([b64encode(pack(row)).decode() for row in ROWS]), Usage(prompt=4)),
    ],
)
def test_vectors(answer: Any, usage: Usage) -> None:
    result = DIALECT.parse(embed(["a", "b"]), json.dumps(answer).encode())
    assert (result.vectors, result.usage, result.model) == (Vectors.from_floats(ROWS), usage, "org/e")


def test_tokens_of_a_bare_list_come_from_the_headers() -> None:
    result = DIALECT.complete(DIALECT.parse(embed("a"), b"[[0.5]]"), {"x-compute-tokens": "3"})
    assert (result.usage, result.body, result.vectors) == (
        Usage(prompt=3),
        None,
        Vectors.from_floats([[0.5]]),
    )


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", errors.BackendError),
        (b"3", errors.BackendError),
        (b"[[0.5]]", errors.BackendError),
        (b"[[0.5],[0.5,1]]", errors.BackendError),
        (b"{}", errors.BackendError),
        (b'{"error":"Model is overloaded","error_type":"Overloaded"}', errors.BackendOverloaded),
    ],
)
def test_a_success_that_is_none(body: bytes, kind: type[errors.K9Error]) -> None:
    with pytest.raises(errors.K9Error) as caught:
        DIALECT.parse(embed(["a", "b"]), body)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (
            422,
            {
                "error": "Input validation error: `inputs` must have less than 512 tokens. Given: 600",
                "error_type": "Validation",
            },
            errors.ContextTooLong,
        ),
        (429, {"error": "Model is overloaded", "error_type": "Overloaded"}, errors.BackendOverloaded),
        (
            429,
            {"message": "Model is overloaded", "code": 429, "type": "Overloaded"},
            errors.BackendOverloaded,
        ),
        (
            422,
            {"message": "batch size 33 > maximum allowed batch size 32", "code": 422, "type": "Validation"},
            errors.BadRequest,
        ),
        (424, {"message": "inference failed", "code": 424, "error_type": "Backend"}, errors.BackendError),
        (400, {"error": "`inputs` cannot be empty", "error_type": "Empty"}, errors.BadRequest),
    ],
)
def test_errors_of_both_shapes(status: int, answer: dict[str, Any], kind: type[errors.K9Error]) -> None:
    assert type(DIALECT.error(status, {}, json.dumps(answer).encode())) is kind


def info(**more: Any) -> bytes:
    return json.dumps({"model_id": "org/e", "max_input_length": 512, **more}).encode()


CARD = ModelCard(operations=(Operation.EMBEDDINGS,), context_window=512, tags=("embedding",))


@pytest.mark.parametrize(
    ("told", "cards"),
    [
        ({"model_type": {"embedding": {"pooling": "cls"}}}, {"org/e": CARD}),
        ({"model_type": "embedding", "served_model_name": "e"}, {"e": CARD, "org/e": CARD}),
        ({"model_type": {"embedding": {}}, "served_model_name": "org/e"}, {"org/e": CARD}),
        ({"model_type": {"reranker": {"id2label": {}}}}, {}),
        ({"model_type": {"classifier": {}}}, {}),
        ({"model_type": None}, {}),
    ],
)
def test_the_model_of_a_server(told: dict[str, Any], cards: dict[str, ModelCard]) -> None:
    assert DIALECT.parse_models(info(**told)) == cards
