"""TGI's and TEI's own paths of the fake."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fake_calls import ask
from k9_broker.testing import FakeServer

ASKED: dict[str, Any] = {"inputs": "What is Deep Learning?"}


def generate(fake: FakeServer, status: int = 200, **parameters: Any) -> Any:
    got, _, data = ask(fake, ("/generate", {**ASKED, "parameters": parameters}))
    assert got == status, data
    return json.loads(data) if data.startswith((b"{", b"[")) else data.decode()


def test_a_plain_answer_and_its_headers(fake: FakeServer) -> None:
    status, headers, data = ask(fake, ("/generate", {**ASKED, "parameters": {"max_new_tokens": 3}}))
    assert status == 200
    assert list(json.loads(data)) == ["generated_text"]
    assert (headers["x-prompt-tokens"], headers["x-generated-tokens"]) == ("4", "3")


def test_details(fake: FakeServer) -> None:
    cut = generate(fake, max_new_tokens=3, details=True)["details"]
    assert (cut["finish_reason"], cut["generated_tokens"], len(cut["tokens"])) == ("length", 3, 3)
    whole = generate(fake, details=True)
    assert (whole["details"]["finish_reason"], whole["details"]["generated_tokens"]) == ("eos_token", 17)
    assert whole["details"]["tokens"][-1]["special"] is True
    word = whole["generated_text"].split()[3]
    stopped = generate(fake, stop=[word], details=True)
    assert stopped["details"]["finish_reason"] == "stop_sequence"
    assert whole["generated_text"].startswith(stopped["generated_text"])


def frames(data: bytes) -> list[Any]:
    return [json.loads(frame.removeprefix(b"data: ")) for frame in data.removesuffix(b"\n\n").split(b"\n\n")]


@pytest.mark.parametrize(
    ("call", "parameters"),
    [("/generate_stream", {}), ("/generate_stream", {"max_new_tokens": 4}), ("/", {"max_new_tokens": 4})],
)
def test_a_stream_ends_with_the_whole_text(fake: FakeServer, call: str, parameters: Any) -> None:
    fake.behave(flavour="tgi")
    text = generate(fake, **parameters)["generated_text"]
    body = {**ASKED, "parameters": parameters, "stream": True}
    status, headers, data = ask(fake, (call, body))
    *pieces, last = told = frames(data)
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert [each["index"] for each in told] == list(range(1, len(told) + 1))
    assert "".join(each["token"]["text"] for each in told if not each["token"]["special"]) == text
    assert last["generated_text"] == text
    assert last["details"]["input_length"] == 4
    assert all(each["generated_text"] is each["details"] is None for each in pieces)
    assert b"[DONE]" not in data


def test_the_root_wraps_its_answer_in_a_list(fake: FakeServer) -> None:
    fake.behave(flavour="tgi")
    status, _, data = ask(fake, ("/", ASKED))
    assert status == 200
    assert json.loads(data)[0]["generated_text"] == generate(fake)["generated_text"]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"temperature": 0}, "strictly positive"),
        ({"top_p": 1.0}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 100}, "must be <= 50. Given: 4 `inputs` tokens and 100 `max_new_tokens`"),
    ],
)
def test_validation(fake: FakeServer, parameters: Any, said: str) -> None:
    fake.behave(context_tokens=50)
    error = generate(fake, 422, **parameters)
    assert error["error_type"] == "validation"
    assert said in error["error"]


@pytest.mark.parametrize("body", [{}, {"inputs": 3}, {**ASKED, "parameters": {"stop": "x"}}])
def test_a_body_of_the_wrong_shape_is_refused_in_plain_text(fake: FakeServer, body: Any) -> None:
    status, headers, data = ask(fake, ("/generate", body))
    assert (status, headers["content-type"]) == (422, "text/plain; charset=utf-8")
    assert data.startswith(b"Failed to deserialize")


def test_grammar(fake: FakeServer) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    text = generate(fake, grammar={"type": "json", "value": schema})["generated_text"]
    assert isinstance(json.loads(text)["a"], int)


@pytest.mark.parametrize(
    ("status", "kind"), [(429, "overloaded"), (424, "generation"), (500, "incomplete_generation")]
)
def test_a_stream_fails_with_status_200(fake: FakeServer, status: int, kind: str) -> None:
    fake.behave(fail_next=2, error_status=status)
    got, _, data = ask(fake, ("/generate", ASKED))
    assert (got, json.loads(data)["error_type"]) == (status, kind)
    got, headers, data = ask(fake, ("/generate_stream", ASKED))
    assert (got, headers["content-type"]) == (200, "text/event-stream")
    assert frames(data)[0]["error_type"] == kind


def test_a_stream_that_fails_half_way(fake: FakeServer) -> None:
    fake.behave(error_after_tokens=2)
    *pieces, last = frames(ask(fake, ("/generate_stream", ASKED))[2])
    assert len(pieces) == 2
    assert last["error_type"] == "generation"


# -- TEI --------------------------------------------------------------------------------------------


def test_embed_is_a_bare_list(fake: FakeServer) -> None:
    status, _, data = ask(fake, ("/embed", {"inputs": ["a", "b"]}))
    vectors = json.loads(data)
    assert (status, len(vectors), len(vectors[0])) == (200, 2, 64)
    assert json.loads(ask(fake, ("/embed", {"inputs": "a", "dimensions": 8}))[2])[0] != vectors[0]
    same = json.loads(ask(fake, ("/v1/embeddings", {"model": "fake-embed", "input": "a"}))[2])
    assert same["data"][0]["embedding"] == vectors[0]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"inputs": ["a"] * 33}, 422, "Validation"),
        ({"inputs": "a b c d"}, 422, "Validation"),
        ({"inputs": []}, 400, "Empty"),
    ],
)
def test_embed_refuses(fake: FakeServer, body: Any, status: int, kind: str) -> None:
    fake.behave(context_tokens=3)
    got, _, data = ask(fake, ("/embed", body))
    assert (got, json.loads(data)["error_type"]) == (status, kind)


def test_embed_cuts_what_is_too_long_if_it_may(fake: FakeServer) -> None:
    fake.behave(context_tokens=3)
    assert ask(fake, ("/embed", {"inputs": "a b c d", "truncate": True}))[0] == 200


def test_the_two_shapes_of_its_errors(fake: FakeServer) -> None:
    fake.behave(flavour="tei")
    status, _, data = ask(fake, ("/v1/embeddings", {"input": ["a"] * 33}))
    message = "batch size 33 > maximum allowed batch size 32"
    assert (status, json.loads(data)) == (422, {"message": message, "code": 422, "type": "Validation"})
    fake.behave(fail_next=2, error_status=429)
    flat = json.loads(ask(fake, ("/v1/embeddings", {"input": "a"}))[2])
    assert flat == {"message": "Model is overloaded", "code": 429, "type": "Overloaded"}
    own = json.loads(ask(fake, ("/embed", {"inputs": "a"}))[2])
    assert own == {"error": "Model is overloaded", "error_type": "Overloaded"}
    assert ask(fake, ("/v1/embeddings", {"input": [1, 2, 3] * 20}))[0] == 200
    assert ask(fake, ("/v1/chat/completions", {}))[0] == 404
