"""What a check of a backend means, and how to mend what is wrong: the rules, as tables."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_api.cli.fleetview import conflicts, findings, of_fleet, state_of
from k9_broker.backends import Announcement, Backend
from k9_broker.errors import (
    BackendCredentials,
    BackendError,
    BackendOverloaded,
    BackendQuotaExceeded,
    BackendRateLimited,
    BackendTimeout,
    BackendUnreachable,
    BadRequest,
    ConfigurationError,
    K9Error,
    ModelNotFound,
    UnsupportedParameter,
)
from k9_broker.findings import Finding, Verdict
from k9_broker.models import ModelCard
from k9_broker.requests import Kind, Operation
from k9_workers import remedies

LISTED = ["llama3.2:3b", "qwen3:8b", "nomic-embed-text"]


def backend(dialect: str = "vllm", **settings: Any) -> Backend:
    settings.setdefault("url", "http://127.0.0.1:8000")
    return Backend(name="b", dialect=dialect, **settings)


@pytest.mark.parametrize(
    ("error", "settings", "verdict", "mend"),
    [
        (BackendCredentials(), {"api_key_env": "MY_KEY"}, Verdict.WRONG, "put a valid key into MY_KEY"),
        (BackendCredentials(), {}, Verdict.WRONG, "set api_key_env"),
        (BackendQuotaExceeded(), {}, Verdict.WRONG, "`k9 backends reset b`"),
        (BackendRateLimited(retry_after=7), {}, Verdict.HINT, "try again in 7 s"),
        (BackendOverloaded(), {}, Verdict.WRONG, "slots"),
        (BackendTimeout(), {"read_timeout": 30}, Verdict.WRONG, "raise read_timeout (now 30 s)"),
        (BackendUnreachable(), {"dialect": "ollama"}, Verdict.WRONG, "`ollama serve`"),
        (ModelNotFound(), {"dialect": "ollama"}, Verdict.WRONG, "ollama pull llama3.2"),
        (ModelNotFound(), {"dialect": "azure"}, Verdict.WRONG, "deployments"),
        (ConfigurationError("x"), {}, Verdict.WRONG, "k9.toml"),
        (BackendError("The backend answered 500."), {}, Verdict.WRONG, "see its server's log"),
        (BadRequest("The backend has nothing at this operation's path."), {}, Verdict.WRONG, "without /v1"),
        (BadRequest("no such parameter"), {}, Verdict.WRONG, "options"),
        (UnsupportedParameter("It has no chat."), {}, Verdict.WRONG, "`operations`"),
        (BadRequest("model output limit was reached"), {}, Verdict.OK, ""),
    ],
)
def test_each_error_has_its_remedy(
    error: K9Error, settings: dict[str, Any], verdict: Verdict, mend: str
) -> None:
    said = remedies.of_error(error, backend(**settings), "http://127.0.0.1:8000", "llama3.2")
    assert said.verdict is verdict
    assert mend in said.mend
    assert bool(said.mend) is (verdict is not Verdict.OK)


@pytest.mark.parametrize(
    ("url", "better"),
    [
        ("http://x:1/v1", "http://x:1"),
        ("http://x:1/v1/", "http://x:1"),
        ("https://x/api/v1", "https://x/api"),
        ("https://x/v1/chat/completions", "https://x"),
        ("http://x:11434/api", "http://x:11434"),
        ("http://x:1", None),
        ("http://x:1/models-v1", None),
    ],
)
def test_a_url_that_says_too_much(url: str, better: str | None) -> None:
    assert remedies.better_url(url) == better


def test_a_password_in_a_url_is_not_shown() -> None:
    url = "https://someone:a-secret@gpu.example:1/v1"
    said = remedies.other_path(url)
    assert 'url = "https://gpu.example:1"' in said
    assert "a-secret" not in said
    assert "a-secret" not in remedies.of_connection(ssl.SSLError(), backend(url=url), url).mend


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(), "nothing listens on gpu:8000"),
        (TimeoutError(), "no connection to gpu:8000 within 5 s"),
        (OSError(113, "No route to host"), "No route to host"),
        (ssl.SSLError(), "does not speak TLS"),
    ],
)
def test_why_there_is_no_connection(error: OSError, said: str) -> None:
    found = remedies.of_connection(error, backend(), "http://gpu:8000")
    assert found.verdict is Verdict.WRONG
    assert said in found.said


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("llama3.2", "llama3.2:3b"),
        ("qwen3:8", "qwen3:8b"),
        ("nomic-embed", "nomic-embed-text"),
        ("mistral", None),
    ],
)
def test_the_model_that_was_likely_meant(model: str, near: str | None) -> None:
    assert remedies.near_miss(model, LISTED) == near


@pytest.mark.parametrize(
    ("model", "listed", "there"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("claude-x-latest", "claude-x-20250101", True),
        ("llama3.2", "llama3.2:latest", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("llama3.2", "llama3.2:1b", False),
    ],
)
def test_a_model_may_be_listed_by_a_longer_name(model: str, listed: str, there: bool) -> None:
    assert remedies.is_listed(model, [listed]) is there


@given(st.text(min_size=1), st.lists(st.text()))
def test_a_model_of_the_list_is_always_found_there(model: str, others: list[str]) -> None:
    assert remedies.is_listed(model, [*others, model])


@pytest.mark.parametrize(
    ("settings", "environ", "said"),
    [
        ({"dialect": "openai", "url": "https://api.openai.com"}, {}, "counts as local"),
        ({"dialect": "openai", "url": "https://api.openai.com", "kind": "cloud"}, {}, None),
        ({"dialect": "openai", "url": "http://127.0.0.1:1"}, {}, None),
        ({"url": "http://gpu.example", "api_key_env": "K"}, {"K": "word"}, "unencrypted"),
        ({"url": "http://10.0.0.5:8000", "api_key_env": "K"}, {"K": "word"}, None),
        ({"api_key_env": "K"}, {"K": "word\n"}, "white space"),
        ({"url": "gpu:8000"}, {}, "url is not one"),
        ({"url": "http://x:99999"}, {}, "url is not one"),
    ],
)
def test_what_the_configuration_itself_tells(
    settings: dict[str, Any], environ: dict[str, str], said: str | None
) -> None:
    found = remedies.of_configuration(backend(**settings), environ)
    assert [said in one.said for one in found] == [True] if said else found == []


def test_models_that_are_missing_are_named() -> None:
    (missing,) = remedies.of_models(backend("ollama", models=("llama3.2",)), LISTED)
    assert missing.verdict is Verdict.WRONG
    assert "llama3.2:3b" in missing.mend
    assert "ollama pull llama3.2" in missing.mend
    (fine,) = remedies.of_models(backend("tgi", models=("my-name",)), ["org/model"])
    assert fine.verdict is Verdict.OK


CHAT, EMBED = ModelCard(), ModelCard(tags=("embedding",))


@pytest.mark.parametrize(
    ("cards", "operation", "loaded", "tried"),
    [
        ({"a": CHAT, "b": CHAT}, Operation.CHAT, (), "a"),
        ({"a": CHAT, "b": CHAT}, Operation.CHAT, ("b",), "b"),
        ({"a": ModelCard(input_usd=5), "b": ModelCard(input_usd=0.1), "c": CHAT}, Operation.CHAT, (), "b"),
        ({"e": EMBED, "a": CHAT}, Operation.CHAT, (), "a"),
        ({"e": EMBED, "a": CHAT}, Operation.EMBEDDINGS, (), "e"),
        ({"a": CHAT}, Operation.EMBEDDINGS, (), None),
        ({"s": ModelCard(tags=("special",))}, Operation.CHAT, (), None),
        ({"a": CHAT}, Operation.COMPLETIONS, (), None),
    ],
)
def test_the_model_to_try(
    cards: dict[str, ModelCard], operation: Operation, loaded: tuple[str, ...], tried: str | None
) -> None:
    offered = (Operation.CHAT, Operation.EMBEDDINGS)
    assert remedies.to_try(cards, operation, offered, loaded) == tried


def row(**changes: Any) -> dict[str, Any]:
    instances = [
        {"worker": "k9-b@x", "name": "gpu:1", "state": "closed"},
        {"worker": "k9-b@x", "name": "gpu:2", "state": "closed"},
    ]
    usual = {"backend": "b", "workers": 1, "models": ["m"], "down": None, "paced_seconds": 0.0}
    return {**usual, "instances": instances, **changes}


OUT = {"worker": "k9-b@x", "name": "gpu:1", "state": "out", "reason": "backend_credentials"}
OPEN = {**OUT, "state": "open", "reason": "backend_timeout", "retry_seconds": 4.0}


@pytest.mark.parametrize(
    ("changes", "state", "mend"),
    [
        ({}, "fit", ""),
        ({"instances": []}, "fit", ""),
        ({"workers": 0}, "no worker", "k9 worker --backend b"),
        (
            {"down": "out:backend_credentials", "instances": [OUT]},
            "out:backend_credentials",
            "backends reset b",
        ),
        ({"down": "circuit-open", "instances": [OPEN]}, "circuit-open", "backends reset b"),
        ({"instances": [OPEN, row()["instances"][1]]}, "1 of 2 fit", "backends reset b"),
        ({"paced_seconds": 3.2}, "paced 3 s", "requests_per_minute"),
        ({"models": []}, "fit", "see the checks above"),
    ],
)
def test_what_the_workers_see(changes: dict[str, Any], state: str, mend: str) -> None:
    assert state_of(row(**changes)) == state
    told = findings(row(**changes))
    assert any(mend in one.mend for one in told)
    assert bool(mend) is any(one.mend for one in told)


def announced(node: str, **changes: Any) -> Announcement:
    usual = {"backend": "b", "kind": Kind.LOCAL, "dialect": "vllm", "models": ("m",), "operations": ()}
    return Announcement.model_validate(
        {"node": node, "slots": 1, "max_waiting": 1, "max_waiting_batch": 1, **usual, **changes}
    )


def test_one_name_for_two_things_is_told() -> None:
    assert conflicts([announced("one"), announced("two")]) == []
    (kinds,) = conflicts([announced("one"), announced("two", kind="cloud")])
    assert kinds.is_wrong
    assert "both local and cloud: cloud at two, local at one" in kinds.said
    (dialects,) = conflicts([announced("one"), announced("two", dialect="ollama")])
    assert "several dialects" in dialects.said
    (late,) = conflicts([announced("one", loop_lag_seconds=0.4)])
    assert late.verdict is Verdict.HINT


def test_a_backend_nobody_announces_is_told() -> None:
    told = of_fleet([row()], [announced("one", backend="elsewhere", kind="cloud")], ["b", "new"])
    assert [(one.backend, one.verdict) for one in told] == [("b", Verdict.OK), ("new", Verdict.WRONG)]


@given(st.text(), st.sampled_from(Verdict), st.text())
def test_a_finding_is_read_back_from_its_line(said: str, verdict: Verdict, mend: str) -> None:
    finding = Finding("b", "chat", verdict, said, mend)
    assert "\n" not in finding.line()
    assert Finding.read(finding.line()) == finding


@pytest.mark.parametrize("line", ["", "[]", "3", '{"progress": "x"}', '{"verdict": "ok"}'])
def test_another_line_is_no_finding(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Finding.read(line)
