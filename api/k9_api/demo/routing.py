"""The routing demo: the same prompts under each strategy, through the real stack, on four fake backends.

Nothing is worked out here: where a prompt went and why is what the answer's headers and
`GET /v1/jobs/{id}/route` say, the totals are those of `GET /v1/usage`. Each strategy has an API key, and
so a tenant, of its own.
"""

from __future__ import annotations

import json
import os
import secrets
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import httpx
from pydantic import Field, TypeAdapter
from rich.console import Console

from k9_api.demo.prompts import PROMPTS, Prompt
from k9_api.demo.routing_table import Routed, Run, show
from k9_api.demo.upping import DemoFailed, k9_up
from k9_broker.backends import Backend
from k9_broker.errors import ConfigurationError
from k9_broker.testing import FakeServer

STRATEGIES = ("task-type", "cost-first", "quality-first", "latency-first")
"""The last learns from the others how fast each backend is."""
PACES: Mapping[str, tuple[float, float]] = {
    "local-small": (40, 350),
    "local-code": (40, 330),
    "cloud-large": (160, 350),
    "cloud-mini": (120, 700),
}
"""Milliseconds to the first token and tokens a second, by backend: some five times as fast as in life."""
_ANSWER_TOKENS = 60
_AT_ONCE = 4


def run(config: Path, state_dir: Path, console: Console) -> None:
    """All of it, with the backends of `config`. Raises `ConfigurationError` and `DemoFailed`."""
    backends = _backends(config)
    keys = {strategy: secrets.token_urlsafe(12) for strategy in STRATEGIES}
    mark = secrets.token_hex(3)  # tenants nobody had before, so that their usage begins at nothing
    with _fakes(backends) as played:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("K9_")},
            "K9_CONFIG": str(config.absolute()),
            "K9_BACKENDS": json.dumps([one.model_dump(mode="json") for one in played]),
            "K9_API_KEYS": ",".join(f"{strategy}-{mark}:{key}" for strategy, key in keys.items()),
        }
        with k9_up(state_dir, ("--no-flower",), environment, console, quiet=True) as url:
            for one in played:
                console.print(f"{one.name:<12} {one.kind}  {', '.join(one.models)}", highlight=False)
            console.rule(f"{len(PROMPTS)} prompts, {len(STRATEGIES)} strategies")
            runs = [_run(url, strategy, keys[strategy]) for strategy in STRATEGIES]
    show(runs, console)


def _backends(config: Path) -> tuple[Backend, ...]:
    try:
        tables = tomllib.loads(config.read_text("utf-8"))
        return _SOME.validate_python(tables.get("backends", ()))
    except (OSError, ValueError) as error:  # a TOMLDecodeError and a ValidationError are ValueErrors
        raise ConfigurationError(
            f"{config} has no backends to play ({type(error).__name__}). In a checkout it is"
            " examples/routing/k9.toml; name another with --config."
        ) from None


_SOME = TypeAdapter(Annotated[tuple[Backend, ...], Field(min_length=1)])


@contextmanager
def _fakes(backends: Sequence[Backend]) -> Iterator[list[Backend]]:
    """A fake for each, on a free port; gives the backends as they are then."""
    with ExitStack() as stack:
        played = []
        for backend in backends:
            first, rate = PACES.get(backend.name, (0, 0))
            fake = FakeServer(
                models=list(backend.models),
                first_token_ms=first,
                tokens_per_second=rate,
                answer_tokens=_ANSWER_TOKENS,
            )
            stack.enter_context(fake)
            played.append(backend.model_copy(update={"url": fake.url}))
        yield played


def _run(url: str, strategy: str, key: str) -> Run:
    bearer = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=bearer, timeout=60, trust_env=False) as api:

        def ask(prompt: Prompt) -> Routed:
            body = prompt.body(f"auto:{strategy}")
            with api.stream("POST", prompt.path, json=body) as reply:
                reply.read()
            if reply.status_code != 200:
                raise DemoFailed(f"A prompt was answered with {reply.status_code} under {strategy}.")
            headers = {name.lower(): value for name, value in reply.headers.items()}
            route = api.get(f"/v1/jobs/{headers['x-k9-job']}/route").raise_for_status()
            return Routed(prompt, headers, route.json())

        with ThreadPoolExecutor(_AT_ONCE) as several:
            routed = list(several.map(ask, PROMPTS))
        return Run(strategy, routed, api.get("/v1/usage").raise_for_status().json())
