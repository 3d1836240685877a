"""What docs/backends.md says is true: every snippet loads and answers, every cell of its table holds."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from k9_broker.backends import Backend, Instance
from k9_broker.cards import EMBEDDING
from k9_broker.dialects.anthropic.request import DEFAULT_MAX_TOKENS, DEFAULT_VERSION, OWN_OPTIONS
from k9_broker.dialects.openai.azure import API_VERSION, Azure
from k9_broker.dialects.openai.dialect import OpenAICompatible
from k9_broker.dialects.openai.vllm import Vllm
from k9_broker.dialects.registry import DIALECTS, dialect_named
from k9_broker.errors import CircuitOpen, UnsupportedParameter
from k9_broker.failover import RETURNED
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.settings import JobSettings, Settings, load_settings
from k9_broker.testing import FakeServer
from k9_workers.callers import build_caller, check, operations_of

PAGE = (Path(__file__).parents[2] / "docs/backends.md").read_text()
SECTIONS = {
    title: body
    for title, _, body in (part.partition("\n") for part in re.split(r"^## ", PAGE, flags=re.M)[1:])
}
SNIPPETS = {
    title: found
    for title, body in SECTIONS.items()
    if (found := re.findall(r"^```toml\n(.*?)^```", body, re.M | re.S))
}
FLAVOURS = {"openai": "openai", "azure": "openai", "vllm": "vllm", "llama.cpp": "llamacpp", "tgi": "tgi"}
KEY = "key-of-the-environment"
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(params=SNIPPETS, ids=str)
def configured(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A section's configuration, and a key in each variable that it names."""
    (snippet,) = SNIPPETS[request.param]
    (tmp_path / "k9.toml").write_text(snippet)
    monkeypatch.setenv("K9_CONFIG", str(tmp_path / "k9.toml"))
    settings = load_settings()
    for backend in settings.backends:
        if backend.api_key_env:
            monkeypatch.setenv(backend.api_key_env, KEY)
    return settings


def servers(backend: Backend, stack: ExitStack) -> tuple[list[FakeServer], Backend]:
    """Fakes of the backend's kind, and the backend with their addresses in place of its own."""
    tei = backend.operations == (Operation.EMBEDDINGS,)
    flavour = "tei" if tei else FLAVOURS.get(backend.dialect, "plain")
    models = backend.models or ("some-model",)
    fakes = [
        stack.enter_context(
            FakeServer(flavour=flavour, models=models, api_key=KEY if backend.api_key_env else None)
        )
        for _ in backend.servers
    ]
    if backend.instances:
        places = [
            Instance.model_validate({**one.model_dump(), "url": fake.url})
            for one, fake in zip(backend.instances, fakes, strict=True)
        ]
        return fakes, backend.model_copy(update={"instances": tuple(places)})
    return fakes, backend.model_copy(update={"url": fakes[0].url})


async def test_every_snippet_answers(configured: Settings) -> None:
    for backend in configured.backends:
        check(backend)
        if backend.dialect == "embedded":
            assert operations_of(backend) == (Operation.EMBEDDINGS,)
            continue
        with ExitStack() as stack:
            fakes, here = servers(backend, stack)
            caller = build_caller(here, Path())
            try:
                listed = await caller.models()
                for model in backend.models or listed:
                    await answers(caller, model, embeds=backend.operations == (Operation.EMBEDDINGS,))
            finally:
                await caller.close()
            seen = [one for fake in fakes for one in fake.requests() if one["method"] == "POST"]
            assert sum(fake.stats()["unauthorized"] for fake in fakes) == 0
            assert seen
            assert all(("***" in one["headers"].values()) is bool(backend.api_key_env) for one in seen)
    assert configured.backends or configured.jobs == JobSettings()


async def answers(caller: Any, model: str, *, embeds: bool) -> None:
    if embeds or EMBEDDING.search(model):
        result = await caller.call(InferenceRequest(Operation.EMBEDDINGS, model, {"input": "a"}))
        assert result.vectors is not None
        return
    body = {"messages": HELLO}
    whole = await caller.call(InferenceRequest(Operation.CHAT, model, body))
    assert whole.body["choices"][0]["message"]["content"]
    chunks = [
        chunk
        async for chunk in caller.stream(InferenceRequest(Operation.CHAT, model, {**body, "stream": True}))
    ]
    assert chunks[-1]["usage"]["completion_tokens"] > 0


