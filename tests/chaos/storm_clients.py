"""Clients as they are in life: they wait for answers, back off when told to, and come back after a cut."""

from __future__ import annotations

import itertools
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from chaos.storm_stack import MODEL

PATIENCE = 60.0
"""Seconds an answer may take, storm and all: whoever waits longer was forgotten."""
LONGEST_PAUSE = 1.0
"""Seconds: `Retry-After` is kept, but a storm of a few seconds has no time for long ones."""
AT_ONCE = 4
"""Jobs a client of the jobs API has under way."""


@dataclass
class Try:
    """One thing a client asked for. Instants are `time.monotonic()`."""

    kind: str
    mark: str = field(default_factory=lambda: f"storm-{secrets.token_hex(8)}")
    begun: float = field(default_factory=time.monotonic)
    accepted: float | None = None
    """When K-9 said 2xx."""
    ended: float | None = None
    job: str = ""
    fate: str = ""
    """`answered`; `told` (an error in the answer's place); `refused` (not accepted); `cut` (the API died);
    `gone` (accepted, and now there is no such job); empty: it waits still."""
    why: str = ""

    def end(self, fate: str, why: str = "") -> None:
        self.fate, self.why, self.ended = fate, why, time.monotonic()


class Clients:
    """A steady load from `jobs + chats + streams` threads, at API processes in turn."""

    def __init__(self, urls: list[str], *, jobs: int = 3, chats: int = 3, streams: int = 3) -> None:
        self.tries: list[Try] = []
        self.wrong: list[str] = []
        """What no client should ever see."""
        self._urls = urls
        self._over = threading.Event()
        kinds: list[Callable[[Client], None]] = [
            *[Client.some_jobs] * jobs,
            *[Client.chat] * chats,
            *[Client.stream] * streams,
        ]
        self._threads = [
            threading.Thread(target=self._run, args=(kind, i), daemon=True) for i, kind in enumerate(kinds)
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ask for nothing more, and wait for what was asked for."""
        self._over.set()
        end = time.monotonic() + PATIENCE + 30
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self, kind: Callable[[Client], None], number: int) -> None:
        with httpx.Client(timeout=httpx.Timeout(PATIENCE, connect=5), trust_env=False) as http:
            client = Client(http, itertools.cycle(self._urls[number % 2 :] + self._urls[: number % 2]), self)
            while not self._over.is_set():
                try:
                    kind(client)
                except Exception as problem:
                    self.wrong.append(f"{kind.__name__}: {type(problem).__name__}: {problem}")
                time.sleep(0.02)


class Client:
    def __init__(self, http: httpx.Client, urls: itertools.cycle[str], load: Clients) -> None:
        self._http = http
        self._urls = urls
        self._load = load
        self._url = next(urls)

    def some_jobs(self) -> None:
        """Submit some jobs, the first of them twice, then ask for each until it has ended."""
        held = [one for one in [self._submitted() for _ in range(AT_ONCE)] if one is not None]
        if held:
            self._send_again(held[0])
        for one in held:
            self._fetch(one)

    def chat(self) -> None:
        one = self._try("chat")
        try:
            answer = self._http.post(f"{self._url}/v1/chat/completions", json=_body(one))
        except httpx.TransportError as problem:
            return self._cut(one, problem)
        if answer.status_code == 200:
            one.accepted, one.job = time.monotonic(), answer.headers["x-k9-job"]
            if not answer.json()["choices"][0]["message"]["content"]:
                self._load.wrong.append("an empty answer")
            return one.end("answered")
        return self._not_now(one, answer)

    def stream(self) -> None:
        """A stream to its end; when the API dies under it, its job is asked for."""
        one = self._try("stream")
        url, body = f"{self._url}/v1/chat/completions", {**_body(one), "stream": True}
        said: list[str] = []
        try:
            with self._http.stream("POST", url, json=body) as answer:
                if answer.status_code != 200:
                    answer.read()
                    return self._not_now(one, answer)
                one.accepted, one.job = time.monotonic(), answer.headers["x-k9-job"]
                said = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
        except httpx.TransportError as problem:
            if not one.accepted:
                return self._cut(one, problem)
            self._elsewhere()
            return self._fetch(one)
        problems = [error for error in map(_error, said) if error]
        if problems:
            return one.end("told", problems[0])
        if said[-1:] != ["[DONE]"]:
            self._load.wrong.append("a stream ended without an end")
        return one.end("answered")

    def _submitted(self) -> Try | None:
        """A job that was accepted, however often it had to be sent, under the same Idempotency-Key."""
        one = self._try("job")
        while time.monotonic() - one.begun < PATIENCE:
            try:
                answer = self._submit(one)
            except httpx.TransportError:
                self._elsewhere()
                continue
            if answer.status_code == 202:
                one.accepted, one.job = time.monotonic(), answer.json()["id"]
                return one
            if answer.status_code not in (429, 503):
                self._load.wrong.append(f"submission: {answer.status_code} {answer.text[:200]}")
                break
            self._back_off(answer)
        one.end("refused")
        return None

    def _submit(self, one: Try) -> httpx.Response:
        asked = {"endpoint": "/v1/chat/completions", "body": _body(one)}
        return self._http.post(f"{self._url}/v1/jobs", json=asked, headers={"idempotency-key": one.mark})

    def _send_again(self, one: Try) -> None:
        """As a client does that lost the answer: it is the same job, at whatever API process."""
        self._url = next(self._urls)
        try:
            answer = self._submit(one)
        except httpx.TransportError:
            return
        if answer.status_code == 202 and answer.json()["id"] != one.job:
            self._load.wrong.append(f"{one.job} sent again became {answer.json()['id']}")

    def _fetch(self, one: Try) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                answer = self._http.get(f"{self._url}/v1/jobs/{one.job}", headers={"prefer": "wait=2"})
            except httpx.TransportError:
                self._elsewhere()
                continue
            match answer.status_code:
                case 200:
                    said = answer.json()
                    if said["state"] == "succeeded":
                        return one.end("answered")
                    if said["state"] not in ("queued", "running"):
                        return one.end("told", f"{said['state']}: {(said['error'] or {}).get('code')}")
                case 404:
                    return one.end("gone")
                case 503:
                    self._back_off(answer)
                case _:
                    self._load.wrong.append(f"asking: {answer.status_code} {answer.text[:200]}")
                    return None
        return None

    def _try(self, kind: str) -> Try:
        one = Try(kind)
        self._load.tries.append(one)
        return one

    def _cut(self, one: Try, problem: httpx.TransportError) -> None:
        one.end("cut", type(problem).__name__)
        self._elsewhere()

    def _elsewhere(self) -> None:
        """A connection broke: the other API process next."""
        self._url = next(self._urls)
        time.sleep(0.1)

    def _not_now(self, one: Try, answer: httpx.Response) -> None:
        """An error in the place of an answer: a refusal, or what became of an accepted job."""
        error = answer.json()["error"]
        if answer.status_code < 429:
            self._load.wrong.append(f"{one.kind}: {answer.status_code} {answer.text[:200]}")
        one.job = answer.headers.get("x-k9-job", "")
        one.end("told" if one.job else "refused", error["code"])
        if answer.status_code in (429, 503):
            self._back_off(answer)

    def _back_off(self, answer: httpx.Response) -> None:
        if "retry-after" not in answer.headers:
            self._load.wrong.append(f"{answer.status_code} without Retry-After: {answer.text[:200]}")
        time.sleep(min(float(answer.headers.get("retry-after", 1)), LONGEST_PAUSE))


def _body(one: Try) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": f"Say {one.mark}."}]}


def _error(data: str) -> str:
    """The code of an error inside a stream, or nothing."""
    if data == "[DONE]":
        return ""
    error = json.loads(data).get("error")
    return str(error["code"]) if error else ""
