"""What removes a place, with which reason, and what a caller is told when nothing is left."""

from __future__ import annotations

from typing import Any

import pytest

from fleets import CARDS, CODE, LARGE, MINI, SMALL, chat, embeddings, fleet, view
from k9_broker.errors import (
    BackendUnavailable,
    ContextTooLong,
    K9Error,
    ModelNotFound,
    PrivacyRefused,
    UnsupportedParameter,
)
from k9_broker.models import ModelCard
from k9_broker.policy import Policy
from k9_broker.requests import InferenceRequest, Kind, Operation, Privacy, TaskType
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.engine import Router
from k9_broker.strategy.refusal import refusal

TOOLS = {"tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}]}
SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}}
IMAGE = {
    "messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}
    ]
}


def one(card: ModelCard, kind: Kind = Kind.LOCAL, **changes: Any) -> Snapshot:
    """A fleet of one backend with one model, `m`."""
    return Snapshot((view("only", kind, "m", cards={"m": card}, **changes),))


def reasons(request: InferenceRequest, snapshot: Snapshot, **policy: Any) -> set[str]:
    decision = Router(Policy(**policy)).decide(request, snapshot)
    named = [one.backend for one in (*decision.candidates, *decision.removals)]
    assert {view.name for view in snapshot.backends} == set(named)
    return {one.reason for one in decision.removals}


@pytest.mark.parametrize(
    ("asked", "card", "reason"),
    [
        (TOOLS, {"tools": False}, "tools-not-supported"),
        (TOOLS, {"tools": True}, None),
        (TOOLS, {}, None),
        ({**TOOLS, "tool_choice": "none"}, {"tools": False}, None),
        ({"tools": []}, {"tools": False}, None),
        (SCHEMA, {"json_schema": False}, "json-schema-not-supported"),
        (SCHEMA, {}, None),
        ({"response_format": {"type": "json_object"}}, {"json_schema": False}, None),
        (IMAGE, {"vision": False}, "vision-not-supported"),
        (IMAGE, {"vision": True}, None),
        ({"stream": True}, {"streaming": False}, "streaming-not-supported"),
        ({"stream": False}, {"streaming": False}, None),
        ({"max_tokens": 5000}, {"max_output": 4096}, "max-output"),
        ({"max_tokens": 4096}, {"max_output": 4096}, None),
        ({"max_tokens": 3000, "n": 2}, {"max_output": 4096}, None),
        ({"max_tokens": 1000}, {"context_window": 900}, "context-window"),
        ({"max_tokens": 1000}, {"context_window": 2000}, None),
        ({}, {"operations": ("embeddings",)}, "operation-not-supported"),
    ],
)
def test_what_a_model_cannot_removes_it(
    asked: dict[str, Any], card: dict[str, Any], reason: str | None
) -> None:
    snapshot = one(ModelCard.model_validate(card))
    assert reasons(chat(body=asked, model="m"), snapshot) == ({reason} if reason else set())


@pytest.mark.parametrize(
    ("wanted", "can", "kept"), [(256, (256, 768), True), (512, (768,), False), (512, (), True)]
)
def test_dimensions_of_embeddings(wanted: int, can: tuple[int, ...], kept: bool) -> None:
    snapshot = one(ModelCard(dimensions=can), operations=frozenset({Operation.EMBEDDINGS}))
    request = InferenceRequest(Operation.EMBEDDINGS, "m", {"model": "m", "input": "a", "dimensions": wanted})
    assert reasons(request, snapshot) == (set() if kept else {"dimensions-not-supported"})


def test_a_special_model_takes_only_what_names_it() -> None:
    snapshot = one(ModelCard(tags=("special",)))
    assert reasons(chat(), snapshot) == {"special-purpose"}
    assert reasons(chat(model="m"), snapshot) == set()
    assert reasons(chat(model="mine"), snapshot, aliases={"mine": ("m", "n")}) == set()


def test_who_is_not_there_or_has_not_the_model_says_so() -> None:
    snapshot = fleet(local_small={"workers": 0})
    decision = Router(Policy()).decide(chat(model=SMALL), snapshot)
    assert {one.backend: one.reason for one in decision.removals} == {
        "local-small": "no-worker",
        "local-code": "model-not-served",
        "cloud-large": "model-not-served",
        "cloud-mini": "model-not-served",
    }