def test_options_reach_the_server() -> None:
    (snippet,) = SNIPPETS["Ollama (`ollama`)"]
    (table,) = tomllib.loads(snippet)["backends"]
    sent = built("ollama", {}, table["options"])
    assert (sent["options"], sent["keep_alive"]) == ({"num_ctx": 8192}, "30m")
    (snippet,) = SNIPPETS["Anthropic (`anthropic`)"]
    (table,) = tomllib.loads(snippet)["backends"]
    assert built("anthropic", {}, table["options"])["max_tokens"] == 8192


def test_every_dialect_has_a_section_with_a_snippet() -> None:
    named = {name for title in SNIPPETS for name in re.findall(r"`([^`]+)`", title)}
    assert named == {*DIALECTS, "embedded"}


def test_numbers_and_names_are_the_programs() -> None:
    jobs = JobSettings()
    (snippet,) = SNIPPETS["When one fails"]
    assert tomllib.loads(snippet)["jobs"] == {
        "max_calls": jobs.max_calls,
        "max_calls_batch": jobs.max_calls_batch,
    }
    names = {RETURNED, f"failover:{CircuitOpen.code}", DEFAULT_VERSION, API_VERSION, str(DEFAULT_MAX_TOKENS)}
    options = OpenAICompatible.server.own_options | Vllm.server.own_options | Azure.server.own_options
    for name in names | OWN_OPTIONS | (options - {"root"}):
        assert name in PAGE, name


# -- the table of parameters -----------------------------------------------------------------------

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}


def _image(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


ASKS: Mapping[str, dict[str, Any]] = {
    "`max_tokens`": {"max_tokens": 50},
    "`temperature`, `top_p`": {"temperature": 0.5, "top_p": 0.5},
    "`top_k`": {"top_k": 40},
    "`stop`": {"stop": ["END"]},
    "`seed`": {"seed": 7},
    "`n` = 2": {"n": 2},
    "`logprobs`": {"logprobs": True},
    "`logit_bias`": {"logit_bias": {"5": 1}},
    "`presence_penalty`": {"presence_penalty": 0.5},
    "`repetition_penalty`": {"repetition_penalty": 1.1},
    "`tools`": {"tools": TOOLS},
    "`tool_choice` = required": {"tools": TOOLS, "tool_choice": "required"},
    "`parallel_tool_calls` = false": {"tools": TOOLS, "parallel_tool_calls": False},
    "`response_format` json_object": {"response_format": {"type": "json_object"}},
    "`response_format` json_schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    },
    "`reasoning_effort`": {"reasoning_effort": "low"},
    "image as `data:` URL": _image("data:image/png;base64,aaaa"),
    "image as `https:` URL": _image("https://host.example/a.png"),
    "`guided_json`": {"guided_json": SCHEMA},
    "`user`": {"user": "u"},
}


def table() -> Iterator[tuple[str, str, str]]:
    """What is asked for, the dialect, and what the cell says."""
    rows = re.findall(r"^\|(.*)\|$", SECTIONS["What becomes of parameters"], re.M)
    head, _, *body = [[cell.strip() for cell in row.split("|")] for row in rows]
    for what, *cells in body:
        for dialect, cell in zip(head[1:], cells, strict=True):
            yield what, dialect, cell


def built(dialect: str, body: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    request = InferenceRequest(Operation.CHAT, "m", {"messages": HELLO, **body})
    return dict(json.loads(dialect_named(dialect).build(request, options or {}).body))


def at(body: Any, path: str) -> Any:
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


@pytest.mark.parametrize(("what", "dialect", "cell"), list(table()))
def test_what_becomes_of_parameters(what: str, dialect: str, cell: str) -> None:
    asked = ASKS[what]
    if cell == "refused":
        with pytest.raises(UnsupportedParameter) as refused:
            built(dialect, asked)
        assert refused.value.param.partition("[")[0] in asked  # type: ignore[union-attr]
        return
    plain, sent = built(dialect, {}), built(dialect, asked)
    if cell == "as is":
        assert {name: sent.get(name) for name in asked} == asked
    elif cell == "left out":
        assert sent == plain
    elif cell == "always so":
        assert sent == built(dialect, {"tools": TOOLS})
    else:
        path = cell.strip("`")
        assert at(sent, path) not in (None, at(plain, path))


def test_the_table_is_whole_and_azure_is_as_openai() -> None:
    assert {what for what, _, _ in table()} == set(ASKS)
    assert {dialect for _, dialect, _ in table()} == set(DIALECTS) - {"azure", "fake"}
    for what, asked in ASKS.items():
        try:
            expected = built("openai", asked)
        except UnsupportedParameter:
            with pytest.raises(UnsupportedParameter):
                built("azure", asked)
        else:
            assert built("azure", asked) == expected, what
