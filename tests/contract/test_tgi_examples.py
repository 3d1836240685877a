"""Every contract example of TGI and TEI through the dialect `tgi`, streams cut at random places."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract_examples import errors_of
from k9_broker import errors
from k9_broker.dialects.tgi.dialect import Tgi
from k9_broker.health import Load
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Usage, Vectors

pytestmark = pytest.mark.contracts

DIALECT = Tgi()
NATIVE = ("/generate", "/generate_stream", "/")
PATHS = {
    "/v1/chat/completions": Operation.CHAT,
    **dict.fromkeys(NATIVE, Operation.COMPLETIONS),
    "/embed": Operation.EMBEDDINGS,
    "/v1/embeddings": Operation.EMBEDDINGS,
}

ERRORS = errors_of("tgi", "tei")
RETRYABLE = {"tgi-error-424", "tgi-error-429", "tgi-error-500", "tgi-health-503", "tei-error-429"}

OVERLOADED_STREAMS = {"tgi-chat-stream-error-overloaded", "tgi-stream-error-overloaded"}

OTHERS = {"tgi-health", "tgi-info", "tgi-metrics", "tgi-models", "tgi-completions", "tgi-completions-stream"}
"""Of the state of a server; and TGI's `/v1/completions`, which the dialect `openai-compatible` speaks."""


class Example:
    """One exchange of the contract, with the request K-9 would have been sent."""

    def __init__(self, path: Path) -> None:
        data = json.loads(path.read_text("utf-8"))
        self.name: str = data["name"]
        self.path: str = data["request"]["path"]
        self.reply: dict[str, Any] = data["response"]
        self.sent: dict[str, Any] = data["request"].get("json") or {}
        self.status: int = self.reply["status"]
        self.headers: dict[str, str] = self.reply["headers"]
        self.streamed = "stream_file" in self.reply
        if self.streamed:
            self.body = (path.parent / self.reply["stream_file"]).read_bytes()
        elif "json" in self.reply:
            self.body = json.dumps(self.reply["json"]).encode()
        else:
            self.body = str(self.reply.get("text", "")).encode()

    @property
    def request(self) -> InferenceRequest:
        """The canonical request: the server's words turned back into OpenAI's."""
        operation, sent = PATHS[self.path], self.sent
        if self.path in NATIVE:
            limits = {"max_tokens": sent.get("parameters", {}).get("max_new_tokens")}
            body = {"prompt": sent["inputs"], **limits, "stream": self.streamed}
        elif operation is Operation.EMBEDDINGS:
            body = {"input": sent.get("inputs", sent.get("input"))}
        else:
            body = {**sent, "stream": self.streamed}
            if isinstance(choice := sent.get("tool_choice"), str) and choice not in ("auto", "required"):
                body["tool_choice"] = {"type": "function", "function": {"name": choice}}
        return InferenceRequest(operation, "asked/for", body)


@pytest.fixture(scope="module")
def examples(contracts: Path) -> dict[str, Example]:
    folder = contracts / "examples"
    paths = sorted([*folder.glob("tgi-*.json"), *folder.glob("tei-*.json")])
    return {example.name: example for example in map(Example, paths)}


def replay(example: Example, cuts: list[int]) -> list[dict[str, Any]]:
    parser = DIALECT.parser(example.request)
    bounds = [0, *sorted(cut % (len(example.body) + 1) for cut in cuts), len(example.body)]
    found = [dict(chunk) for start, end in pairwise(bounds) for chunk in parser.feed(example.body[start:end])]
    return found + [dict(chunk) for chunk in parser.close()]


def everywhere(example: Example, size: int) -> list[int]:
    return list(range(size, len(example.body), size))


def test_no_example_is_left_out(examples: dict[str, Example]) -> None:
    answered = {name for name, one in examples.items() if one.path in PATHS and one.status == 200}
    assert set(examples) == answered | set(ERRORS) | OTHERS
    assert len(examples) >= 28


def test_requests_are_sent_where_the_examples_were(examples: dict[str, Example]) -> None:
    for name, example in examples.items():
        if example.path not in PATHS or name in ("tgi-root-generate", "tgi-error-422-deserialize"):
            continue
        wire = DIALECT.build(example.request, {})
        texts = example.path == "/v1/embeddings"  # K-9 sends texts to the native route
        assert wire.path == ("/embed" if texts else example.path), name
        body = json.loads(wire.body)
        if example.path == "/embed" and isinstance(example.sent["inputs"], list):
            assert body == example.sent, name
        if example.path in NATIVE:
            assert body["inputs"] == example.sent["inputs"], name
            assert example.sent.get("parameters", {}).items() <= body["parameters"].items(), name
        if example.path == "/v1/chat/completions":
            same = {key: value for key, value in example.sent.items() if key in ("messages", "max_tokens")}
            assert same.items() <= body.items(), name
            assert body["model"] == "tgi", name


def test_stop_goes_as_a_list(examples: dict[str, Example]) -> None:
    example = examples["tgi-error-422-deserialize"]
    assert example.sent["stop"] == "###"
    assert json.loads(DIALECT.build(example.request, {}).body)["stop"] == ["###"]


def test_every_error(examples: dict[str, Example]) -> None:
    failing = {name: one for name, one in examples.items() if one.status >= 400}
    made = {name: DIALECT.error(one.status, one.headers, one.body) for name, one in failing.items()}
    assert {name: type(error) for name, error in made.items()} == ERRORS
    assert {name for name, error in made.items() if error.retryable} == RETRYABLE
    assert all(error.message for error in made.values())
    assert not [name for name, error in made.items() if error.retry_after is not None]


