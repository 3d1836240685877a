"""What Anthropic's clients get to read, whole and streamed, and the envelope of errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st

from anthropic_answers import BLOCKS, DELTAS, MESSAGES, USAGE, asked, chunks, events, gathered, job, whole
from anthropic_answers import streamed as stream_of
from k9_api.dialects.anthropic.stream import PING, MessageStream
from k9_api.dialects.anthropic.surface import ANTHROPIC
from k9_broker import errors
from k9_broker.errors import BackendError, K9Error
from k9_broker.results import Usage

COUNTED = {
    "input_tokens": 3,
    "cache_creation_input_tokens": 418,
    "cache_read_input_tokens": 1111,
    "output_tokens": 40,
    "output_tokens_details": {"thinking_tokens": 7},
}


@pytest.mark.parametrize("about", MESSAGES)
def test_a_whole_answer_is_complete(about: str) -> None:
    answer = whole(MESSAGES[about])
    assert answer["id"] == "msg_0123456789abcdefghjkmnpqrs"
    assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", "served")
    assert answer["content"] == BLOCKS[about]
    assert answer["usage"] == COUNTED
    assert answer.keys() >= {"stop_reason", "stop_sequence"}
    Message.model_validate(answer)


@pytest.mark.parametrize("about", DELTAS)
def test_a_stream_says_what_the_whole_answer_says(about: str) -> None:
    assert gathered(stream_of(chunks(DELTAS[about]))) == whole(MESSAGES[about])


@pytest.mark.parametrize(
    ("about", "reason", "more", "stop_reason", "stop_sequence"),
    [
        ("text", "stop", {}, "end_turn", None),
        ("text", "stop", {"stop_reason": "END"}, "stop_sequence", "END"),
        ("text", "stop", {"stop_reason": 128_009}, "end_turn", None),
        ("text", "stop", {"stop_reason": None}, "end_turn", None),
        ("text", "length", {}, "max_tokens", None),
        ("text", "content_filter", {}, "refusal", None),
        ("text", "unheard of", {}, "end_turn", None),
        ("refusal", "stop", {}, "refusal", None),
        ("tools", "tool_calls", {}, "tool_use", None),
        ("tools", "stop", {}, "tool_use", None),
        ("tools", "length", {}, "max_tokens", None),
    ],
)
def test_why_it_stopped(
    about: str, reason: str, more: Any, stop_reason: str, stop_sequence: str | None
) -> None:
    said = {"stop_reason": stop_reason, "stop_sequence": stop_sequence}
    answer = whole(MESSAGES[about], reason, **more)
    assert {name: answer[name] for name in said} == said
    assert stream_of(chunks(DELTAS[about], reason, **more))[-2]["delta"] == said


@pytest.mark.parametrize(
    ("used", "counts"),
    [
        (Usage(10, 5), (10, 0, 0, 5)),
        (Usage(1532, 5, cached=1111, written=418), (3, 418, 1111, 5)),
        (Usage(10, 5, cached=8, written=8), (0, 8, 8, 5)),
    ],
)
def test_input_tokens_are_without_what_a_cache_held(used: Usage, counts: tuple[int, ...]) -> None:
    said = whole(MESSAGES["text"], used=used)["usage"]
    assert tuple(said.values()) == counts


def test_a_stream_estimates_first_and_counts_at_the_end() -> None:
    first, *_, last, _ = stream_of(chunks(DELTAS["text"]))
    assert 30 < first["message"]["usage"]["input_tokens"] < 120
    assert last["usage"] == COUNTED
    uncounted = stream_of(chunks(DELTAS["text"])[:-1])[-2]
    assert uncounted["usage"] == {"output_tokens": 0}


def test_nothing_is_written_before_there_is_something_to_say() -> None:
    writer = MessageStream(asked(), job())
    assert writer.write({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}) is None
    assert writer.write({"choices": [{"index": 1, "delta": {"content": "another answer"}}]}) is None
    assert writer.write({"choices": [], "usage": USAGE.openai()}) is None
    first = writer.write({"choices": [{"index": 0, "delta": {"content": "a"}}]})
    assert first
    kinds = ["message_start", "content_block_start", "content_block_delta"]
    assert [event["type"] for event in events(first)] == kinds


@pytest.mark.parametrize("about", ["thinking", "signed"])
def test_thinking_that_was_switched_off_is_not_shown(about: str) -> None:
    body = {"thinking": {"type": "disabled"}}
    shown = [block for block in BLOCKS[about] if block.get("signature") != ""]
    assert whole(MESSAGES[about], body=body)["content"] == shown
    streamed = gathered(stream_of(chunks(DELTAS[about]), **body))["content"]
    assert [block["type"] for block in streamed] == [block["type"] for block in shown]


def test_arguments_cut_off_by_the_length_are_as_far_as_they_came() -> None:
    call = {"id": "c", "function": {"name": "look", "arguments": '{"at": "Paris", "da'}}
    answer = whole({"content": None, "tool_calls": [call]}, "length")
    assert answer["content"][0]["input"] == {"at": "Paris"}


@pytest.mark.parametrize("arguments", ["[1]", "7", "secret", "{]"])
def test_arguments_that_are_no_object_are_an_error(arguments: str) -> None:
    call = {"id": "c", "function": {"name": "look", "arguments": arguments}}
    with pytest.raises(BackendError) as caught:
        whole({"content": None, "tool_calls": [call]})
    assert "secret" not in caught.value.message


def test_pieces_of_two_calls_that_are_mixed_are_an_error() -> None:
    mixed = [*DELTAS["tools"], {"tool_calls": [{"index": 0, "function": {"arguments": " "}}]}]
    with pytest.raises(BackendError):
        stream_of(chunks(mixed))


deltas = st.lists(
    st.one_of(
        st.fixed_dictionaries({"content": st.text(max_size=3)}),
        st.fixed_dictionaries({"reasoning": st.text(max_size=3)}),
        st.sampled_from(DELTAS["signed"]),
        st.just({}),
        st.just({"content": None, "tool_calls": None}),
    ),
    max_size=12,
)


@given(deltas, st.booleans())
def test_whatever_the_chunks_the_order_holds_and_no_text_is_lost(pieces: Any, calls: bool) -> None:
    said = [*pieces, *(DELTAS["tools"][1:] if calls else [])]
    content = gathered(stream_of(chunks(said)))["content"]
    for kind, name in (("text", "content"), ("thinking", "reasoning")):
        told = "".join(block.get(kind, "") for block in content if block["type"] == kind)
        assert told == "".join(piece.get(name) or "" for piece in said)
    assert [block["id"] for block in content if block["type"] == "tool_use"] == ["c0", "c1"] * calls


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.BadRequest(param="messages"), 400, "invalid_request_error"),
        (errors.ContextTooLong(), 400, "invalid_request_error"),
        (errors.Unauthorized(), 401, "authentication_error"),
        (errors.BudgetExhausted(), 402, "billing_error"),
        (errors.PrivacyRefused(), 403, "permission_error"),
        (errors.ModelNotFound(param="model"), 404, "not_found_error"),
        (errors.RouteNotFound(), 404, "not_found_error"),
        (errors.MethodNotAllowed(), 405, "invalid_request_error"),
        (errors.JobCancelled(), 409, "conflict_error"),
        (errors.BodyTooLarge(), 413, "request_too_large"),
        (errors.NotJson(), 415, "invalid_request_error"),
        (errors.BackendRateLimited(), 429, "rate_limit_error"),
        (errors.BackendQuotaExceeded(), 429, "rate_limit_error"),
        (errors.K9Error(), 500, "api_error"),
        (errors.BackendError(), 502, "api_error"),
        (errors.QueueFull(), 503, "overloaded_error"),
        (errors.BackendUnavailable(), 503, "overloaded_error"),
        (errors.BackendOverloaded(), 503, "overloaded_error"),
        (errors.LedgerUnavailable(), 503, "api_error"),
        (errors.BackendTimeout(), 504, "timeout_error"),
        (errors.JobExpired(), 504, "timeout_error"),
    ],
)
def test_an_error_has_anthropics_envelope(error: K9Error, status: int, kind: str) -> None:
    assert error.status == status
    said = json.loads(ANTHROPIC.error(error, "req_1"))
    assert (said["type"], said["request_id"], said["error"]["type"]) == ("error", "req_1", kind)
    assert error.message in said["error"]["message"]
    assert said["error"]["details"]["error_code"] == error.code
    assert said["error"]["details"].get("param") == error.param
    [event] = events(ANTHROPIC.error_frame(error, "req_1"))
    assert event == said


@pytest.mark.parametrize(
    ("param", "word"),
    [
        ("reasoning_effort", "thinking"),
        ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use"),
        ("response_format", "output_config.format"),
        ("response_format.json_schema.schema", "output_config.format"),
        ("stop", "stop_sequences"),
        ("max_completion_tokens", "max_tokens"),
        ("user", "metadata.user_id"),
        ("top_k", "top_k"),
    ],
)
def test_what_is_refused_is_named_in_the_callers_words(param: str, word: str) -> None:
    error = errors.UnsupportedParameter(f"TGI does not support {param} as asked for.", param=param)
    told = json.loads(ANTHROPIC.error(error, "r"))["error"]
    assert told["details"]["param"] == word
    assert told["message"] == f"TGI does not support {word} as asked for."


def test_an_overflow_of_the_context_is_told_in_the_words_clients_know() -> None:
    said = json.loads(ANTHROPIC.error(errors.ContextTooLong("It has 9 tokens."), "r"))
    assert said["error"]["message"] == "prompt is too long: It has 9 tokens."
    known = json.loads(ANTHROPIC.error(errors.ContextTooLong("Prompt is too long: 9 > 8"), "r"))
    assert known["error"]["message"] == "Prompt is too long: 9 > 8"


def test_silence_is_filled_with_pings() -> None:
    assert ANTHROPIC.keep_alive == PING == b'event: ping\ndata: {"type":"ping"}\n\n'
