"""`k9 doctor` against servers that are well, and against every way in which one is not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from k9_broker.backends import Backend
from k9_broker.findings import Finding, Verdict
from k9_broker.settings import Settings
from k9_broker.testing import FakeServer
from k9_workers.examining import Examination
from stack import Stack, ask
from stand import wait_until

K9 = (sys.executable, "-m", "k9_api.cli")


async def examined(
    fake: FakeServer, dialect: str, path: str = "", calls: bool = True, patience: float = 10, **settings: Any
) -> list[Finding]:
    found: list[Finding] = []
    if "instances" not in settings:
        settings.setdefault("url", fake.url + path)
    backend = Backend(name="b", dialect=dialect, **settings)
    progress: list[str] = []
    await Examination(backend, Settings(), found.append, progress.append, calls, patience).run()
    return found


def wrong(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.check, one.mend) for one in found if one.is_wrong]


EVERYTHING = ["configuration", "reachable", "models", "chat", "stream", "embeddings"]


@pytest.mark.parametrize(
    ("dialect", "flavour", "settings", "checks"),
    [
        ("fake", "plain", {}, EVERYTHING),
        ("ollama", "plain", {}, EVERYTHING),
        ("vllm", "vllm", {}, EVERYTHING),
        ("llama.cpp", "llamacpp", {}, EVERYTHING[:-1]),  # it has one model
        ("openai", "openai", {"kind": "cloud"}, EVERYTHING),
        ("openai-compatible", "openai", {"kind": "cloud"}, EVERYTHING),
        ("azure", "plain", {"kind": "cloud", "models": ["fake-chat", "fake-embed"]}, EVERYTHING),
        ("anthropic", "plain", {"kind": "cloud"}, EVERYTHING[:-1]),
        ("tgi", "tgi", {"operations": ["chat", "completions"]}, EVERYTHING[:-1]),
        ("tgi", "tei", {"operations": ["embeddings"]}, [*EVERYTHING[:3], "embeddings"]),
    ],
)
async def test_a_server_that_is_well_has_nothing_to_mend(
    fake: FakeServer, dialect: str, flavour: str, settings: dict[str, Any], checks: list[str]
) -> None:
    fake.behave(flavour=flavour)
    found = await examined(fake, dialect, **settings)
    assert [(one.check, one.said) for one in found if one.verdict is not Verdict.OK] == []
    assert [one.check for one in found] == checks
    if "embeddings" in checks:
        assert "gives 64 dimensions" in found[-1].said


FAULTS: list[tuple[str, str, dict[str, Any], dict[str, Any], str, str]] = [
    ("wrong key", "vllm", {"flavour": "vllm", "api_key": "right"}, {"api_key_env": "OUR_KEY"},
     "credentials", "put a valid key into OUR_KEY"),
    ("no key", "vllm", {"flavour": "vllm", "api_key": "right"}, {}, "credentials", "api_key_env"),
    ("key not set", "vllm", {}, {"api_key_env": "NOT_SET_ANYWHERE"}, "configuration", "environment"),
    ("no model", "ollama", {"models": []}, {}, "models", "ollama pull llama3.2"),
    ("not this one", "ollama", {"models": ["mistral:7b"]}, {"models": ["qwen3"]},
     "models", "ollama pull qwen3"),
    ("nearly", "vllm", {"flavour": "vllm", "models": ["Qwen/Qwen3-8B"]}, {"models": ["Qwen/Qwen3-8b"]},
     "models", "did you mean Qwen/Qwen3-8B?"),
    ("with /v1", "vllm", {"flavour": "vllm"}, {"path": "/v1"}, "models", "this URL ends in /v1: remove it"),
    ("whole path", "openai", {"flavour": "openai"}, {"path": "/v1/chat/completions", "kind": "cloud"},
     "models", "remove it"),
    ("other dialect", "tgi", {"flavour": "vllm"}, {}, "dialect", 'dialect = "vllm"'),
    ("500", "vllm", {"flavour": "vllm", "every_nth": 1}, {}, "chat", "server's log"),
    ("overloaded", "vllm", {"flavour": "vllm", "every_nth": 1, "error_status": 503}, {}, "chat", "slots"),
    ("hangs", "ollama", {"hang": True}, {"patience": 0.4}, "chat", "raise read_timeout"),
    ("silent", "ollama", {"hang": True}, {"read_timeout": 0.3}, "chat", "raise read_timeout"),
    ("cut off", "vllm", {"flavour": "vllm", "cut_after_tokens": 0}, {}, "stream", "server's log"),
    ("resets", "vllm", {"flavour": "vllm", "reset": True}, {}, "chat", "start it"),
    ("azure names nothing", "azure", {}, {"kind": "cloud"}, "configuration", "k9.toml"),
    ("no such deployment", "azure", {}, {"kind": "cloud", "models": ["nobody"]}, "chat", "deployments"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "behaviour", "settings", "check", "mend"),
    [row[1:] for row in FAULTS],
    ids=[row[0] for row in FAULTS],
)
async def test_what_is_wrong_is_named_with_its_remedy(
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    dialect: str,
    behaviour: dict[str, Any],
    settings: dict[str, Any],
    check: str,
    mend: str,
) -> None:
    monkeypatch.setenv("OUR_KEY", "sk-a-word")
    fake.behave(**behaviour)
    found = await examined(fake, dialect, **settings)
    assert any(one == check and mend in how for one, how in wrong(found)), found
    assert "sk-a-word" not in repr(found)


async def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        found: list[Finding] = []
        for address in (url, "http://no-such-host.invalid"):
            backend = Backend(name="b", dialect="ollama", url=address)
            await Examination(backend, Settings(), found.append, print).run()
    refused, unknown = [one for one in found if one.is_wrong]
    assert refused.said.startswith("nothing listens on 127.0.0.1:")
    assert "`ollama serve`" in refused.mend
    assert "cannot be resolved" in unknown.said


async def test_plain_http_behind_https_is_told(fake: FakeServer) -> None:
    (finding,) = [
        one for one in await examined(fake, "vllm", url=fake.url.replace("http:", "https:")) if one.is_wrong
    ]
    assert "does not speak TLS" in finding.said
    assert f'url = "{fake.url}"' in finding.mend


async def test_a_cold_model_is_slow_and_not_dead(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k9_workers.examining.SLOW", 0.1)
    fake.behave(cold_load_ms=500)
    told: list[str] = []
    found: list[Finding] = []
    backend = Backend(name="b", dialect="ollama", url=fake.url)
    await Examination(backend, Settings(), found.append, told.append).run()
    assert wrong(found) == []
    assert any("fake-chat" in one and "loading" in one for one in told)


async def test_nothing_is_spent_when_no_calls_are_asked_for(fake: FakeServer) -> None:
    fake.behave(flavour="openai")
    found = await examined(fake, "openai", kind="cloud", calls=False)
    assert found[-1].verdict is Verdict.SKIPPED
    assert fake.stats()["inferences"] == 0


async def test_each_check_is_one_tiny_call(fake: FakeServer) -> None:
    fake.behave(flavour="openai")
    await examined(fake, "openai", kind="cloud")
    asked = [one["body"] for one in fake.requests() if one["method"] == "POST"]
    assert len(asked) == 3
    assert all(body.get("max_completion_tokens", 0) <= 16 for body in asked)


async def test_each_instance_is_examined(fake: FakeServer) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{held.getsockname()[1]}"
        found = await examined(fake, "fake", instances=[{"url": fake.url}, {"url": gone}])
    by_instance = {one.instance for one in found}
    assert by_instance == {"", fake.url.removeprefix("http://"), gone.removeprefix("http://")}
    assert [one.instance for one in found if one.is_wrong] == [gone.removeprefix("http://")]


def run(*words: str, env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("K9_")}
    return subprocess.run(
        [*K9, *words],
        env={**clean, "COLUMNS": "200", **env},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_the_command_tells_all_backends_and_how_to_mend_them(fake: FakeServer, tmp_path: Path) -> None:
    fake.behave(flavour="vllm", api_key="right")
    both = [
        {"name": "good", "dialect": "vllm", "url": fake.url, "api_key_env": "GOOD_KEY"},
        {"name": "bad", "dialect": "vllm", "url": fake.url, "api_key_env": "BAD_KEY"},
    ]
    env = {"K9_BACKENDS": json.dumps(both), "GOOD_KEY": "right", "BAD_KEY": "sk-a-wrong-word"}
    env |= {"K9_STATE_DIR": str(tmp_path), "K9_URL": "http://127.0.0.1:1"}
    done = run("doctor", env=env, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "put a valid key into BAD_KEY" in done.stdout
    assert "1 to mend." in done.stdout
    assert "sk-a-wrong-word" not in done.stdout + done.stderr
    assert "No worker was asked" in done.stderr
    done = run("doctor", "good", "--json", env=env, folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert {Finding.read(line).verdict for line in done.stdout.splitlines()} == {Verdict.OK}
    done = run("doctor", "nobody", env=env, folder=tmp_path)
    assert done.returncode == 2
    assert "good" in done.stderr


def test_what_the_workers_see_is_told_and_reset(own_stack: Stack) -> None:
    """A key that stops to hold takes the backend out; once it holds again, an operator says so."""
    stack = own_stack
    backends = json.dumps([{"name": "fake", "dialect": "fake", "url": stack.fake.url}])
    env = {**stack.env(), "K9_URL": stack.url, "K9_BACKENDS": backends}
    done = run("doctor", env=env, folder=stack.folder)
    assert done.returncode == 0, done.stdout
    assert "1 live worker, fit" in done.stdout
    stack.fake.behave(error_status=401, every_nth=1)
    ask(
        f"{stack.url}/v1/chat/completions",
        {"model": stack.model, "messages": [{"role": "user", "content": "x"}]},
    )
    wait_until(
        lambda: ask(f"{stack.url}/v1/queues")[2]["data"][0]["down"] == "out:backend_credentials", "it is out"
    )
    stack.fake.behave(every_nth=0)
    done = run("doctor", env=env, folder=stack.folder)
    assert done.returncode == 1
    assert "`k9 backends reset fake`" in done.stdout
    listed = run("backends", env=env, folder=stack.folder)
    assert "out:backend_credentials" in listed.stdout
    assert stack.fake.url.removeprefix("http://") in listed.stdout
    done = run("backends", "reset", "fake", env=env, folder=stack.folder)
    assert (done.returncode, done.stdout) == (0, "fake: 1 worker calls it again.\n"), done.stderr
    wait_until(lambda: ask(f"{stack.url}/v1/queues")[2]["data"][0]["down"] is None, "it is called again")
    done = run("backends", "reset", "nobody", env=env, folder=stack.folder)
    assert done.returncode == 2
    assert "Announced by workers: fake" in done.stderr
