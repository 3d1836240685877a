"""The examination of one backend: what it is asked, in which order, and what is told of the answers.

Each check asks at most one tiny question, and one that cannot come out well any more is left out. A
model that has to be loaded first may take minutes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from k9_broker.backends import Backend, Instance
from k9_broker.cards import card_of
from k9_broker.errors import BackendCredentials, BackendTimeout, ConfigurationError, K9Error
from k9_broker.findings import Finding, Verdict
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Kind, Operation
from k9_broker.results import Result
from k9_broker.settings import Settings
from k9_workers import remedies
from k9_workers.callers import build_caller, check, operations_of
from k9_workers.credentials import key_of
from k9_workers.remedies import Diagnosis

PATIENCE = 300.0
"""Seconds a local backend may be silent: it may have to load its model first."""
PATIENCE_CLOUD = 60.0
LIST_SECONDS = 15.0
"""How long a list of models may take."""
SLOW = 3.0
"""Seconds after which, and then every so many, it is told what is waited for."""
DESCRIBED = 12
"""Models a server is asked about one by one."""
T = TypeVar("T")

_TINY: Mapping[Operation, Mapping[str, Any]] = {
    Operation.CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    Operation.COMPLETIONS: {"prompt": "Hi"},
    Operation.EMBEDDINGS: {"input": "Hi"},
}


@dataclass(frozen=True, slots=True)
class Examination:
    """One examination of one backend; findings go to `tell`, what is waited for to `progress`."""

    backend: Backend
    settings: Settings
    tell: Callable[[Finding], None]
    progress: Callable[[str], None]
    calls: bool = True
    patience: float | None = None

    async def run(self) -> None:
        backend = self.backend
        try:
            check(backend)
        except ConfigurationError as error:
            self._found("configuration", remedies.of_error(error, backend))
            return
        about = remedies.of_configuration(backend, os.environ)
        for diagnosis in about or [Diagnosis(Verdict.OK, _configured(backend))]:
            self._found("configuration", diagnosis)
        if any(one.verdict is Verdict.WRONG and "url" in one.said for one in about):
            return
        if backend.dialect == "embedded":
            await self._in_process(self.settings.model_folder)
        for instance in backend.servers:
            await self._instance(instance)

    async def _in_process(self, folder: Path) -> None:
        caller = build_caller(self.backend, folder)
        try:
            with self._mending("models", ""):
                models = await self._waiting("the model is read", caller.models(), self._patience)
                self._found("models", Diagnosis(Verdict.OK, ", ".join(models)))
                await self._embeddings(caller.call, next(iter(models)), "")
        finally:
            await caller.close()

    async def _instance(self, instance: Instance) -> None:
        from k9_broker.dialects.registry import dialect_named
        from k9_workers.transport import HttpCaller

        name, url = instance.name, instance.url
        if (unreachable := await self._reach(url)) is not None:
            self._found("reachable", unreachable, name)
            return
        self._found("reachable", Diagnosis(Verdict.OK, name), name)
        caller = HttpCaller(self.backend, instance, dialect_named(self.backend.dialect))
        try:
            listed = await self._list(caller, name, url)
            await self._engine(name, url, spoken=listed is not None)
            if listed is None:
                return
            cards = await self._cards(caller, listed)
            if not self.calls:
                self._found("calls", Diagnosis(Verdict.SKIPPED, "not asked for"), name)
                return
            await self._try(caller, cards, name, url)
        finally:
            await caller.close()

    async def _reach(self, url: str) -> Diagnosis | None:
        """Connect and leave again; gives what is wrong. No proxy is used: the workers use none."""
        import httpx

        parts = urlsplit(url)
        tls = httpx.create_ssl_context(trust_env=False) if parts.scheme == "https" else None
        try:
            async with asyncio.timeout(self.backend.connect_timeout):
                _, writer = await asyncio.open_connection(
                    parts.hostname, remedies.port_of(url), ssl=tls, family=socket.AF_UNSPEC
                )
        except (OSError, TimeoutError) as error:
            return remedies.of_connection(error, self.backend, url)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return None

    async def _list(self, caller: Any, name: str, url: str) -> Mapping[str, ModelCard] | None:
        """The models it lists; `None` when it cannot be used any further."""
        try:
            limit = min(LIST_SECONDS, self._patience)
            listed: Mapping[str, ModelCard] = await self._waiting("its models", caller.listed(), limit)
        except BackendCredentials as error:
            self._found("credentials", remedies.of_error(error, self.backend), name)
            return None
        except K9Error as error:
            self._found("models", remedies.of_error(error, self.backend, url), name)
            return None
        for diagnosis in remedies.of_models(self.backend, list(listed)):
            self._found("models", diagnosis, name)
        return listed

    async def _engine(self, name: str, url: str, *, spoken: bool) -> None:
        """Whether another dialect would suit what answers there better."""
        import httpx

        from k9_broker.dialects.registry import dialect_named
        from k9_broker.engines import ENGINES, engine_at

        backend = self.backend
        if backend.kind is Kind.CLOUD or backend.dialect in (*remedies.VENDORS, "fake"):
            return
        headers = dialect_named(backend.dialect).headers(key_of(backend))
        base = remedies.better_url(url) or url.rstrip("/")
        async with httpx.AsyncClient(timeout=2.0, trust_env=False, headers=headers) as client:
            own = backend.dialect.replace(".", "")
            seen = (await engine_at(client, base, sorted(ENGINES, key=own.__ne__), within=4.0)).engine
        if seen is None or seen.dialect == backend.dialect:
            return
        what = {"llamacpp": "llama.cpp", "ollama": "Ollama", "vllm": "vLLM"}.get(seen.name, seen.name.upper())
        said = f"it looks like {what}, and k9.toml says {backend.dialect}"
        verdict = Verdict.HINT if spoken else Verdict.WRONG
        self._found("dialect", Diagnosis(verdict, said, f'set dialect = "{seen.dialect}"'), name)

    async def _cards(self, caller: Any, listed: Mapping[str, ModelCard]) -> dict[str, ModelCard]:
        """The models that may be tried, each with what is known of it."""
        backend = self.backend
        wanted = [one for one in backend.models if not listed or remedies.is_listed(one, listed)]
        if backend.dialect in ("tgi", "llama.cpp"):  # what it has answers to any name
            wanted = list(backend.models)
        cards = {}
        if not backend.models:  # Ollama's have a shorter name as well
            listed = {one: listed[one] for one in listed if f"{one}:latest" in listed or ":latest" not in one}
        for place, model in enumerate(wanted or ([] if backend.models else listed)):
            said = listed.get(model) or ModelCard()
            if place < DESCRIBED:
                said = await caller.described(model, said)
            cards[model] = card_of(model, backend, self.settings.models, said)
        return cards

    async def _try(self, caller: Any, cards: Mapping[str, ModelCard], name: str, url: str) -> None:
        offered = operations_of(self.backend)
        loaded: Sequence[str] = ()
        with suppress(K9Error, TimeoutError):
            async with asyncio.timeout(LIST_SECONDS):
                load = await caller.load()
                loaded = (load.loaded if load else None) or ()
        text = Operation.CHAT if Operation.CHAT in offered else Operation.COMPLETIONS
        tried = False
        if model := remedies.to_try(cards, text, offered, loaded):
            tried = True
            with self._mending(text, name, url, model) as errors:
                started = time.monotonic()
                await self._waiting(
                    f"{model} to answer", caller.call(self._tiny(text, model)), self._patience
                )
                said = f"{model} answered in {time.monotonic() - started:.2f} s"
                self._found(text, Diagnosis(Verdict.OK, said), name)
            if any(isinstance(error, BackendTimeout | BackendCredentials) for error in errors):
                self._found("stream", Diagnosis(Verdict.SKIPPED, "it would fare as the call before it"), name)
                return
            with self._mending("stream", name, url, model):
                first, whole = await self._waiting(
                    f"{model} to stream",
                    _streamed(caller, self._tiny(text, model, stream=True)),
                    self._patience,
                )
                said = f"{model} began after {first:.2f} s and ended well after {whole:.2f} s"
                self._found("stream", Diagnosis(Verdict.OK, said), name)
        if model := remedies.to_try(cards, Operation.EMBEDDINGS, offered, loaded):
            tried = True
            with self._mending("embeddings", name, url, model):
                await self._embeddings(caller.call, model, name)
        if not tried and cards:
            said = "none of its models is one for chat or embeddings"
            self._found("calls", Diagnosis(Verdict.SKIPPED, said), name)

    async def _embeddings(
        self, call: Callable[[InferenceRequest], Awaitable[Result]], model: str, instance: str
    ) -> None:
        request = self._tiny(Operation.EMBEDDINGS, model)
        result = await self._waiting(f"{model} to embed", call(request), self._patience)
        dimensions = result.vectors.dimensions if result.vectors else 0
        said = f"{model} gives {dimensions} dimensions"
        self._found("embeddings", Diagnosis(Verdict.OK, said), instance)

    def _tiny(self, operation: Operation, model: str, *, stream: bool = False) -> InferenceRequest:
        """One token; in a cloud 16, since models that think refuse a limit they cannot begin within."""
        body: dict[str, Any] = {"model": model, **_TINY[operation]}
        if operation is not Operation.EMBEDDINGS:
            body |= {"max_tokens": 16 if self.backend.kind is Kind.CLOUD else 1, "stream": stream}
        return InferenceRequest(operation, model, body)

    @property
    def _patience(self) -> float:
        usual = PATIENCE_CLOUD if self.backend.kind is Kind.CLOUD else PATIENCE
        return usual if self.patience is None else self.patience

    async def _waiting(self, what: str, doing: Awaitable[T], seconds: float) -> T:
        """Wait, and say what for when it takes long. Raises `BackendTimeout` after `seconds`."""
        task = asyncio.ensure_future(doing)
        started = time.monotonic()
        try:
            while (left := started + seconds - time.monotonic()) > 0:
                done, _ = await asyncio.wait([task], timeout=min(SLOW, left))
                if done:
                    return task.result()
                waited = time.monotonic() - started
                self.progress(f"waiting for {what}, {waited:.0f} s; a model may be loading")
        finally:
            task.cancel()
        raise BackendTimeout(f"it sent nothing for {seconds:g} seconds")

    @contextmanager
    def _mending(self, check: str, instance: str, url: str = "", model: str = "") -> Iterator[list[K9Error]]:
        """An error inside becomes the finding of the check, and stands in the list."""
        errors: list[K9Error] = []
        try:
            yield errors
        except K9Error as error:
            errors.append(error)
            about = "credentials" if isinstance(error, BackendCredentials) else check
            self._found(about, remedies.of_error(error, self.backend, url, model), instance)

    def _found(self, check: str, diagnosis: Diagnosis, instance: str = "") -> None:
        shown = instance if len(self.backend.servers) > 1 else ""
        self.tell(
            Finding(self.backend.name, str(check), diagnosis.verdict, diagnosis.said, diagnosis.mend, shown)
        )


async def _streamed(caller: Any, request: InferenceRequest) -> tuple[float, float]:
    """Seconds to the first piece, and to the end. Raises what breaks the stream."""
    started = time.monotonic()
    first = 0.0
    async with aclosing(caller.stream(request)) as stream:
        async for _ in stream:
            first = first or time.monotonic() - started
    return first, time.monotonic() - started


def _configured(backend: Backend) -> str:
    key = f", key from {backend.api_key_env}" if backend.api_key_env else ""
    return f"{backend.dialect}, {backend.kind}{key}"
