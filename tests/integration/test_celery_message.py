"""What K-9's messages say of their jobs. That they are Celery's own in shape: `tests/hazards`."""

from __future__ import annotations

import json

import pytest

from k9_broker.adapters.celery_message import Subject, message
from k9_broker.requests import Operation, Priority

SUBJECT = Subject(Operation.CHAT, True, "acme", Priority.INTERACTIVE, 213)
MODEL = "llama3.1:8b"
QUEUE = "k9.local.gpu.interactive"


def filled(model: str = MODEL) -> str:
    """As the scripts fill it in."""
    template = message("job-1", 3, SUBJECT)
    return f"{template.of_model(model)}{QUEUE}{template.middle}7{template.tail}"


def ours() -> dict[str, object]:
    return json.loads(filled())  # type: ignore[no-any-return]


def test_its_tag_names_the_job_the_generation_and_the_place() -> None:
    assert ours()["properties"]["delivery_tag"] == "job-1:3:7"  # type: ignore[index]


@pytest.mark.parametrize("model", ["a/b", 'a "b"', "a\\b", "模型 🦙", "@K9-QUEUE@", "\n"])
def test_it_names_the_model_whatever_it_is_called(model: str) -> None:
    message = json.loads(filled(model))
    assert message["headers"]["argsrepr"] == f"{model} chat stream"
    assert message["properties"]["delivery_info"]["routing_key"] == QUEUE


def test_what_operators_see_of_it() -> None:
    headers = ours()["headers"]
    assert headers["argsrepr"] == "llama3.1:8b chat stream"  # type: ignore[index]
    assert headers["kwargsrepr"] == "tenant=acme priority=interactive in~213tok"  # type: ignore[index]
