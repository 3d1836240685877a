"""K-9 as Anthropic's callers meet it: the official SDK, the newest and an old one, and the whole stack."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic import Anthropic, AsyncAnthropic

from anthropic_answers import events, gathered
from sdk_targets import run_client, sdk_folder
from stack import Stack
from stand import wait_until

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
SLOW: dict[str, Any] = {"tokens_per_second": 20, "answer_tokens": 2000}
"""A minute and a half of an answer: whoever ends it sooner has cancelled it."""
OLD = "0.125.0"


@pytest.fixture(scope="module", params=["installed", OLD])
def said(request: pytest.FixtureRequest, stack: Stack) -> Any:
    """What one SDK got to read, all of it."""
    path = None if request.param == "installed" else sdk_folder(f"anthropic-{OLD}")
    stack.fake.reset()
    told = run_client("anthropic_client.py", stack.url, stack.model, path=path)
    assert told["version"] == (OLD if path else anthropic.__version__)
    return told


@pytest.fixture
def sdk(k9: Stack) -> Iterator[Anthropic]:
    with Anthropic(base_url=k9.url, api_key="any", max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
async def async_sdk(k9: Stack) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=k9.url, api_key="any", max_retries=0, timeout=20) as client:
        yield client


def ask(k9: Stack, **more: Any) -> dict[str, Any]:
    return {"model": k9.model, "max_tokens": 2000, "messages": HELLO, **more}


# -- both SDKs -------------------------------------------------------------------------------------


def test_a_message_is_whole(said: Any) -> None:
    whole = said["whole"]
    assert whole["id"].startswith("msg_")
    assert (whole["type"], whole["role"], whole["stop_reason"]) == ("message", "assistant", "end_turn")
    assert [block["type"] for block in whole["content"]] == ["text"]
    assert whole["usage"]["output_tokens"] > whole["usage"]["input_tokens"] > 0
    assert said["beta"]["content"][0]["text"]


def test_a_stream_says_the_same(said: Any) -> None:
    for name in ("content", "stop_reason", "usage", "model"):
        assert said["streamed"][name] == said["whole"][name]
    assert (said["short"]["stop_reason"], said["short"]["usage"]["output_tokens"]) == ("max_tokens", 2)


def test_two_tools_are_called_at_once(said: Any) -> None:
    called = said["called"]
    assert called["stop_reason"] == "tool_use"
    tools = [block for block in called["content"] if block["type"] == "tool_use"]
    assert [tool["name"] for tool in tools] == ["look", "wait"]
    assert isinstance(tools[0]["input"]["city"], str)
    assert tools[1]["input"] == {}
    assert len({tool["id"] for tool in tools}) == 2
    assert said["called streamed"]["content"] == called["content"]
    assert said["called streamed"]["stop_reason"] == "tool_use"


def test_the_choice_of_tools_is_the_callers(said: Any) -> None:
    assert [block["name"] for block in said["one"]["content"]] == ["look"]
    assert [block["name"] for block in said["forced"]["content"]] == ["wait"]


def test_a_history_with_thinking_and_results_goes_through(said: Any) -> None:
    assert said["answered"]["stop_reason"] == "end_turn"
    assert said["answered"]["content"][-1]["text"]


def test_models_and_counts(said: Any, stack: Stack) -> None:
    assert {stack.model, stack.embed_model, "auto"} <= set(said["models"])
    assert len(said["models"]) == len(set(said["models"]))
    assert (said["model"]["id"], said["model"]["type"]) == (stack.model, "model")
    assert 0 < said["counted"] < 20


def test_answers_tell_where_they_ran(said: Any) -> None:
    headers = said["raw"]["headers"]
    assert headers["x-k9-backend"] == "fake"
    assert headers["request-id"] == headers["x-request-id"]
    assert said["raw"]["id"] == "msg_" + headers["x-k9-job"].removeprefix("job-")


def test_each_version_of_the_api_keeps_its_promises(said: Any) -> None:
    if said["version"].startswith("0."):
        assert said["sampled"] == {}
    else:
        assert said["sampled"]["status"] == 400
        assert "`temperature`" in said["sampled"]["body"]["error"]["message"]


@pytest.mark.parametrize(
    ("what", "kind", "status", "error_type"),
    [
        ("unknown", "NotFoundError", 404, "not_found_error"),
        ("unknown streamed", "NotFoundError", 404, "not_found_error"),
        ("missing", "NotFoundError", 404, "not_found_error"),
        ("bad", "BadRequestError", 400, "invalid_request_error"),
    ],
)
def test_errors_are_the_sdks_own(said: Any, what: str, kind: str, status: int, error_type: str) -> None:
    error = said[what]
    assert (error["class"], error["status"]) == (kind, status)
    assert error["body"]["type"] == "error"
    assert error["body"]["error"]["type"] == error_type
    assert error["body"]["request_id"] == error["request_id"]


# -- the newest SDK, and what bare HTTP shows ------------------------------------------------------


async def test_streams_from_asyncio(k9: Stack, async_sdk: AsyncAnthropic) -> None:
    async with async_sdk.messages.stream(**ask(k9)) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final: Any = await stream.get_final_message()
    assert final.content[0].text == text
    assert text


def test_the_answer_is_what_openais_callers_get(k9: Stack, sdk: Anthropic, http: httpx.Client) -> None:
    one: Any = sdk.messages.create(**ask(k9))
    body = {"model": k9.model, "messages": HELLO}
    other = http.post("/v1/chat/completions", json=body).json()
    assert one.content[0].text == other["choices"][0]["message"]["content"]
    assert one.usage.input_tokens == other["usage"]["prompt_tokens"]
    assert one.usage.output_tokens == other["usage"]["completion_tokens"]


def test_controls_are_taken(k9: Stack, sdk: Anthropic) -> None:
    raw: Any = sdk.messages.with_raw_response.create(
        **ask(k9), extra_body={"k9": {"task_type": "translation"}}
    )
    assert raw.headers["x-k9-task-type"] == "translation"
    with pytest.raises(anthropic.BadRequestError):
        sdk.messages.create(**ask(k9), extra_headers={"X-K9-Nonsense": "1"})


def test_the_key_of_a_caller_goes_no_further(k9: Stack, sdk: Anthropic) -> None:
    with Anthropic(base_url=k9.url, api_key="k-of-the-caller", timeout=20) as client:
        client.messages.create(**ask(k9))
    assert "k-of-the-caller" not in str(k9.fake.requests())


def test_a_stream_is_strictly_ordered(k9: Stack, http: httpx.Client) -> None:
    reply = http.post("/v1/messages?beta=true", json=ask(k9, stream=True))
    assert reply.headers["content-type"].startswith("text/event-stream")
    message = gathered(events(reply.content))
    assert message["content"][0]["text"]
    assert message["usage"]["output_tokens"] > 0


def test_an_error_amid_a_stream_reaches_the_caller(k9: Stack, sdk: Anthropic, http: httpx.Client) -> None:
    k9.fake.behave(error_after_tokens=3, tokens_per_second=200)
    with sdk.messages.stream(**ask(k9)) as stream:
        assert next(stream.text_stream)
        with pytest.raises(anthropic.APIStatusError):
            stream.get_final_message()
    *_, last = events(http.post("/v1/messages", json=ask(k9, stream=True)).content)
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    assert last["request_id"]


def test_a_truncated_stream_is_never_a_success(k9: Stack, http: httpx.Client) -> None:
    k9.fake.behave(cut_after_tokens=3, tokens_per_second=200)
    found = events(http.post("/v1/messages", json=ask(k9, stream=True)).content)
    assert found[-1]["type"] == "error"
    assert "message_stop" not in [event["type"] for event in found]


def test_a_failing_backend_is_asked_no_more_by_an_sdk_that_would_retry(k9: Stack) -> None:
    k9.fake.behave(error_rate=1, error_status=500)
    with Anthropic(base_url=k9.url, api_key="any", timeout=20) as retrying:
        before = k9.fake.stats()["inferences"]
        with pytest.raises(anthropic.InternalServerError) as caught:
            retrying.messages.create(**ask(k9))
        once = k9.fake.stats()["inferences"] - before
    assert caught.value.response.headers["x-should-retry"] == "false"
    before = k9.fake.stats()["inferences"]
    httpx.post(f"{k9.url}/v1/messages", json=ask(k9), timeout=20)
    assert k9.fake.stats()["inferences"] - before == once


@pytest.mark.parametrize("stream", [True, False])
def test_a_caller_who_hangs_up_stops_the_backend_within_a_second(k9: Stack, stream: bool) -> None:
    k9.fake.behave(**SLOW)
    seen = k9.fake.stats()["disconnects"]
    with httpx.Client(base_url=k9.url, timeout=20 if stream else 0.5) as http:
        try:
            with http.stream("POST", "/v1/messages", json=ask(k9, stream=stream)) as reply:
                lines = reply.iter_lines()
                assert [next(lines) for _ in range(5)]
        except httpx.ReadTimeout:
            assert not stream
    hung_up = time.monotonic()
    k9.fake.wait(lambda now: now["disconnects"] == seen + 1 and now["active"] == 0, timeout=5)
    assert time.monotonic() - hung_up < 1


def test_the_job_is_listed_as_any_other(k9: Stack, sdk: Anthropic, http: httpx.Client) -> None:
    raw: Any = sdk.messages.with_raw_response.create(**ask(k9))
    job = wait_until(lambda: http.get(f"/v1/jobs/{raw.headers['x-k9-job']}").json(), "the job is known")
    assert isinstance(job, dict)
    assert (job["state"], job["model"]) == ("succeeded", k9.model)
    assert job["usage"]["completion_tokens"] == raw.parse().usage.output_tokens
