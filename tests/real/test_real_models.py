"""Models that are loaded when they are asked for, models that are not there, prompts that do not fit."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI

from k9_broker import errors
from k9_broker.ports import Caller
from k9_broker.requests import InferenceRequest, Operation
from real.asking import answer_of
from real.llama import LlamaServer
from real.served import Served
from stand import wait_until

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TOO_LONG: list[Any] = [{"role": "user", "content": "word " * 1000}]


def chat(model: str, messages: list[Any] = HELLO, **more: Any) -> InferenceRequest:
    return InferenceRequest(Operation.CHAT, model, {"messages": messages, "max_tokens": 3, **more})


def loaded(router: LlamaServer) -> list[str]:
    """The models the router has in memory."""
    return [one["id"] for one in router.get("/v1/models")["data"] if one["status"]["value"] == "loaded"]


# -- cold and hot ----------------------------------------------------------------------------------


def test_cold_models_are_listed_like_hot_ones(sdk: OpenAI) -> None:
    assert {"cold-a", "cold-b", "quick", "vectors"} <= {model.id for model in sdk.models.list()}


def test_the_first_call_loads_a_model_and_the_next_one_unloads_it(sdk: OpenAI, router: LlamaServer) -> None:
    for model in ("cold-a", "cold-b", "cold-a"):
        answer = sdk.chat.completions.create(model=model, messages=HELLO, max_tokens=3)
        assert answer.model == model
        assert answer.usage
        assert answer.usage.completion_tokens == 3
        wait_until(lambda model=model: loaded(router) == [model], f"only {model} is loaded", 10)


async def test_a_server_knows_its_cold_models(router: LlamaServer, caller_of: Callable[..., Caller]) -> None:
    assert set(await caller_of(router).models()) == {"cold-a", "cold-b"}


def test_callers_of_both_models_take_turns(sdk: OpenAI, served: Served) -> None:
    """Its one slot is K-9's one slot, so no call finds its model gone."""
    jobs = [
        served.submit(f"turn {turn}", body=body)
        for turn in range(6)
        for body in [{"model": f"cold-{'ab'[turn % 2]}", "messages": HELLO, "max_tokens": 3}]
    ]
    assert served.ended(jobs, 30) == {"succeeded": 6}


async def test_a_silent_server_is_slow_and_not_dead(served: Served, router: LlamaServer, sdk: OpenAI) -> None:
    """As one is that reads a model of many gigabytes: no byte, not even to a probe, and then an answer."""
    router.send(signal.SIGSTOP)
    try:
        answer = asyncio.create_task(
            asyncio.to_thread(sdk.chat.completions.create, model="cold-b", messages=HELLO, max_tokens=3)
        )
        done, _ = await asyncio.wait([answer], timeout=4)
        assert not done
    finally:
        router.send(signal.SIGCONT)
    assert (await answer).choices[0].finish_reason == "length"


# -- not there -------------------------------------------------------------------------------------


def test_a_model_nobody_has(sdk: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        sdk.chat.completions.create(model="nobody-has-it", messages=HELLO)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_servers_400_for_an_unknown_model_is_understood(
    router: LlamaServer, caller_of: Callable[..., Caller], stream: bool
) -> None:
    with pytest.raises(errors.ModelNotFound):
        await answer_of(caller_of(router), chat("ghost"), stream)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_model_that_is_configured_and_gone(sdk: OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        sdk.chat.completions.create(model="ghost", messages=HELLO, stream=stream)
    assert refused.value.code == "model_not_found"


# -- too long --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_prompt_that_does_not_fit_is_sent_once(
    quick: LlamaServer, caller_of: Callable[..., Caller], stream: bool
) -> None:
    caller, before = caller_of(quick), quick.started
    with pytest.raises(errors.ContextTooLong):
        await answer_of(caller, chat("quick", TOO_LONG), stream)
    quick.has_started(before + 1)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_prompt_that_does_not_fit_is_the_callers_fault(
    sdk: OpenAI, quick: LlamaServer, stream: bool
) -> None:
    before = quick.started
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(model="quick", messages=TOO_LONG, stream=stream)
    assert refused.value.code == "context_length_exceeded"
    assert quick.started <= before + 1  # none, where K-9 knows how long a prompt may be


async def test_what_the_server_refuses_is_not_tried_again(
    quick: LlamaServer, caller_of: Callable[..., Caller]
) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}}
    with pytest.raises(errors.BadRequest):
        await caller_of(quick).call(chat("quick", response_format=schema))
