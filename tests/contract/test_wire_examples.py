"""Every contract example of the servers K-9 speaks to, through their dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import contract_examples
from contract_examples import NO_ANSWERS, STREAM_ERRORS, WAITS, errors_of
from k9_broker import errors
from k9_broker.dialects.base import Dialect
from k9_broker.dialects.embeddings import inputs_of
from k9_broker.dialects.registry import dialect_named
from k9_broker.requests import InferenceRequest, Operation

pytestmark = pytest.mark.contracts

OPERATIONS = {
    "/v1/chat/completions": ("openai-compatible", Operation.CHAT),
    "/v1/completions": ("openai-compatible", Operation.COMPLETIONS),
    "/v1/embeddings": ("openai-compatible", Operation.EMBEDDINGS),
    "/api/chat": ("ollama", Operation.CHAT),
    "/api/generate": ("ollama", Operation.COMPLETIONS),
    "/api/embed": ("ollama", Operation.EMBEDDINGS),
}
OWN = {"openai": "openai", "azure": "azure", "vllm": "vllm", "llamacpp": "llama.cpp"}
"""The dialects of OpenAI's family, by the beginning of an example's name."""

BACKENDS = ("openai", "vllm", "llamacpp", "ollama", "tgi", "tei", "azure")

ERRORS = errors_of(*BACKENDS)
BROKEN = {
    name: kind
    for name, kind in STREAM_ERRORS.items()
    if name.partition("-")[0] in BACKENDS and name != "tgi-stream-error-overloaded"
}
"""But for TGI's own route, which only the dialect `tgi` reads."""

EMPTY = {name for name in NO_ANSWERS if name.partition("-")[0] in BACKENDS}

FINISH = {"stop", "length", "tool_calls", "content_filter", "function_call"}


