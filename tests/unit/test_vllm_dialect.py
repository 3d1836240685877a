"""The vllm dialect: fields it once had, reasoning, stop reasons, models with adapters, metrics."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_broker import errors
from k9_broker.dialects.registry import dialect_named
from k9_broker.health import Load
from k9_broker.requests import InferenceRequest, Operation

VLLM = dialect_named("vllm")


def sent(body: dict[str, Any], operation: Operation = Operation.CHAT) -> dict[str, Any]:
    request = InferenceRequest(operation, "m", {"messages": [], **body})
    made: dict[str, Any] = json.loads(VLLM.build(request, {}).body)
    return made


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"guided_json": {"type": "object"}}, {"json": {"type": "object"}}),
        ({"guided_regex": "a+"}, {"regex": "a+"}),
        ({"guided_choice": ["a", "b"]}, {"choice": ["a", "b"]}),
        ({"guided_grammar": "root ::= x"}, {"grammar": "root ::= x"}),
        (
            {"guided_json": "{}", "guided_whitespace_pattern": " ?"},
            {"json": "{}", "whitespace_pattern": " ?"},
        ),
        ({"structured_outputs": {"regex": "b"}, "guided_regex": "a"}, {"regex": "b"}),
        ({"structured_outputs": {"regex": "b"}}, {"regex": "b"}),
    ],
)
@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.COMPLETIONS])
def test_fields_that_were_removed_are_put_where_they_are_now(
    asked: dict[str, Any], expected: dict[str, Any], operation: Operation
) -> None:
    made = sent(asked, operation)
    assert made["structured_outputs"] == expected
    assert not any(name.startswith("guided_") for name in made)


def test_thinking_is_switched_off_in_the_chat_template_too() -> None:
    made = sent({"reasoning_effort": "none", "chat_template_kwargs": {"a": 1}})
    assert made["reasoning_effort"] == "none"
    assert made["chat_template_kwargs"] == {"enable_thinking": False, "a": 1}
    own = {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}}
    assert sent(own)["chat_template_kwargs"] == {"enable_thinking": True}
    assert "chat_template_kwargs" not in sent({"reasoning_effort": "high"})


def test_answers() -> None:
    message = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [],
        "reasoning": "hm",
    }

    def choice(**more: Any) -> dict[str, Any]:
        whole = {"index": 0, "message": message, "finish_reason": "stop", "token_ids": None, **more}
        raw = {"choices": [whole], "prompt_logprobs": None, "kv_transfer_params": None}
        request = InferenceRequest(Operation.CHAT, "m", {"messages": []})
        body = VLLM.parse(request, json.dumps(raw).encode()).body
        assert body is not None
        return dict(body["choices"][0])

    assert choice(stop_reason="END")["stop_reason"] == "END"
    assert not {"stop_reason", "token_ids"} & choice(stop_reason=128009).keys()
    made = choice(stop_reason=None)
    assert not {"stop_reason", "token_ids"} & made.keys()
    assert choice(token_ids=[1, 2])["token_ids"] == [1, 2]
    assert made["message"] == {"role": "assistant", "content": None, "refusal": None, "reasoning": "hm"}


BASE = {"id": "Qwen/Qwen3-8B", "root": "Qwen/Qwen3-8B", "parent": None, "max_model_len": 8192}


def test_models_and_adapters() -> None:
    listed = [
        BASE,
        {"id": "sql-lora", "root": "/adapters/sql", "parent": "Qwen/Qwen3-8B", "max_model_len": None},
        {"id": "orphan", "parent": "gone"},
        {"id": "odd", "max_model_len": "8192"},
        {"id": "odder", "max_model_len": 0, "parent": ["x"]},
    ]
    cards = VLLM.parse_models(json.dumps({"object": "list", "data": listed}).encode())
    assert {name: card.context_window for name, card in cards.items()} == {
        "Qwen/Qwen3-8B": 8192,
        "sql-lora": 8192,
        "orphan": None,
        "odd": None,
        "odder": None,
    }
    with pytest.raises(errors.BackendError):
        VLLM.parse_models(b"{}")


METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 4.0
vllm:num_requests_running{engine="1",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 2.0
NAME{engine="0",model_name="m"} 0.5
NAME{engine="1",model_name="m"} 0.25
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 120.0
"""


@pytest.mark.parametrize("name", ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"])
def test_load_of_all_engines(name: str) -> None:
    load = VLLM.parse_load(METRICS.replace("NAME", name).encode())
    assert load == Load(running=7, waiting=2, saturation=0.375)


@pytest.mark.parametrize(
    ("text", "load"),
    [
        ("", Load()),
        ("<html>", Load()),
        ("vllm:num_requests_running NaN\n", Load()),
        ("vllm:num_requests_running -1\n", Load()),
        ("vllm:num_requests_waiting 3\n", Load(waiting=3)),
        ("vllm:kv_cache_usage_perc 1.5\n", Load(saturation=1.0)),
        ("vllm:other 3\n", Load()),
    ],
)
def test_what_is_not_told_is_not_known(text: str, load: Load) -> None:
    assert VLLM.parse_load(text.encode()) == load


@given(st.binary(max_size=200))
def test_any_metrics_are_read(body: bytes) -> None:
    assert isinstance(VLLM.parse_load(body + METRICS.encode()), Load)


def test_how_load_is_asked_for() -> None:
    asked = VLLM.load_request({})
    assert asked is not None
    assert (asked.method, asked.path) == ("GET", "/metrics")
    assert VLLM.load_request({"load": False}) is None
    assert "load" not in sent({})
