"""`k9 dead`: list, show, replay and drop, as an operator uses them."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from k9_api.cli.main import app
from k9_broker.adapters import keys
from k9_broker.adapters.redis_fleet import RedisFleet
from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.errors import BackendTimeout
from k9_broker.jobs import JobState
from k9_broker.requests import Privacy
from letters import CLOUD, HERE, dies, loses_its_workers
from stand import RedisProcess
from walks import announced, candidate, chat, claim, succeed

SECRET = "what only its caller should read"


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("K9_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("K9_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def operator(clean_redis: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> RedisProcess:
    """Whoever runs the commands reaches this Redis."""
    monkeypatch.setenv("K9_REDIS_URL", clean_redis.url)
    return clean_redis


def k9(*words: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(app, ["dead", *words], input=stdin)


async def run(*words: str, stdin: str | None = None) -> Any:
    return await asyncio.to_thread(k9, *words, stdin=stdin)


async def shown(*words: str) -> str:
    done = await run(*words)
    assert done.exit_code == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= int(os.environ["COLUMNS"])
    return str(done.stdout)


async def ids(*words: str) -> list[str]:
    done = await run("list", "--json", *words)
    assert done.exit_code == 0, done.stderr
    return [letter["id"] for letter in json.loads(done.stdout)["data"]]


def prompting(**changes: Any) -> Any:
    return replace(chat(messages=[{"role": "user", "content": SECRET}]), **changes)


# -- list and show --------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["80", "160"])
async def test_the_list_fits_the_terminal_and_never_cuts_an_id(
    operator: RedisProcess, ledger: RedisLedger, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert "There are no dead letters." in await shown("list")
    lost = await loses_its_workers(ledger, operator)
    failed = await dies(ledger, request=prompting(tenant="acme"), place=candidate("a-long-backends-name"))
    text = await shown("list")
    assert text.index(failed.id) < text.index(lost.id), "the newest is first"
    header = text.splitlines()[0].split()
    assert header[-4:] == ["model", "backend", "tries", "tenant"]
    row = next(line.split() for line in text.splitlines() if lost.id in line)
    if columns == "160":
        assert header[:4] == ["age", "id", "when", "error"]
        assert [row[2], *row[5:]] == [lost.id, "worker_lost", "m", "a", "3", "default"]
    else:
        assert row[2:] == [lost.id, "m", "a", "3", "default"]
        assert "backend_unreachable" in text
    assert SECRET not in text


async def test_filters_leave_what_fits(operator: RedisProcess, ledger: RedisLedger) -> None:
    lost = await loses_its_workers(ledger, operator)
    acme = await dies(ledger, request=prompting(tenant="acme"))
    away = await dies(ledger, place=CLOUD, error=BackendTimeout())
    assert await ids() == [away.id, acme.id, lost.id]
    assert await ids("--limit", "2") == [away.id, acme.id]
    assert "the newest 2" in await shown("list", "--limit", "2")
    assert await ids("--backend", "away") == [away.id]
    assert await ids("--code", "worker_lost") == [lost.id]
    assert await ids("--tenant", "acme", "--since", "1h") == [acme.id]
    assert await ids("--since", "2000-01-31") == [away.id, acme.id, lost.id]
    assert await ids("--since", "2999-01-31T18:00") == []
    assert "None of them fits." in await shown("list", "--tenant", "nobody")
    wrong = await run("list", "--since", "yesterday")
    assert (wrong.exit_code, "yesterday" in wrong.stderr) == (2, True)


async def test_show_tells_everything_but_the_prompt_unless_it_is_asked_for(
    operator: RedisProcess, ledger: RedisLedger
) -> None:
    job = await dies(ledger, request=prompting(), privacy=Privacy.LOCAL_ONLY, privacy_by=("found:email",))
    told = " ".join((await shown("show", job.id)).split())
    for expected in (
        *("was last at a (local), m", "tenant default", "state failed", "(backend_unreachable)"),
        *("1 attempt, generation 1", "worker w", "skipped elsewhere: model-not-served"),
        *("email was found in it", "tokens 7 in, 0 out"),
    ):
        assert expected in told
    as_json = await run("show", job.id, "--json")
    said = json.loads(as_json.stdout)
    assert (said["id"], said["attempts"], said["error"]["code"]) == (job.id, 1, "backend_unreachable")
    assert said["route"]["candidates"][0]["backend"] == "a"
    assert SECRET not in told + as_json.stdout
    assert SECRET in (await run("show", job.id, "--request")).stdout
    asked = json.loads((await run("show", job.id, "--request", "--json")).stdout)
    assert asked["request"]["messages"][0]["content"] == SECRET


async def test_what_is_none_is_one_clear_message(operator: RedisProcess, ledger: RedisLedger) -> None:
    job = await dies(ledger)
    operator.client.hset(keys.job(job.id), "state", "succeeded")
    for words, said in (("show", job.id), "no dead letter"), (("show", "job-unknown"), "no such job"):
        done = await run(*words)
        assert done.exit_code == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr


# -- replay and drop ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["replay", "drop"])
@pytest.mark.parametrize("words", [[], ["job-x", "--all"], ["job-x", "--backend", "a"]])
async def test_which_jobs_are_meant_must_be_said(operator: RedisProcess, verb: str, words: list[str]) -> None:
    done = await run(verb, *words)
    assert done.exit_code == 2
    assert "--all" in done.stderr


async def test_named_ones_are_replayed_and_the_others_told_of(
    operator: RedisProcess, ledger: RedisLedger, fleet: RedisFleet
) -> None:
    await fleet.announce(announced("a"))
    job = await dies(ledger)
    private = await dies(ledger, request=prompting(model="nobody-has-it"))
    done = await run("replay", job.id, private.id, "job-unknown", job.id)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        f"{job.id} to a (local), m: task-type:local",
        "1 of 3 replayed.",
    ]
    assert f"{private.id} not replayed: No backend serves the model" in done.stderr
    assert "job-unknown not replayed: There is no such job" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert (await ledger.get(job.id)).state is JobState.QUEUED
    assert (await run("replay", job.id)).exit_code == 1, "only once"


async def test_without_a_worker_it_stays_a_dead_letter(operator: RedisProcess, ledger: RedisLedger) -> None:
    job = await dies(ledger)
    done = await run("replay", job.id)
    assert done.exit_code == 1
    assert "(backend_unavailable)" in done.stderr
    assert await ids() == [job.id]


async def test_all_of_them_asks_first(operator: RedisProcess, ledger: RedisLedger, fleet: RedisFleet) -> None:
    await fleet.announce(announced("a"))
    older, newer, other = [await dies(ledger, place=one) for one in (HERE, HERE, candidate("b"))]
    refused = await run("replay", "--all", "--backend", "a", stdin="n\n")
    assert (refused.exit_code, "Replay 2 dead letters?" in refused.stdout) == (1, True)
    assert len(await ids()) == 3
    done = await run("replay", "--all", "--backend", "a", stdin="y\n")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.index(older.id) < done.stdout.index(newer.id), "the oldest is first"
    assert await ids() == [other.id]
    done = await run("replay", "--all", "--yes")
    assert (done.exit_code, other.id in done.stdout) == (0, True)
    done = await run("replay", "--all")
    assert (done.exit_code, done.stdout) == (0, "There is no such dead letter.\n")


async def test_what_is_dropped_is_gone(operator: RedisProcess, ledger: RedisLedger) -> None:
    first, second, third = [await dies(ledger) for _ in range(3)]
    done = await run("drop", first.id)
    assert (done.exit_code, done.stdout) == (0, f"{first.id} dropped\n")
    assert not operator.client.exists(keys.job(first.id), keys.relay(first.id))
    assert (await run("drop", first.id)).exit_code == 1
    assert (await run("drop", "--all", stdin="n\n")).exit_code == 1
    assert await ids() == [third.id, second.id]
    assert (await run("drop", "--all", "-y")).exit_code == 0
    assert await ids() == []


async def test_the_policy_of_the_operator_decides(
    operator: RedisProcess, ledger: RedisLedger, fleet: RedisFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.announce(announced("a"))
    job = await dies(ledger)
    monkeypatch.setenv("K9_STRATEGIES", '[{"name": "mine", "extends": "cost-first"}]')
    monkeypatch.setenv("K9_ROUTING__STRATEGY", "mine")
    assert (await run("replay", job.id)).exit_code == 0
    again = await ledger.get(job.id)
    assert again.strategy == "mine"
    await succeed(ledger, await claim(ledger, again))
