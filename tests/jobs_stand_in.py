"""A small real HTTP server that speaks the jobs API: what the batch client is tested against."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from pydantic_core import from_json, to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from k9_broker.errors import K9Error


def vector(text: str, dimensions: int = 8) -> np.ndarray:
    """The embedding this server gives a text: numbers in [-1, 1) from its hash."""
    digest = hashlib.shake_128(text.encode()).digest(4 * dimensions)
    whole = np.frombuffer(digest, "<u4").astype(np.float64)
    return (whole / 2**31 - 1.0).astype("<f4")


def error_reply(status: int, code: str, retry_after: float | None = None) -> Response:
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    body = {"error": {"message": f"refused: {code}", "type": "server_error", "param": None, "code": code}}
    return Response(to_json(body), status, headers, media_type="application/json")


@dataclass
class Submission:
    """One accepted `POST /v1/jobs`."""

    id: str
    key: str
    texts: list[str]
    tries: int
    """Earlier submissions that began with the same text."""
    job: dict[str, Any]
    ended: asyncio.Event


@dataclass
class StandIn:
    """The server's script: what it refuses, how long a job takes, how it ends. All are asked in its loop."""

    refuse: Callable[[int], Response | None] = lambda number: None
    """Number of the POST, from 0 → a refusal."""
    seconds: Callable[[Submission], float] = lambda submission: 0.0
    fails: Callable[[Submission], tuple[str, K9Error] | None] = lambda submission: None
    """→ the state and error the job ends with instead of succeeding."""
    bad_input: Callable[[str], bool] = lambda text: False
    embed: Callable[[str], np.ndarray] = vector
    submissions: list[Submission] = field(default_factory=list)
    posts: int = 0
    keys: dict[str, Submission] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    waiting: int = 0
    most_waiting: int = 0
    url: str = ""
    backends: list[dict[str, Any]] = field(
        default_factory=lambda: [{"backend": "toy", "models": ["toy-embed"], "operations": ["embeddings"]}]
    )

    async def queues(self, request: Request) -> Response:
        return Response(to_json({"object": "list", "data": self.backends}))

    async def post(self, request: Request) -> Response:
        number, self.posts = self.posts, self.posts + 1
        raw = await request.body()
        self.authorizations.add(request.headers.get("authorization", ""))
        if (refusal := self.refuse(number)) is not None:
            return refusal
        key = request.headers["idempotency-key"]
        found = self.keys.get(key)
        if found is None:
            asked = from_json(raw)
            assert asked["endpoint"] == "/v1/embeddings"
            assert asked["priority"] == "batch"
            assert asked["partial"] is True
            texts = asked["body"]["input"]
            tries = sum(earlier.texts[0] == texts[0] for earlier in self.submissions)
            name = f"job-{len(self.submissions)}"
            job = {"id": name, "object": "job", "state": "queued", "backend": "toy", "error": None}
            found = self.keys[key] = Submission(name, key, texts, tries, job, asyncio.Event())
            self.submissions.append(found)
            asyncio.get_running_loop().call_later(self.seconds(found), self._end, found)
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
        return Response(to_json(found.job), 202, {"location": f"/v1/jobs/{found.id}"})

    def _end(self, submission: Submission) -> None:
        self.waiting -= 1
        job = submission.job
        if job["state"] == "cancelled":
            return
        if failure := self.fails(submission):
            state, error = failure
            job |= {"state": state, "error": {"message": error.message, "code": error.code}}
        else:
            bad = [self.bad_input(text) for text in submission.texts]
            rows = [
                np.zeros(8, "<f4") if wrong else self.embed(text)
                for text, wrong in zip(submission.texts, bad, strict=True)
            ]
            data = [
                {"object": "embedding", "index": index, "embedding": b64encode(row.tobytes()).decode()}
                for index, row in enumerate(rows)
            ]
            tokens = sum(len(text.split()) for text in submission.texts)
            usage = {"prompt_tokens": tokens, "total_tokens": tokens}
            job |= {"state": "succeeded", "result": {"object": "list", "data": data[::-1], "usage": usage}}
            if any(bad):
                problem = {"message": "The text is not liked.", "code": "not_liked"}
                job["errors"] = {str(index): problem for index, wrong in enumerate(bad) if wrong}
        submission.ended.set()

    async def get(self, request: Request) -> Response:
        submission = self._named(request)
        if submission is None:
            return error_reply(404, "job_not_found")
        wait = request.headers.get("prefer", "wait=0").partition("=")[2]
        with suppress(TimeoutError):
            await asyncio.wait_for(submission.ended.wait(), float(wait))
        assert request.query_params["encoding_format"] == "base64"
        return Response(to_json(submission.job))

    async def delete(self, request: Request) -> Response:
        submission = self._named(request)
        if submission is None:
            return error_reply(404, "job_not_found")
        submission.job |= {"state": "cancelled", "error": {"message": "cancelled", "code": "job_cancelled"}}
        self.cancelled.append(submission.id)
        submission.ended.set()
        return Response(to_json(submission.job))

    def _named(self, request: Request) -> Submission | None:
        number = int(request.path_params["job"].removeprefix("job-"))
        return self.submissions[number] if number < len(self.submissions) else None

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/queues", self.queues),
                Route("/v1/jobs", self.post, methods=["POST"]),
                Route("/v1/jobs/{job}", self.get, methods=["GET"]),
                Route("/v1/jobs/{job}", self.delete, methods=["DELETE"]),
            ]
        )


@contextmanager
def serving(stand_in: StandIn, port: int = 0) -> Iterator[StandIn]:
    """The server on a loopback port, by default a free one, in a thread."""
    config = uvicorn.Config(
        stand_in.app(),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    ready = threading.Event()

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready.set()

    server = Announcing(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert ready.wait(10)
    port = server.servers[0].sockets[0].getsockname()[1]
    stand_in.url = f"http://127.0.0.1:{port}"
    try:
        yield stand_in
    finally:
        server.should_exit = True
        thread.join(10)