class Example(contract_examples.Example):
    """One exchange of the contract, and the request it really had."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        name, self.operation = OPERATIONS.get(self.path, ("openai-compatible", None))
        self.dialect_name = OWN.get(self.family, name)

    @property
    def dialect(self) -> Dialect:
        return dialect_named(self.dialect_name)

    @property
    def request(self) -> InferenceRequest:
        assert self.operation is not None
        return InferenceRequest(
            self.operation, self.sent.get("model", "m"), {**self.sent, "stream": self.streamed}
        )


@pytest.fixture(scope="session")
def examples(contracts: Path) -> dict[str, Example]:
    found = (Example(path) for path in sorted((contracts / "examples").glob("*.json")))
    return {example.name: example for example in found if example.family in BACKENDS}


def replay(example: Example, size: int = 97) -> Iterator[dict[str, Any]]:
    parser = example.dialect.parser(example.request)
    raw = example.body
    for start in range(0, len(raw), size):
        yield from map(dict, parser.feed(raw[start : start + size]))
    yield from map(dict, parser.close())


def test_every_error_gives_its_class(examples: dict[str, Example]) -> None:
    failing = {name: example for name, example in examples.items() if example.status >= 400}
    assert set(failing) == set(ERRORS)
    got = {
        name: type(example.dialect.error(example.status, example.headers, example.body))
        for name, example in failing.items()
    }
    assert got == ERRORS


def test_waits_come_from_headers_of_waiting_statuses_only(examples: dict[str, Example]) -> None:
    waits = {
        name: example.dialect.error(example.status, example.headers, example.body).retry_after
        for name, example in examples.items()
        if example.status >= 400
    }
    told = {name: wait for name, wait in WAITS.items() if name in ERRORS}
    assert {name: wait for name, wait in waits.items() if wait is not None} == told


def test_no_message_repeats_a_key_or_an_input(examples: dict[str, Example]) -> None:
    for example in examples.values():
        if example.status >= 400:
            message = example.dialect.error(example.status, example.headers, example.body).message
            assert message
            assert not any(word in message for word in ("sk-test", "<dict of", "<html"))


def answers(examples: dict[str, Example], *, streamed: bool) -> list[Example]:
    return [
        example
        for example in examples.values()
        if example.status == 200
        and example.operation
        and example.streamed is streamed
        and example.name not in {*BROKEN, *EMPTY}
    ]


def test_every_success_parses(examples: dict[str, Example]) -> None:
    found = answers(examples, streamed=False)
    assert len(found) >= 20
    for example in found:
        request = example.request
        result = example.dialect.parse(request, example.body)
        if request.operation is Operation.EMBEDDINGS:
            assert result.vectors is not None, example.name
            assert result.vectors.count == len(inputs_of(request)), example.name
            continue
        assert result.body is not None, example.name
        assert result.body["choices"], example.name
        for choice in result.body["choices"]:
            assert choice["finish_reason"] in FINISH, example.name
            message = choice.get("message") or {}
            if calls := message.get("tool_calls"):
                assert choice["finish_reason"] == "tool_calls", example.name
                assert len({call["id"] for call in calls}) == len(calls), example.name
                assert all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in calls)
                assert "0" not in {call["id"] for call in calls}
        assert result.usage.openai() == result.body["usage"], example.name


@pytest.mark.parametrize("size", [97, 1, 4096])
def test_every_stream_parses(examples: dict[str, Example], size: int) -> None:
    found = answers(examples, streamed=True)
    assert len(found) >= 12
    for example in found:
        chunks = list(replay(example, size))
        *pieces, last = chunks
        assert last["choices"] == [], example.name
        assert "usage" in last, example.name
        assert not any("usage" in chunk or not chunk["choices"] for chunk in pieces), example.name
        reasons = [choice["finish_reason"] for chunk in pieces for choice in chunk["choices"]]
        assert [reason for reason in reasons if reason] == [reason for reason in reasons if reason in FINISH]
        assert sum(reason is not None for reason in reasons) == 1, example.name
        arguments: dict[int, str] = {}
        ids: dict[int, list[str]] = {}
        for choice in (choice for chunk in pieces for choice in chunk["choices"]):
            for call in choice.get("delta", {}).get("tool_calls") or []:
                arguments[call["index"]] = arguments.get(call["index"], "") + call["function"]["arguments"]
                ids.setdefault(call["index"], []).extend([call["id"]] if "id" in call else [])
        for index, text in arguments.items():
            assert isinstance(json.loads(text), dict), example.name
            assert len(ids[index]) == 1, example.name
            assert ids[index][0] not in ("", "0"), example.name
        if arguments:
            assert "tool_calls" in reasons, example.name


def test_every_broken_stream_raises(examples: dict[str, Example]) -> None:
    for name, kind in BROKEN.items():
        with pytest.raises(errors.K9Error) as caught:
            list(replay(examples[name]))
        assert type(caught.value) is kind, name


def test_answers_that_are_none_raise(examples: dict[str, Example]) -> None:
    for name in sorted(EMPTY):
        example = examples[name]
        with pytest.raises(errors.BackendError):
            example.dialect.parse(example.request, example.body)


def test_a_truncated_copy_of_any_stream_raises(examples: dict[str, Example]) -> None:
    """Cut every good stream in the middle of its content: no server's silence passes for an answer."""
    for example in answers(examples, streamed=True):
        parser = example.dialect.parser(example.request)
        list(parser.feed(example.body[: len(example.body) // 3]))
        with pytest.raises(errors.StreamTruncated):
            list(parser.close())


def test_vectors_are_bit_equal_in_both_encodings(examples: dict[str, Example]) -> None:
    packed = set()
    for name in ("openai-embeddings-float", "openai-embeddings-base64"):
        example = examples[name]
        vectors = example.dialect.parse(example.request, example.body).vectors
        assert vectors is not None
        packed.add(vectors.packed)
    assert len(packed) == 1


def test_models_are_listed(examples: dict[str, Example]) -> None:
    for name in ("openai-models", "vllm-models", "llamacpp-models", "tgi-models"):
        assert examples[name].dialect.parse_models(examples[name].body)
        assert dialect_named("openai-compatible").parse_models(examples[name].body)
    names = dialect_named("ollama").parse_models(examples["ollama-tags"].body)
    assert tuple(names) == ("deepseek-r1:latest", "deepseek-r1", "llama3.2:latest", "llama3.2")
