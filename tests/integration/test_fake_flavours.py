"""The habits of each server on the paths that several of them share."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fake_calls import CHAT, ask, call, chunks, get, refusal, send
from k9_broker.testing import FakeServer

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("act", "rest")
]
BOTH = [{"role": "user", "content": "use the tool act, then use the tool rest"}]


@pytest.mark.parametrize("flavour", ["openai", "vllm", "tgi", "llamacpp"])
def test_a_stream_says_what_the_plain_answer_says(fake: FakeServer, flavour: str) -> None:
    fake.behave(flavour=flavour)
    whole = json.loads(ask(fake)[2])
    *told, done = chunks(fake, stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert told[-1]["choices"] == []
    assert told[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
    text = "".join(each["choices"][0]["delta"].get("content") or "" for each in told[:-1])
    assert text == whole["choices"][0]["message"]["content"]
    assert {each["id"] for each in told} == {whole["id"]}
    finishes = [each["choices"][0]["finish_reason"] for each in told[:-1]]
    assert finishes == [None] * (len(finishes) - 1) + ["stop"]


# -- OpenAI -----------------------------------------------------------------------------------------


def test_openai_names_a_snapshot_and_keeps_its_thoughts(fake: FakeServer) -> None:
    fake.behave(flavour="openai", reasoning_tokens=5)
    _, headers, data = ask(fake)
    body = json.loads(data)
    assert body["model"].startswith("fake-chat-20")
    assert headers["openai-processing-ms"]
    assert body["usage"]["completion_tokens"] == 21
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 5
    assert set(body["choices"][0]["message"]) == {"role", "content", "refusal", "annotations"}
    quiet = json.loads(ask(fake, call(reasoning_effort="none"))[2])
    assert quiet["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


@pytest.mark.parametrize("flavour", ["plain", "openai", "vllm", "llamacpp"])
def test_thoughts_count_towards_the_limit(fake: FakeServer, flavour: str) -> None:
    fake.behave(flavour=flavour, reasoning_tokens=5)
    for limit, said in ((3, 0), (5, 0), (8, 3)):
        body = json.loads(ask(fake, call(max_completion_tokens=limit))[2])
        assert body["usage"]["completion_tokens"] == limit
        assert len((body["choices"][0]["message"]["content"] or "").split()) == said
        assert body["choices"][0]["finish_reason"] == "length"


def test_openai_models_that_think_are_picky(fake: FakeServer) -> None:
    fake.behave(flavour="openai", reasoning_tokens=5)
    assert refusal(fake, 400, call(max_tokens=5))["code"] == "unsupported_parameter"
    assert refusal(fake, 400, call(temperature=0))["code"] == "unsupported_value"
    assert ask(fake, call(temperature=1, max_completion_tokens=9))[0] == 200


# -- vLLM -------------------------------------------------------------------------------------------


def test_vllm_thinks_aloud(fake: FakeServer) -> None:
    fake.behave(flavour="vllm", reasoning_tokens=5)
    message = json.loads(ask(fake)[2])["choices"][0]["message"]
    assert len(message["reasoning"].split()) == 4
    *told, _ = chunks(fake)
    assert told[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    thought = "".join(each["choices"][0]["delta"].get("reasoning", "") for each in told)
    assert thought == message["reasoning"]
    off = json.loads(ask(fake, call(chat_template_kwargs={"enable_thinking": False}))[2])
    assert off["choices"][0]["message"]["reasoning"] is None


def test_vllm_has_nulls_and_stop_reasons(fake: FakeServer) -> None:
    fake.behave(flavour="vllm")
    body = json.loads(ask(fake)[2])
    assert body["usage"]["prompt_tokens_details"] is body["usage"]["completion_tokens_details"] is None
    assert body["choices"][0]["stop_reason"] is None
    word = body["choices"][0]["message"]["content"].split()[3]
    stopped = json.loads(ask(fake, call(stop=word))[2])["choices"][0]
    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", word)
    assert chunks(fake, stop=[word])[-2]["choices"][0]["stop_reason"] == word
    counted = chunks(fake, stream_options={"include_usage": True})
    assert all("usage" not in chunk for chunk in counted[:-2])


def test_vllm_calls_tools(fake: FakeServer) -> None:
    fake.behave(flavour="vllm")
    asked: dict[str, Any] = {"messages": BOTH, "tools": TOOLS}
    whole = json.loads(ask(fake, call(**asked))[2])["choices"][0]
    ids = [each["id"] for each in whole["message"]["tool_calls"]]
    assert (len(set(ids)), whole["finish_reason"]) == (2, "tool_calls")
    assert all(each.startswith("chatcmpl-tool-") for each in ids)
    told = [chunk["choices"][0]["delta"] for chunk in chunks(fake, **asked)[:-1]]
    heads = [each["tool_calls"][0] for each in told if "id" in each.get("tool_calls", [{}])[0]]
    assert [head["id"] for head in heads] == ids
    assert "tool_calls" not in json.loads(ask(fake)[2])["choices"][0]["message"]


def test_vllm_says_done_after_an_error(fake: FakeServer) -> None:
    fake.behave(flavour="vllm", error_after_tokens=3)
    *_, last, done = chunks(fake)
    assert (last["error"]["code"], last["error"]["type"], done) == (500, "InternalServerError", "[DONE]")


def test_the_four_shapes_of_vllms_errors(fake: FakeServer) -> None:
    fake.behave(flavour="vllm", context_tokens=5)
    missing = refusal(fake, 404, call(model="nope"))
    assert (missing["type"], missing["param"], missing["code"]) == ("NotFoundError", "model", 404)
    assert missing["message"] == "The model `nope` does not exist. Valid aliases: fake-chat, fake-embed."
    long = refusal(fake, 400, call(messages=[{"role": "user", "content": "one two three four"}]))
    assert (long["type"], long["param"], long["code"]) == ("BadRequestError", "input_tokens", 400)
    assert refusal(fake, 400, call(max_tokens=100))["param"] == "max_tokens"
    fitted = json.loads(ask(fake, call(max_tokens=5))[2])
    assert fitted["usage"] == {**fitted["usage"], "prompt_tokens": 3, "completion_tokens": 2}
    assert refusal(fake, 400, (CHAT[0], {"model": "fake-chat"}))["type"] == "Bad Request"
    assert refusal(fake, 400, call(stream_options={"include_usage": True}))["param"] == "stream_options"
    fake.behave(fail_next=1, error_status=503)
    assert refusal(fake, 503)["type"] == "Service Unavailable"
    for path in ("/v1/models/fake-chat", "/v1/nothing", "/", CHAT[0]):
        assert get(fake, path)[::2] == (404, b'{"detail":"Not Found"}')
    fake.behave(api_key="secret")
    assert json.loads(ask(fake)[2]) == {"error": "Unauthorized"}


def test_vllms_lists(fake: FakeServer) -> None:
    fake.behave(flavour="vllm", context_tokens=1000)
    models = json.loads(get(fake, "/v1/models")[2])["data"]
    assert [model["max_model_len"] for model in models] == [1000, 1000]
    assert get(fake, "/health") == (200, "", b"")
    assert "version" in json.loads(get(fake, "/version")[2])


# -- llama.cpp --------------------------------------------------------------------------------------


def test_llamacpp_has_timings_and_thinks_in_its_own_word(fake: FakeServer) -> None:
    fake.behave(flavour="llamacpp", reasoning_tokens=4)
    body = json.loads(ask(fake)[2])
    assert body["timings"]["predicted_n"] == 20
    thought = body["choices"][0]["message"]["reasoning_content"]
    *told, _ = chunks(fake)
    deltas = [chunk["choices"][0]["delta"] for chunk in told]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == thought
    assert told[-1]["timings"]["predicted_n"] == 20
    assert json.loads(ask(fake, call(model="anything"))[2])["model"] == "anything"


def test_llamacpps_slots(fake: FakeServer) -> None:
    fake.behave(flavour="llamacpp", slots=2, hang=True)
    assert get(fake, "/slots?fail_on_no_slot=1")[0] == 200
    link = send(fake, CHAT)
    fake.wait(lambda stats: stats["active"] == 1)
    slots = json.loads(get(fake, "/slots")[2])
    assert [slot["is_processing"] for slot in slots] == [True, False]
    other = send(fake, CHAT)
    fake.wait(lambda stats: stats["active"] == 2)
    assert get(fake, "/slots?fail_on_no_slot=1")[0] == 503
    assert json.loads(get(fake, "/props")[2])["total_slots"] == 2
    link.close()
    other.close()


def test_llamacpps_errors_have_a_number_for_a_code(fake: FakeServer) -> None:
    fake.behave(flavour="llamacpp", context_tokens=5)
    long = refusal(fake, 400, call(max_tokens=100))
    assert (long["type"], long["code"], long["n_ctx"]) == ("exceed_context_size_error", 400, 5)
    assert refusal(fake, 400, (CHAT[0], {}))["code"] == 400
    assert refusal(fake, 404, ("/v1/nothing", {}))["type"] == "not_found_error"
    fake.behave(api_key="secret")
    assert refusal(fake, 401) == {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}
    assert get(fake, "/v1/models")[0] == get(fake, "/health")[0] == 200
