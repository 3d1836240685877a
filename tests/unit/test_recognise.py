"""Whence a task type comes: the caller, a rule, the endpoint, the parameters, and only then the text."""

from __future__ import annotations

from typing import Any

import pytest

from fleets import chat, embeddings, fleet
from k9_broker.policy import Policy
from k9_broker.recognise import asked_text, recognise
from k9_broker.requests import InferenceRequest, Operation, TaskType
from k9_broker.strategy.engine import Router

SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}}


def completion(**body: Any) -> InferenceRequest:
    return InferenceRequest(Operation.COMPLETIONS, "auto", {"model": "auto", **body})


def test_embeddings_are_known_by_their_endpoint_whatever_they_say() -> None:
    found = recognise(embeddings("Write a poem about the sea."))
    assert (found.task_type, found.by, found.confidence) == (TaskType.EMBEDDINGS, "endpoint", 1.0)
    assert found.needs_strong == 0


def test_a_suffix_means_code_is_to_be_filled_in() -> None:
    found = recognise(completion(prompt="def area(r):\n    return ", suffix="\n\nprint(area(2))"))
    assert (found.task_type, found.by) == (TaskType.CODE_COMPLETION, "parameters")


def test_the_callers_word_beats_parameters_and_text() -> None:
    for request in (
        chat("Write a poem.", task_type=TaskType.TRANSLATION),
        InferenceRequest(
            Operation.COMPLETIONS, "auto", {"prompt": "x = ", "suffix": ")"}, task_type=TaskType.TRANSLATION
        ),
    ):
        found = recognise(request)
        assert (found.task_type, found.by, found.confidence) == (TaskType.TRANSLATION, "caller", 1.0)


@pytest.mark.parametrize("text", ["", " ", "\n", "\ud800", "?", "a" * 100_000, "🙂", "مرحبا", "\x00"])
def test_any_text_has_a_type_and_a_score(text: str) -> None:
    found = recognise(chat(text))
    assert found.by == "text"
    assert 0 <= found.confidence <= 1
    assert 0 <= found.needs_strong <= 1


def test_a_schema_speaks_where_the_text_does_not() -> None:
    said = recognise(chat("", body=SCHEMA))
    assert said.by in ("parameters", "text")
    sure = recognise(chat("Translate into German: The ship left the harbour at dawn.", body=SCHEMA))
    unsure = recognise(chat("zzq", body=SCHEMA))
    assert recognise(chat("zzq")).confidence >= 0.5 or unsure.task_type is TaskType.EXTRACTION_CLASSIFICATION
    assert sure.confidence < 0.5 or sure.by == "text"


def turns(*said: tuple[str, Any]) -> InferenceRequest:
    messages = [{"role": role, "content": content} for role, content in said]
    return InferenceRequest(Operation.CHAT, "auto", {"model": "auto", "messages": messages})


LONG = "Now sort the same list by the second letter of each word instead."


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (turns(("system", "Be kind."), ("user", "Hello there")), "Hello there"),
        (turns(("user", "First"), ("assistant", "Yes"), ("user", LONG)), LONG),
        (turns(("user", "Sort these"), ("assistant", "Done"), ("user", "and now?")), "Sort these\nand now?"),
        (turns(("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])), "a\nb"),
        (turns(("user", [{"type": "image_url", "image_url": {"url": "data:"}}])), ""),
        (turns(("system", "only this")), ""),
        (turns(("user", None)), ""),
        (completion(prompt="once upon"), "once upon"),
        (completion(prompt=["first", "second"]), "first"),
        (completion(prompt=[]), ""),
        (completion(prompt=[1, 2, 3]), ""),
    ],
)
def test_what_is_read_is_what_was_asked_last(request_: InferenceRequest, text: str) -> None:
    assert asked_text(request_).strip() == text


def test_the_last_turn_decides_not_the_system_prompt() -> None:
    text = "Write a short poem about rain on a tin roof."
    with_system = turns(("system", "You translate English into French."), ("user", text))
    assert recognise(with_system) == recognise(turns(("user", text)))


RULES = {
    "rules": [
        {"name": "desk", "when": {"tenant": "desk"}, "then": {"task_type": "summarization"}},
        {"name": "all", "then": {"task_type": "qa"}},
    ]
}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (chat(), (TaskType.QA, "rule:all")),
        (chat(tenant="desk"), (TaskType.SUMMARIZATION, "rule:desk")),
        (chat(task_type=TaskType.CHAT), (TaskType.CHAT, "caller")),
        (completion(prompt="x", suffix="y"), (TaskType.QA, "rule:all")),
    ],
)
def test_a_rule_beats_recognition_and_the_caller_beats_the_rule(
    request_: InferenceRequest, expected: tuple[TaskType, str]
) -> None:
    decision = Router(Policy.model_validate(RULES)).decide(request_, fleet())
    assert (decision.recognition.task_type, decision.recognition.by) == expected


def test_a_rules_type_decides_where_it_goes() -> None:
    policy = Policy.model_validate(
        {"rules": [{"name": "r", "then": {"task_type": "code_refactor_review"}}], "strong_above": 1.0}
    )
    assert Router(policy).decide(chat("hello"), fleet()).candidates[0].backend == "cloud-large"


def test_a_rule_that_asks_for_a_type_sees_the_recognised_one() -> None:
    """Not what another rule makes of it: rules hold or not before any has its say."""
    policy = Policy.model_validate(
        {
            "rules": [
                {"name": "first", "then": {"task_type": "translation"}},
                {"name": "second", "when": {"task_type": "translation"}, "then": {"prefer": "cloud large"}},
            ],
            "strong_above": 1.0,
        }
    )
    decision = Router(policy).decide(chat("Hi there!"), fleet())
    assert decision.recognition.task_type is TaskType.TRANSLATION
    assert decision.candidates[0].backend == "local-small"


def test_a_rule_makes_no_chat_of_embeddings() -> None:
    policy = Policy.model_validate({"rules": [{"name": "r", "then": {"task_type": "chat"}}]})
    decision = Router(policy).decide(embeddings(), fleet())
    assert decision.candidates[0].backend == "local-small"
    assert decision.recognition.task_type is TaskType.EMBEDDINGS
