"""`k9 embed` and a server that misbehaves: load, outages, failures, answers out of order."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import numpy as np
import pytest
from starlette.responses import Response

from embed_runs import command, embedded, lines, plan, read_jsonl, until
from jobs_stand_in import StandIn, Submission, error_reply, serving, vector
from k9_api.batch.answers import Answer
from k9_api.batch.chunks import Chunk
from k9_api.batch.feeder import ReadAhead, in_order
from k9_api.batch.jobs import GaveUp
from k9_api.batch.records import Record
from k9_api.batch.run import embed_file
from k9_broker.errors import BackendOverloaded, BadRequest, ConfigurationError, JobExpired

# -- the server misbehaves -------------------------------------------------------------------------


async def test_load_makes_it_wait_and_nothing_fails(server: StandIn, tmp_path: Path) -> None:
    def refuse(number: int) -> Response | None:
        kinds = [error_reply(503, "queue_full", 0.05), error_reply(429, "rate_limit_exceeded", 0.05), None]
        return kinds[number % 3]

    server.refuse = refuse
    done = await embed_file(plan(server, lines(tmp_path, 100), tmp_path / "out.jsonl", give_up_after=0.0))
    assert (done.items, done.errors) == (100, 0)
    assert len(server.submissions) == 10


async def test_an_outage_is_waited_for_up_to_a_limit(server: StandIn, tmp_path: Path) -> None:
    down = lambda number: error_reply(503, "ledger_unavailable", 0.05)  # noqa: E731
    server.refuse = lambda number: down(number) if 3 <= number < 12 else None
    done = await embed_file(plan(server, lines(tmp_path, 100), tmp_path / "out.jsonl"))
    assert (done.items, done.errors) == (100, 0)

    server.refuse = down
    limited = plan(server, lines(tmp_path, 100), tmp_path / "more.jsonl", give_up_after=0.3)
    with pytest.raises(GaveUp, match="ledger_unavailable"):
        await embed_file(limited)
    server.refuse = lambda number: None
    done = await embed_file(plan(server, tmp_path / "in.txt", tmp_path / "more.jsonl", resume=True))
    assert (done.items, done.errors) == (100, 0)


def test_the_api_may_go_away_and_come_back(tmp_path: Path) -> None:
    stand_in = StandIn(seconds=lambda submission: 0.02)
    with serving(stand_in):
        file, out = lines(tmp_path, 200), tmp_path / "out.jsonl"
        process = subprocess.Popen(
            command(stand_in, file, "-o", out, "--chunk", "10"), stderr=subprocess.PIPE, text=True
        )
        until(lambda: len(stand_in.submissions) >= 9)
    port = int(stand_in.url.rpartition(":")[2])
    with serving(stand_in, port):
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert len(embedded(out)) == 200
    assert len(stand_in.submissions) == 20


async def test_failed_jobs_are_offered_again_up_to_a_limit(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k9_api.batch.jobs.BACKOFF", 0.001)

    def fails(submission: Submission) -> tuple[str, Exception] | None:
        first = int(submission.texts[0].split()[-1])
        if first == 10 and submission.tries < 2:
            return "failed", BackendOverloaded()
        if first == 20 and submission.tries < 1:
            return "expired", JobExpired()
        if first == 30:
            return "failed", BadRequest()
        if first == 40:
            return "failed", BackendOverloaded()
        return None

    server.fails = fails  # type: ignore[assignment]
    out = tmp_path / "out.jsonl"
    done = await embed_file(plan(server, lines(tmp_path, 100), out))
    assert (done.items, done.errors) == (80, 20)
    codes = [error["code"] for error in read_jsonl(tmp_path / "out.jsonl.errors.jsonl")]
    assert codes == ["invalid_request"] * 10 + ["backend_overloaded"] * 10
    tried = dict.fromkeys((10, 20, 30, 40), 0)
    for submission in server.submissions:
        first = int(submission.texts[0].split()[-1])
        if first in tried:
            tried[first] += 1
    assert tried == {10: 3, 20: 2, 30: 1, 40: 5}
    assert len({submission.key for submission in server.submissions}) == len(server.submissions)


@pytest.mark.parametrize("status", [401, 404])
async def test_what_every_chunk_would_meet_stops_the_run(
    server: StandIn, tmp_path: Path, status: int
) -> None:
    server.refuse = lambda number: error_reply(status, "some_code")
    with pytest.raises(ConfigurationError, match=f"{status} some_code"):
        await embed_file(plan(server, lines(tmp_path, 100), tmp_path / "out.jsonl"))


async def test_vectors_that_are_no_numbers_are_errors(server: StandIn, tmp_path: Path) -> None:
    server.embed = lambda text: vector(text) * (np.float32("nan") if text.endswith("5") else np.float32(1))
    done = await embed_file(plan(server, lines(tmp_path, 20), tmp_path / "out.jsonl"))
    assert (done.items, done.errors) == (18, 2)
    assert {error["code"] for error in read_jsonl(tmp_path / "out.jsonl.errors.jsonl")} == {"not_finite"}


async def test_answers_out_of_order_are_written_in_order(server: StandIn, tmp_path: Path) -> None:
    server.seconds = lambda submission: 0.15 if int(submission.texts[0].split()[-1]) % 40 == 0 else 0.0
    out = tmp_path / "out.jsonl"
    await embed_file(plan(server, lines(tmp_path, 200), out, window=4))
    assert list(embedded(out)) == [str(number + 1) for number in range(200)]
    assert server.most_waiting <= 4


# -- the window ------------------------------------------------------------------------------------


async def test_the_window_bounds_what_is_under_way_and_what_waits() -> None:
    under_way, most, begun = 0, 0, 0
    release = asyncio.Event()

    async def embed(chunk: Chunk) -> Answer:
        nonlocal under_way, most, begun
        under_way, begun = under_way + 1, begun + 1
        most = max(most, under_way)
        if chunk.start == 0:
            await release.wait()
        await asyncio.sleep(0)
        under_way -= 1
        if begun == 6:
            release.set()  # the first holds all others up: no more than twice the window is ever begun
        return Answer(chunk)

    chunks = (Chunk(number, number + 1, (Record(number, "", "x"),)) for number in range(50))
    starts = [answer.chunk.start async for answer in in_order(ReadAhead(chunks), embed, window=3)]
    assert starts == list(range(50))
    assert most <= 3