@pytest.mark.parametrize(
    ("wish", "policy", "who"),
    [
        ({"privacy": Privacy.LOCAL_ONLY}, {}, "caller"),
        ({}, {"privacy": {"default": "local-only"}}, "default"),
        ({}, {"tenants": {"default": {"privacy": "local-only"}}}, "tenant"),
        ({}, {"rules": [{"name": "r", "then": {"privacy": "local-only"}}]}, "rule:r"),
        ({"text": "Ring Larkspur"}, {"privacy": {"words": ["larkspur"]}}, "found:word"),
    ],
)
def test_whoever_wants_it_local_gets_it(wish: dict[str, Any], policy: dict[str, Any], who: str) -> None:
    decision = Router(Policy.model_validate(policy)).decide(chat(**wish), fleet())
    assert {one.kind for one in decision.candidates} == {Kind.LOCAL}
    assert decision.privacy_by == (who,)
    assert decision.privacy is Privacy.LOCAL_ONLY
    away = [one for one in decision.removals if one.reason == "privacy:local-only"]
    assert {one.backend for one in away} == {"cloud-large", "cloud-mini"}


def test_nobody_can_make_it_less_private() -> None:
    policy = Policy.model_validate(
        {
            "tenants": {"default": {"privacy": "local-only"}},
            "rules": [{"name": "r", "then": {"privacy": "any"}}],
        }
    )
    decision = Router(policy).decide(chat(privacy=Privacy.ANY, model="auto:quality"), fleet())
    assert {one.kind for one in decision.candidates} == {Kind.LOCAL}


def test_sensitive_text_is_found_wherever_it_stands() -> None:
    body = {
        "messages": [
            {"role": "system", "content": "You write for ann@northwind.de."},
            {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        ]
    }
    decision = Router(Policy()).decide(chat(body=body), fleet())
    assert decision.privacy_by == ("found:email",)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "data: ann@northwind.de"}]},
        {"messages": [{"role": "user", "content": "data:text/plain,ann@northwind.de;base64,"}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "text": "ann@northwind.de"}]}]},
        {"metadata": [1, "ann@northwind.de"]},
        {"metadata": ("ann@northwind.de",)},
        {"tools": [{"function": {"parameters": {"type": {"description": "of ann@northwind.de"}}}}]},
    ],
    ids=["data", "data-url", "audio", "mixed-list", "tuple", "named-as-format"],
)
def test_sensitive_text_is_found_in_odd_places(body: dict[str, Any]) -> None:
    assert Router(Policy()).decide(chat(body=body), fleet()).privacy_by == ("found:email",)


def test_a_detector_may_be_turned_off() -> None:
    policy = Policy.model_validate({"privacy": {"detect": []}})
    assert Router(policy).decide(chat("ann@northwind.de"), fleet()).privacy is Privacy.ANY


LONG = "word " * 8000
"""40,000 characters: about 10,000 tokens, at least 7,300."""


def test_a_text_too_long_for_the_small_window_goes_where_it_fits() -> None:
    decision = Router(Policy()).decide(chat(LONG, task_type=TaskType.SUMMARIZATION), fleet())
    assert [one.backend for one in decision.candidates] == ["local-code", "cloud-mini", "cloud-large"]
    gone = {(one.backend, one.model): one.reason for one in decision.removals}
    assert gone["local-small", SMALL] == "context-window"


def test_an_estimate_that_fits_nowhere_gives_way_to_the_least_it_can_be() -> None:
    eight, four = (CARDS[SMALL].model_copy(update={"context_window": size}) for size in (8192, 4096))
    snapshot = Snapshot(
        (view("eight", Kind.LOCAL, "m", cards={"m": eight}), view("four", Kind.LOCAL, "m", cards={"m": four}))
    )
    decision = Router(Policy()).decide(chat(LONG), snapshot)
    assert [one.backend for one in decision.candidates] == ["eight"]
    assert decision.prompt_tokens > 8192


