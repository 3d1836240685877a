"""What another version writes can be read, while a cluster is changed from one release to the next."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_core import from_json, to_json

from k9_broker.adapters.records import fingerprint
from k9_broker.backends import Announcement
from k9_broker.requests import InferenceRequest
from walks import announced, chat

FIRST = {
    "operation": "chat",
    "model": "m",
    "body": dict(chat().body),
    "tenant": "default",
    "priority": "interactive",
    "deadline": None,
    "partial": False,
    "task_type": None,
    "strategy": None,
    "privacy": "any",
    "kind": None,
}
"""A plain request as 0.1.0 wrote it."""


def test_a_request_with_a_field_of_tomorrow_is_read() -> None:
    said = {**from_json(chat().dump()), "of_tomorrow": {"a": [1]}}
    assert InferenceRequest.load(to_json(said)) == chat()


def test_a_request_that_says_nothing_new_is_written_as_ever() -> None:
    """An older worker reads it, and its fingerprint, for repetitions at another API process, is the same."""
    assert fingerprint(chat().dump()) == fingerprint(to_json(FIRST))


@pytest.mark.parametrize(
    "where", [(), ("instances", 0), ("cards", "m")], ids=["announcement", "instance", "card"]
)
def test_an_announcement_with_a_field_of_tomorrow_is_heard(where: tuple[str | int, ...]) -> None:
    said: dict[str, Any] = {**announced("a").model_dump(mode="json"), "cards": {"m": {}}}
    part: Any = said
    for step in where:
        part = part[step]
    part["of_tomorrow"] = {"a": [1]}
    assert Announcement.model_validate_json(to_json(said)).models == ("m", "other")
