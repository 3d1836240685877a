"""One chunk as one job over HTTP: submit, wait, try again. Load makes it wait, never fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx
from pydantic_core import from_json, to_json

from k9_api.batch.answers import Answer, answer, failed
from k9_api.batch.chunks import Chunk
from k9_broker.errors import MAX_RETRY_AFTER, BackendError, ConfigurationError, K9Error, from_record
from k9_broker.jobs import JobState

MAX_TRIES = 5
"""Jobs made for one chunk before its lines go to the error file."""

BACKOFF = 0.25
"""Seconds before the second of these jobs; doubled before each further one."""

POLL = 30
"""Seconds the server may hold one look at a job."""

BASE64 = "encoding_format=base64"
"""How vectors shall be written in a job's result: a third of the bytes of decimals, and no parsing."""

OUTAGES = {"ledger_unavailable", "backend_unavailable"}
"""Refusals that are no load: waiting for them has an end."""

STOPPING = {401, 403, 404, 405}
"""Statuses of a submission that the next chunk would meet just the same."""

LOST = "job_lost"


class GaveUp(K9Error):
    """The API could not be reached for too long."""

    code = "gave_up"


class ChunkRefused(Exception):
    """The API would not take this chunk, or lost its job; `again` says whether to offer it once more."""

    def __init__(self, code: str, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.code, self.again = code, again


class JobsClient:
    """Turns chunks into answers through `POST /v1/jobs`.

    `run` makes the idempotency keys: one per chunk and try, so that a submission whose reply was
    lost, or a run continued after a crash, meets its own job again. `note` says why it waits.
    Raises `GaveUp` after `give_up_after` seconds without any sign of life.
    """

    def __init__(
        self, http: httpx.AsyncClient, *, model: str, run: str, give_up_after: float = 600.0
    ) -> None:
        self.model, self.run = model, run
        self.note = ""
        self._http = http
        self._give_up_after = give_up_after
        self._not_before = 0.0
        self._down_since: float | None = None
        self._outstanding: set[str] = set()
        self._submitting: set[asyncio.Task[Mapping[str, Any]]] = set()

    async def embed(self, chunk: Chunk) -> Answer:
        """The answer for a chunk; lines that cannot be embedded are in its `errors`."""
        if not chunk.records:
            return Answer(chunk)
        body = self._body(chunk)
        for attempt in range(MAX_TRIES):
            try:
                job = await self._job(body, f"{self.run}-{chunk.start}-{attempt}")
                if job.get("state") == JobState.SUCCEEDED:
                    return answer(chunk, job)
                refused = _ill_end(job)
            except BackendError as unfit:
                refused = ChunkRefused(unfit.code, unfit.message, again=True)
            except ChunkRefused as caught:
                refused = caught
            if not refused.again or attempt == MAX_TRIES - 1:
                break
            await asyncio.sleep(BACKOFF * 2**attempt)
        return failed(chunk, refused.code, str(refused))

    async def cancel_all(self, seconds: float = 5.0) -> None:
        """Cancel every job that has not ended, as far as the API answers within `seconds`.

        A submission on its way is waited for, since the job it makes has no name yet.
        """
        if self._submitting:
            _, late = await asyncio.wait(self._submitting, timeout=seconds / 5)
            for submission in late:
                submission.cancel()
        calls = [self._http.delete(f"/v1/jobs/{job}") for job in self._outstanding]
        self._outstanding = set()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*calls, return_exceptions=True)
        except TimeoutError:
            pass

    def _body(self, chunk: Chunk) -> bytes:
        texts = [record.text for record in chunk.records]
        return to_json(
            {
                "endpoint": "/v1/embeddings",
                "body": {"model": self.model, "input": texts, "encoding_format": "base64"},
                "priority": "batch",
                "partial": True,
            }
        )

    async def _job(self, body: bytes, key: str) -> Mapping[str, Any]:
        """Submit once and wait for the end: the job object in its last state."""
        submission = asyncio.create_task(self._submit(body, key))
        self._submitting.add(submission)
        submission.add_done_callback(self._submitted)
        job = await asyncio.shield(submission)
        name = str(job.get("id"))
        quick = 0
        while not _ended(job):
            asked = time.monotonic()
            reply = await self._send("GET", f"/v1/jobs/{name}?{BASE64}", {"Prefer": f"wait={POLL}"})
            if reply.status_code != 200:
                self._outstanding.discard(name)
                code = LOST if reply.status_code == 404 else error_in(reply)[0]
                raise ChunkRefused(code, "The job's record is gone or cannot be read.", again=True)
            job = _object(reply)
            if not _ended(job) and time.monotonic() - asked < 1.0:  # the server did not hold the look
                quick += 1
                await asyncio.sleep(min(1.0, 0.02 * 2**quick))
        self._outstanding.discard(name)
        if job.get("state") == JobState.SUCCEEDED and "result" not in job:
            raise BackendError("The job succeeded without a result.")
        return job

    def _submitted(self, submission: asyncio.Task[Mapping[str, Any]]) -> None:
        self._submitting.discard(submission)
        if not submission.cancelled():
            submission.exception()  # whoever waited may be gone, and asyncio would complain

    async def _submit(self, body: bytes, key: str) -> Mapping[str, Any]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        reply = await self._send("POST", f"/v1/jobs?{BASE64}", headers, body)
        if reply.status_code not in (200, 201, 202):
            self._refuse(reply)
        job = _object(reply)
        self._outstanding.add(str(job.get("id")))
        return job

    def _refuse(self, reply: httpx.Response) -> None:
        code, message = error_in(reply)
        if reply.status_code in STOPPING or code == "insufficient_quota":
            raise ConfigurationError(f"The API refused the job ({reply.status_code} {code}): {message}")
        again = reply.status_code >= 500 or code == "idempotency_conflict"
        raise ChunkRefused(code, message, again=again)

    async def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> httpx.Response:
        """The first reply that is neither a refusal for load nor an outage."""
        failures = 0
        while True:
            await self._until_open()
            try:
                reply = await self._http.request(method, path, headers=headers, content=body)
            except httpx.TransportError as error:
                failures += 1
                self._outage(failures, type(error).__name__)
                continue
            if reply.status_code not in (429, 502, 503, 504) or error_in(reply)[0] == "insufficient_quota":
                self.note, self._down_since = "", None
                return reply
            code, told = error_in(reply)[0], _retry_after(reply)
            if code in OUTAGES or (told is None and reply.status_code != 429):
                failures += 1
                self._outage(failures, code, told or 0.0)
            else:
                self._down_since = None
                self.note = f"waiting for room ({code})"
                self._hold(told if told is not None else 1.0)

    async def _until_open(self) -> None:
        while (wait := self._not_before - time.monotonic()) > 0:  # noqa: ASYNC110  it is an instant, and moves
            await asyncio.sleep(wait)

    def _outage(self, failures: int, why: str, at_least: float = 0.0) -> None:
        now = time.monotonic()
        self._down_since = self._down_since or now
        down = now - self._down_since
        if down >= self._give_up_after:
            raise GaveUp(f"The API at {self._http.base_url} gave no good answer for {down:.0f} s ({why}).")
        self.note = f"API not ready ({why}), {down:.0f} s of {self._give_up_after:.0f} s"
        left = self._give_up_after - down
        self._hold(min(max(at_least, min(10.0, 0.1 * 2**failures)), left))

    def _hold(self, seconds: float) -> None:
        # One refusal holds every chunk back: asking again at once would only be refused again.
        until = time.monotonic() + max(0.05, min(seconds, MAX_RETRY_AFTER))
        self._not_before = max(self._not_before, until)


def _ended(job: Mapping[str, Any]) -> bool:
    try:
        return JobState(str(job.get("state"))).ended
    except ValueError:
        return False


def _ill_end(job: Mapping[str, Any]) -> ChunkRefused:
    record = job.get("error") or {}
    error = from_record(record)
    # A batch has no deadline of its own: a job that waited past its own is offered again.
    again = error.retryable or job.get("state") == JobState.EXPIRED
    return ChunkRefused(str(record.get("code") or job.get("state")), error.message, again=again)


def _object(reply: httpx.Response) -> Mapping[str, Any]:
    try:
        value = from_json(reply.content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ChunkRefused("invalid_answer", "The API's answer is not a JSON object.", again=True)
    return value


def error_in(reply: httpx.Response) -> tuple[str, str]:
    """Code and message of an error in OpenAI's shape, or of whatever else was answered."""
    try:
        error = from_json(reply.content)["error"]
        return str(error.get("code") or error.get("type")), str(error.get("message"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"http_{reply.status_code}", f"The API answered {reply.status_code}."


def _retry_after(reply: httpx.Response) -> float | None:
    try:
        return float(reply.headers["retry-after"])
    except (KeyError, ValueError):
        return None