def test_whole_answers(examples: dict[str, Example]) -> None:
    def parsed(name: str) -> tuple[dict[str, Any], Usage]:
        example = examples[name]
        result = DIALECT.complete(DIALECT.parse(example.request, example.body), example.headers)
        assert result.body is not None
        assert result.body["usage"] == result.usage.openai()
        (choice,) = result.body["choices"]
        return choice, result.usage

    choice, usage = parsed("tgi-chat")
    assert (choice["finish_reason"], usage) == ("length", Usage(61, 100))
    assert choice["message"]["content"].startswith("As of your last question")

    choice, usage = parsed("tgi-chat-tools")
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], usage) == ("tool_calls", Usage(501, 29))
    assert call["id"] not in ("", "0")
    assert json.loads(call["function"]["arguments"]) == {"location": "Brooklyn, NY", "format": "fahrenheit"}

    choice, usage = parsed("tgi-generate")
    assert (choice["finish_reason"], usage) == ("length", Usage(4, 20))
    assert choice["text"] == "\nDeep Learning is a subset of machine learning."

    choice, usage = parsed("tgi-root-generate")
    assert (choice["finish_reason"], usage) == ("stop", Usage(4, 20))


def test_vectors(examples: dict[str, Example]) -> None:
    rows = [[0.25, -0.5, 0.125, 0.0625], [0.5, 0.5, -0.5, 0.5]]
    for name, usage in (("tei-embed", Usage()), ("tei-v1-embeddings", Usage(prompt=4))):
        result = DIALECT.parse(examples[name].request, examples[name].body)
        assert (result.vectors, result.usage) == (Vectors.from_floats(rows), usage)


STREAMS = ("tgi-chat-stream-usage", "tgi-chat-stream-tools", "tgi-generate-stream")


@pytest.mark.parametrize("size", [1, 97, 100_000])
def test_streams(examples: dict[str, Example], size: int) -> None:
    told = {}
    for name in STREAMS:
        *pieces, last = replay(examples[name], everywhere(examples[name], size))
        assert last["choices"] == []
        choices = [choice for chunk in pieces for choice in chunk["choices"]]
        reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
        assert len(reasons) == 1, name
        assert len({chunk["id"] for chunk in pieces}) == 1
        assert pieces[0]["id"]
        deltas = [choice.get("delta", choice) for choice in choices]
        text = "".join(delta.get("content") or delta.get("text") or "" for delta in deltas)
        calls = [call for delta in deltas for call in delta.get("tool_calls") or []]
        arguments = "".join(call["function"]["arguments"] for call in calls)
        ids = {call["id"] for call in calls if "id" in call}
        assert len(ids) == bool(calls)
        assert not ids & {"", "0"}
        usage = last["usage"]
        told[name] = (text, arguments, reasons[0], usage["prompt_tokens"], usage["completion_tokens"])
    arguments = told["tgi-chat-stream-tools"][1]
    assert isinstance(json.loads(arguments), dict)
    assert told == {
        "tgi-chat-stream-usage": ("OK!", "", "stop", 39, 3),
        "tgi-chat-stream-tools": ("", arguments, "tool_calls", 0, 0),
        "tgi-generate-stream": ("Hello there", "", "stop", 2, 3),
    }


def _without_ids(chunks: list[dict[str, Any]]) -> str:
    """The chunks without what is invented anew for each answer."""
    text = json.dumps([{**chunk, "id": "", "created": 0} for chunk in chunks])
    for chunk in chunks:
        for choice in chunk["choices"]:
            for call in choice.get("delta", {}).get("tool_calls") or []:
                text = text.replace(call.get("id") or "-", "ID")
    return text


@given(cuts=st.lists(st.integers(0, 100_000), max_size=12))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("name", STREAMS)
def test_cuts_do_not_matter(examples: dict[str, Example], name: str, cuts: list[int]) -> None:
    assert _without_ids(replay(examples[name], cuts)) == _without_ids(replay(examples[name], []))


@pytest.mark.parametrize("name", sorted(OVERLOADED_STREAMS))
def test_a_stream_that_is_an_error(examples: dict[str, Example], name: str) -> None:
    for seed in range(5):
        cuts = [Random(seed).randrange(200) for _ in range(4)]
        with pytest.raises(errors.BackendOverloaded):
            replay(examples[name], cuts)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_short_is_never_an_answer(examples: dict[str, Example], name: str) -> None:
    raw = examples[name].body
    for end in range(0, len(raw) // 2, 41):
        parser = DIALECT.parser(examples[name].request)
        list(parser.feed(raw[:end]))
        with pytest.raises(errors.StreamTruncated):
            list(parser.close())


def test_what_a_server_tells_of_itself(examples: dict[str, Example]) -> None:
    assert DIALECT.models_request({}).path == examples["tgi-info"].path
    ((name, card),) = DIALECT.parse_models(examples["tgi-info"].body).items()
    assert name == "meta-llama/Llama-3.1-8B-Instruct"
    assert (card.context_window, card.vision) == (4096, False)
    assert card.operations == (Operation.CHAT, Operation.COMPLETIONS)
    wire = DIALECT.load_request({})
    assert wire is not None
    assert wire.path == examples["tgi-metrics"].path
    assert DIALECT.parse_load(examples["tgi-metrics"].body) == Load(running=8, waiting=3)
    assert DIALECT.parse_load(examples["tgi-health"].body) == Load()