def test_room_where_it_may_not_go_does_not_count() -> None:
    decision = Router(Policy()).decide(chat(LONG, privacy=Privacy.LOCAL_ONLY, model="m"), NARROW_HERE)
    assert [one.backend for one in decision.candidates] == ["here"]


NARROW_HERE = Snapshot(
    (
        view("here", Kind.LOCAL, "m", cards={"m": ModelCard(context_window=8192)}),
        view("away", Kind.CLOUD, "m", cards={"m": ModelCard(context_window=128_000)}),
    )
)
"""`LONG` likely does not fit the first, but may."""


def test_of_several_prompts_only_the_longest_must_fit() -> None:
    snapshot = one(ModelCard(context_window=512))
    several = InferenceRequest(Operation.COMPLETIONS, "m", {"model": "m", "prompt": ["short text"] * 2000})
    assert reasons(several, snapshot) == set()


def test_of_many_embedding_inputs_only_the_longest_must_fit() -> None:
    card = ModelCard(context_window=512)
    snapshot = one(card, operations=frozenset({Operation.EMBEDDINGS}))
    assert reasons(embeddings(["short text"] * 2000, "m"), snapshot) == set()
    assert reasons(embeddings(["short", LONG], "m"), snapshot) == {"context-window"}


LOCAL_DOWN = fleet(local_small={"workers": 0}, local_code={"workers": 0})
REFUSALS: list[tuple[InferenceRequest, Snapshot, type[K9Error], str, str | None]] = [
    (chat(), Snapshot(), BackendUnavailable, "k9 worker", "model"),
    (chat(model=SMALL), fleet(local_small={"workers": 0}), BackendUnavailable, "", "model"),
    (chat(model="unheard-of"), fleet(), ModelNotFound, "'unheard-of'", "model"),
    (chat(model=LARGE, privacy=Privacy.LOCAL_ONLY), fleet(), PrivacyRefused, "the caller wants it", None),
    (chat("ann@northwind.de", LARGE), fleet(), PrivacyRefused, "email", None),
    (chat(privacy=Privacy.LOCAL_ONLY, kind=Kind.CLOUD), fleet(), PrivacyRefused, "Leave out `kind`", None),
    (chat(LONG * 10 + "ann@northwind.de"), fleet(), PrivacyRefused, "none of them can take it", None),
    (chat("ann@northwind.de"), LOCAL_DOWN, BackendUnavailable, "local backends only (found email)", "model"),
    (chat(model=SMALL, kind=Kind.CLOUD), fleet(), ModelNotFound, "No cloud backend", "model"),
    (chat(LONG * 20), fleet(), ContextTooLong, "do not fit", "messages"),
    (chat(body={"max_tokens": 10**9}), fleet(), ContextTooLong, "or ask for fewer tokens", "messages"),
    (chat(body=TOOLS, model="m"), one(ModelCard(tools=False)), UnsupportedParameter, "tools", "tools"),
    (chat(body=IMAGE, model="m"), one(ModelCard(vision=False)), UnsupportedParameter, "images", "messages"),
    (embeddings(model=CODE), fleet(), ModelNotFound, "No backend offers embeddings", "model"),
]


@pytest.mark.parametrize(("request_", "snapshot", "error", "said", "param"), REFUSALS)
def test_a_caller_is_told_what_came_closest(
    request_: InferenceRequest, snapshot: Snapshot, error: type[K9Error], said: str, param: str | None
) -> None:
    decision = Router(Policy()).decide(request_, snapshot)
    assert not decision.candidates
    told = refusal(request_, decision)
    assert type(told) is error
    assert said in told.message
    assert told.param == param
    assert "ann@northwind.de" not in told.message


def test_a_mini_model_is_no_way_round_privacy() -> None:
    """Nor is an alias for a cloud model, nor a wish for a cloud."""
    policy = Policy(aliases={"cheap": (MINI,)})
    for request in (
        chat(model="cheap", privacy=Privacy.LOCAL_ONLY),
        chat(kind=Kind.CLOUD, privacy=Privacy.LOCAL_ONLY),
    ):
        assert not Router(policy).decide(request, fleet()).candidates
