"""K-9 as its callers meet it: the official OpenAI SDK and a bare HTTP client against the whole stack."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from k9_broker.results import unpack
from stack import Stack
from stand import wait_until

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SLOW: dict[str, Any] = {"tokens_per_second": 20, "answer_tokens": 2000}
"""A minute and a half of an answer: whoever ends it sooner has cancelled it."""


@pytest.fixture
def sdk(k9: Stack) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{k9.url}/v1", api_key="any", max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
async def async_sdk(k9: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{k9.url}/v1", api_key="any", max_retries=0, timeout=20) as client:
        yield client


def chat(k9: Stack, **more: Any) -> dict[str, Any]:
    return {"model": k9.model, "messages": HELLO, **more}


# -- the SDK ---------------------------------------------------------------------------------------


def test_chat(k9: Stack, sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(model=k9.model, messages=HELLO)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


async def test_chat_from_asyncio(k9: Stack, async_sdk: AsyncOpenAI) -> None:
    answer = await async_sdk.chat.completions.create(model=k9.model, messages=HELLO, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]


def test_a_stream_says_what_the_whole_answer_says(k9: Stack, sdk: OpenAI) -> None:
    whole = sdk.chat.completions.create(model=k9.model, messages=HELLO)
    chunks = list(sdk.chat.completions.create(model=k9.model, messages=HELLO, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_stream_with_usage_from_asyncio(k9: Stack, async_sdk: AsyncOpenAI) -> None:
    stream = await async_sdk.chat.completions.create(
        model=k9.model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens > 0


def test_tools_pass_through(k9: Stack, sdk: OpenAI) -> None:
    ask: list[Any] = [{"role": "user", "content": "Please use the tool get_weather."}]
    answer = sdk.chat.completions.create(model=k9.model, messages=ask, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert calls
    call: Any = calls[0]
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)
    with sdk.chat.completions.stream(model=k9.model, messages=ask, tools=[WEATHER]) as stream:
        final = stream.get_final_completion()
    streamed: Any = final.choices[0].message.tool_calls
    assert streamed[0].id == call.id
    assert streamed[0].function.arguments == call.function.arguments


@pytest.mark.parametrize("stream", [False, True])
def test_completions(k9: Stack, sdk: OpenAI, stream: bool) -> None:
    answer: Any = sdk.completions.create(model=k9.model, prompt="Once upon", stream=stream)
    parts = list(answer) if stream else [answer]
    assert "".join(part.choices[0].text for part in parts)
    assert parts[-1].choices[0].finish_reason == "stop"
    assert {part.object for part in parts} == {"text_completion"}


@pytest.mark.parametrize("text", ["hello", ["hello", "there"], [1, 2, 3], [[1, 2], [3]]])
def test_embeddings_by_default_and_as_floats_are_the_same(k9: Stack, sdk: OpenAI, text: Any) -> None:
    default = sdk.embeddings.create(model=k9.embed_model, input=text)
    floats = sdk.embeddings.create(model=k9.embed_model, input=text, encoding_format="float")
    assert [row.embedding for row in default.data] == [row.embedding for row in floats.data]
    assert [row.index for row in default.data] == list(range(len(default.data)))
    assert default.usage.total_tokens > 0
    raw = sdk.embeddings.with_raw_response.create(model=k9.embed_model, input=text, encoding_format="base64")
    packed = json.loads(raw.text)["data"][0]["embedding"]
    assert unpack(b64decode(packed)) == floats.data[0].embedding


async def test_embeddings_from_asyncio_keep_their_order(k9: Stack, async_sdk: AsyncOpenAI) -> None:
    texts = [f"text number {number}" for number in range(300)]
    together = await async_sdk.embeddings.create(model=k9.embed_model, input=texts)
    alone = await async_sdk.embeddings.create(model=k9.embed_model, input=texts[257])
    assert len(together.data) == 300
    assert together.data[257].embedding == alone.data[0].embedding


def test_models(k9: Stack, sdk: OpenAI) -> None:
    names = [model.id for model in sdk.models.list()]
    assert {k9.model, k9.embed_model} <= set(names)
    assert sdk.models.retrieve(k9.model).id == k9.model
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.models.retrieve("org/model:tag")
    assert caught.value.code == "model_not_found"


# -- errors ----------------------------------------------------------------------------------------


def test_an_unknown_model_is_not_found(sdk: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="nobody", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_request_is_refused_at_the_door(k9: Stack, sdk: OpenAI, stream: bool) -> None:
    bad: Any
    for bad in ({"messages": []}, {"messages": "hello"}, {"messages": HELLO, "temperature": "hot"}):
        with pytest.raises(openai.BadRequestError):
            sdk.chat.completions.create(model=k9.model, stream=stream, **bad)
    assert k9.fake.stats()["inferences"] == 0


def test_malformed_and_oversize_bodies_harm_nobody_else(k9: Stack, http: httpx.Client) -> None:
    http.headers["content-type"] = "application/json"
    assert http.post("/v1/chat/completions", content=b'{"model": ').status_code == 400
    assert http.post("/v1/embeddings", content=b" " * (33 * 2**20)).status_code == 413
    assert http.post("/v1/chat/completions", json=chat(k9)).status_code == 200


def test_a_failing_backend_is_asked_once_by_an_sdk_that_would_retry(k9: Stack) -> None:
    k9.fake.behave(error_rate=1, error_status=400)
    with OpenAI(base_url=f"{k9.url}/v1", api_key="any", timeout=20) as sdk:
        with pytest.raises(openai.BadRequestError):
            sdk.chat.completions.create(model=k9.model, messages=HELLO)
        k9.fake.behave(error_status=500)
        before = k9.fake.stats()["inferences"]
        with pytest.raises(openai.InternalServerError) as caught:
            sdk.chat.completions.create(model=k9.model, messages=HELLO)
        once = k9.fake.stats()["inferences"] - before
        assert caught.value.response.headers["x-should-retry"] == "false"
        before = k9.fake.stats()["inferences"]
        assert httpx.post(f"{k9.url}/v1/chat/completions", json=chat(k9), timeout=20).status_code >= 500
        assert k9.fake.stats()["inferences"] - before == once


def test_an_error_amid_a_stream_reaches_the_caller(k9: Stack, sdk: OpenAI) -> None:
    k9.fake.behave(error_after_tokens=3, tokens_per_second=200)
    stream = sdk.chat.completions.create(model=k9.model, messages=HELLO, stream=True)
    seen = [next(stream) for _ in range(3)]
    assert any(chunk.choices[0].delta.content for chunk in seen)
    with pytest.raises(openai.APIError):
        list(stream)


def test_a_deadline_is_kept(k9: Stack, http: httpx.Client) -> None:
    k9.fake.behave(**SLOW)
    began = time.monotonic()
    reply = http.post("/v1/chat/completions", json=chat(k9), headers={"X-K9-Deadline": "1"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert time.monotonic() - began < 10
    k9.fake.wait(lambda seen: seen["active"] == 0)


# -- what bare HTTP shows --------------------------------------------------------------------------


def test_every_answer_says_where_it_ran_and_why(k9: Stack, http: httpx.Client) -> None:
    bodies = {
        "/v1/chat/completions": chat(k9),
        "/v1/completions": {"model": k9.model, "prompt": "a"},
        "/v1/embeddings": {"model": k9.embed_model, "input": "a"},
    }
    streams = {path: {**body, "stream": True} for path, body in bodies.items() if path != "/v1/embeddings"}
    for path, body in [*bodies.items(), *streams.items()]:
        reply = http.post(path, json=body)
        assert reply.status_code == 200
        assert reply.headers["x-k9-job"].startswith("job-")
        assert (reply.headers["x-k9-backend"], reply.headers["x-k9-kind"]) == ("fake", "local")
        assert reply.headers["x-k9-model"] == body["model"]
        assert reply.headers["x-k9-reason"] == "task-type:local"
        assert 0 <= float(reply.headers["x-k9-queue-seconds"]) < 10
        assert reply.headers["x-request-id"]


def test_queues_and_metrics_tell_of_the_work(k9: Stack, http: httpx.Client) -> None:
    k9.fake.behave(**SLOW)
    job = http.post("/v1/jobs", json={"endpoint": "/v1/chat/completions", "body": chat(k9)}).json()
    queue = wait_until(
        lambda: [one for one in http.get("/v1/queues").json()["data"] if one["in_flight"]], "the job runs"
    )
    assert isinstance(queue, list)
    assert (queue[0]["backend"], queue[0]["slots"]) == ("fake", k9.slots)
    assert queue[0]["waiting"] == {"interactive": 0, "batch": 0}
    text = http.get("/metrics").text
    assert 'k9_in_flight{backend="fake"} 1.0' in text
    assert 'k9_queue_depth{backend="fake",priority="interactive"} 0.0' in text
    assert 'k9_submitted_total{backend="fake",operation="chat",priority="interactive"}' in text
    http.delete(f"/v1/jobs/{job['id']}")
    assert 'k9_jobs_total{backend="fake",operation="chat",state="cancelled"}' in http.get("/metrics").text
    assert http.get("/readyz").status_code == 200


# -- hanging up ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_caller_who_hangs_up_stops_the_backend_within_a_second(k9: Stack, stream: bool) -> None:
    k9.fake.behave(**SLOW)
    with httpx.Client(base_url=k9.url, timeout=20 if stream else 0.5) as http:
        try:
            with http.stream("POST", "/v1/chat/completions", json=chat(k9, stream=stream)) as reply:
                lines = reply.iter_lines()
                assert [next(lines) for _ in range(5)]
        except httpx.ReadTimeout:
            assert not stream
    hung_up = time.monotonic()
    k9.fake.wait(lambda seen: seen["disconnects"] == 1 and seen["active"] == 0, timeout=5)
    assert time.monotonic() - hung_up < 1
