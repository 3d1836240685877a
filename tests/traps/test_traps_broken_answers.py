"""Answers that are cut off, hide an error, or come in pieces that naive readers choke on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from menagerie import CHATTING, SPARE, Menagerie, events, only, twin

FAULTS: dict[str, dict[str, Any]] = {
    "cut off": {"cut_after_tokens": 4},
    "an error amid it": {"error_after_tokens": 4},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CHATTING)
def test_trap_01_truncated_stream_is_an_error(k9: Menagerie, breaks: Any, name: str, fault: str) -> None:
    """`[DONE]` proves nothing: vLLM and TGI send it after an error."""
    breaks(name, **FAULTS[fault])
    reply = k9.chat(only(name), stream=True)
    *said, last = events(reply.text)
    assert any(choice["delta"].get("content") for frame in said for choice in frame["choices"])
    assert set(last) == {"error"}
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert not [1 for frame in said for choice in frame["choices"] if choice["finish_reason"]]
    job = k9.ended_job(reply)
    assert (job["state"], job["error"]["code"]) == ("failed", last["error"]["code"])


def test_trap_01_truncated_stream_is_an_error_in_anthropics_words(k9: Menagerie, breaks: Any) -> None:
    """An error frame in OpenAI's words would be passed over in silence."""
    breaks("vllm", cut_after_tokens=4)
    asked = {"model": only("vllm"), "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
    reply = k9.http.post("/v1/messages", json={**asked, "stream": True})
    *_, last = reply.text.strip().split("\n\n")
    head, data = last.split("\n")
    assert head == "event: error"
    assert json.loads(data.removeprefix("data: "))["type"] == "error"
    assert "message_stop" not in reply.text
    assert k9.ended_job(reply)["state"] == "failed"


@pytest.mark.parametrize("fault", [{"reset": True}, {"die_after_head": True}, {"cut_after_tokens": 3}])
def test_trap_01_truncated_answer_that_was_not_streamed(k9: Menagerie, breaks: Any, fault: Any) -> None:
    """Nothing has reached the caller, so another backend answers instead."""
    breaks("compatible", **fault)
    reply = k9.chat(twin("compatible"))
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["finish_reason"] == "stop"
    assert reply.headers["x-k9-backend"] == SPARE
    assert reply.headers["x-k9-reason"].startswith("failover:")


@pytest.mark.parametrize(
    ("name", "streamed"),
    [(name, streamed) for name in CHATTING for streamed in (False, True)],
)
def test_trap_02_error_inside_a_200_is_failed_over(
    k9: Menagerie, breaks: Any, name: str, streamed: bool
) -> None:
    """The status says 200; the first thing in the body is an error."""
    breaks(name, error_after_tokens=0)
    breaks(SPARE)
    reply = k9.chat(twin(name), stream=streamed)
    assert reply.status_code == 200
    assert reply.headers["x-k9-backend"] == SPARE
    if streamed:
        *said, done = events(reply.text)
        assert done == "[DONE]"
        assert said[-1]["choices"][0]["finish_reason"] == "stop"
    else:
        assert reply.json()["choices"][0]["message"]["content"]
    job = k9.ended_job(reply)
    assert job["state"] == "succeeded"
    assert any(line.startswith(f"{name}: failed:") for line in job["skipped"])
    assert k9.inferences(name) == k9.inferences(SPARE) == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_trap_02_error_inside_a_200_has_a_status(k9: Menagerie, breaks: Any, streamed: bool) -> None:
    """Where nobody else has the model, it is at least no 200."""
    breaks("tgi", error_after_tokens=0)
    reply = k9.chat(only("tgi"), stream=streamed)
    assert reply.status_code >= 500, reply.text
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert k9.ended_job(reply)["state"] == "failed"


@pytest.mark.parametrize("name", CHATTING)
def test_trap_15_first_choice_is_not_on_every_chunk(k9: Menagerie, name: str) -> None:
    """Azure's first chunk and every usage chunk have none. Callers get one on every chunk."""
    frames = k9.frames(only(name))
    *chunks, done = frames
    assert done == "[DONE]"
    assert all(len(chunk["choices"]) == 1 and "delta" in chunk["choices"][0] for chunk in chunks)
    assert len({(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks}) == 1
    assert chunks[0]["id"]
    assert chunks[0]["object"] == "chat.completion.chunk"


@pytest.mark.parametrize("name", CHATTING)
def test_trap_18_own_frames_are_of_the_strictest_form(k9: Menagerie, name: str) -> None:
    """`data: ` with a space, LF, a blank line after every frame, the last one too."""
    reply = k9.chat(only(name), stream=True, stream_options={"include_usage": True})
    assert reply.headers["content-type"].split(";")[0] == "text/event-stream"
    assert "\r" not in reply.text
    assert reply.text.endswith("data: [DONE]\n\n")
    blocks = reply.text.removesuffix("\n\n").split("\n\n")
    assert all(block.startswith(("data: {", "data: [DONE]", ": ")) for block in blocks)
    assert all("\n" not in block for block in blocks)
