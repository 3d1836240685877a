"""What K-9 writes for Anthropic's clients fits the schemas of both versions of the API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from anthropic_answers import DELTAS, MESSAGES, chunks, streamed, whole
from k9_api.dialects.anthropic.catalogue import model_info
from k9_api.dialects.anthropic.surface import ANTHROPIC
from k9_broker import errors

pytestmark = pytest.mark.contracts

ERRORS = [
    *(errors.BadRequest, errors.Unauthorized, errors.BudgetExhausted, errors.PrivacyRefused),
    *(errors.ModelNotFound, errors.BackendRateLimited, errors.BackendError, errors.QueueFull),
    *(errors.JobExpired, errors.K9Error, errors.NotJson, errors.MethodNotAllowed),
]
"""Of each status one, but for 409 and 413, whose words the schemas do not have."""


@pytest.fixture(scope="module", params=["2023-06-01", "2026-10-21"])
def check(request: pytest.FixtureRequest, contracts: Path) -> Any:
    document = json.loads((contracts / f"anthropic-{request.param}.derived.openapi.json").read_text())

    def _check(schema: str, value: Any) -> None:
        root = {**document, "$ref": f"#/components/schemas/{schema}"}
        jsonschema.Draft202012Validator(root).validate(value)

    return _check


def test_whole_answers(check: Any) -> None:
    for message in MESSAGES.values():
        check("Message", whole(message))
    check("Message", whole(MESSAGES["text"], "stop", stop_reason="END"))


def test_events(check: Any) -> None:
    for deltas in DELTAS.values():
        for event in streamed(chunks(deltas)):
            check("K9_RawMessageStreamEvent", event)


@pytest.mark.parametrize("error", ERRORS)
def test_errors(check: Any, error: type[errors.K9Error]) -> None:
    check("ErrorResponse", json.loads(ANTHROPIC.error(error(param="model"), "req_1")))


def test_models_and_counts(check: Any) -> None:
    places = [{"name": "a", "kind": "local", "context_window": 8192}]
    check("ModelInfo", model_info({"id": "m", "k9": {"backends": places}}))
    check("ModelInfo", model_info({"id": "auto", "k9": {"strategy": "task-type"}}))
    check("MessageTokensCount", {"input_tokens": 16})
