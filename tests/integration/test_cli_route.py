"""`k9 route`, `k9 why` and `k9 usage` against the whole stack, as a person reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fleets import CODE, LARGE, MINI, SMALL
from k9_api.cli.decided import comparison, usd
from k9_api.cli.main import app
from routed import KEYS, Routed
from stand import free_port


@pytest.fixture(autouse=True)
def _own_settings(four: Routed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("K9_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("K9_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("K9_URL", four.url)
    monkeypatch.setenv("K9_API_KEY", KEYS["default"])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


def run(*words: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(app, words, input=stdin)


def shown(*words: str, stdin: str | None = None) -> str:
    done = run(*words, stdin=stdin)
    assert done.exit_code == 0, done.stderr
    assert max(map(len, done.output.splitlines())) <= int(os.environ["COLUMNS"])
    return str(done.output)


def ask(four: Routed, text: str, tenant: str = "default", **more: Any) -> str:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **more}
    with four.client(tenant) as http:
        return http.post("/v1/chat/completions", json=body).headers["x-k9-job"]


def words_of(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("columns", ["80", "160"])
def test_a_route_is_a_readable_table(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = shown("route", "Translate to German: good morning", "--model", "auto:quality")
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["asked", "for"]
    assert lines[1].startswith("task type")
    (chosen,) = [line for line in lines if line.startswith("*")]
    assert "cloud-large (cloud)" in chosen
    assert "$" in chosen
    order = [text.index(f"\n  {model} ") for model in (LARGE, MINI, SMALL, CODE)]
    assert order == sorted(order)
    told = words_of(text)
    for expected in (
        *("strategy quality-first (by the caller)", "needs strong 0.", "privacy any"),
        *("preference 1.00", "quality 0.90", "because quality-first:cloud"),
        *(f"goes to cloud-large (cloud), {LARGE}", f"at {LARGE}; $0 is saved"),
    ):
        assert expected in told
    assert "\x1b" not in text


def test_what_was_wished_is_shown_with_what_it_removes() -> None:
    wishes = ("--task-type", "code_completion", "--privacy", "local-only", "--strategy", "careful")
    told = words_of(shown("route", "[red]hello[/red]", *wishes, "--system", "be brief"))
    assert "task type code_completion (by the caller)" in told
    assert "strategy careful (by the caller)" in told
    assert "privacy local-only (by the caller)" in told
    assert f"cloud-large {LARGE} privacy:local-only" in told
    assert "is saved" in told
    local = words_of(shown("route", "hello", "--kind", "cloud"))
    assert f"local-small {SMALL} kind:not-asked-for" in local


def test_who_is_passed_over_and_who_refuses_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K9_API_KEY", KEYS["poor"])
    text = shown("route", "hello")
    assert len([line for line in text.splitlines() if line.startswith("- cloud-")]) == 2
    assert words_of(text).count("passed over: budget:exhausted") == 2
    refused = words_of(shown("route", "hello", "--kind", "cloud"))
    assert "refused Today's budget" in refused
    assert "(budget_exhausted)" in refused
    assert "refused No backend serves the model 'nobody'" in words_of(
        shown("route", "a", "--model", "nobody")
    )


@pytest.mark.parametrize("words", [["-"], []])
def test_a_prompt_may_come_from_stdin(words: list[str]) -> None:
    text = "a long text\nof two lines\n"
    piped = json.loads(run("route", *words, "--json", stdin=text).output)
    given = json.loads(run("route", text, "--json").output)
    assert piped["object"] == "route"
    assert {**piped, "candidates": []} == {**given, "candidates": []}


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["route"], " \n", "There is no prompt"),
        (["route", "hello", "--strategy", "nonsense"], None, "There is no strategy 'nonsense'"),
        (["route", "hello", "--model", "auto:nonsense"], None, "cost-first"),
        (["route", "hello", "--task-type", "secret"], None, "code_completion"),
        (["route", "hello", "--privacy", "secret"], None, "local-only"),
        (["why", "job-1"], None, "There is no such job"),
        (["usage", "--days", "0"], None, "1"),
        (["usage", "--days", "400"], None, "366"),
    ],
)
def test_what_is_wrong_is_one_clear_message(words: list[str], stdin: str | None, said: str) -> None:
    done = run(*words, stdin=stdin)
    assert done.exit_code == 2
    assert said in words_of(done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("words", [["route", "hello"], ["why", "job-1"], ["usage"]])
def test_without_a_k9_the_next_step_is_told(words: list[str]) -> None:
    done = run(*words, "--url", f"http://127.0.0.1:{free_port()}")
    assert done.exit_code == 2
    assert "start it with `k9 up`" in done.stderr


def test_why_tells_the_decision_and_what_became_of_it(four: Routed) -> None:
    job = ask(four, "Translate to German: good morning", model="auto:quality")
    text = shown("why", job)
    told = words_of(text)
    (chosen,) = [line for line in text.splitlines() if line.startswith("*")]
    assert "cloud-large (cloud)" in chosen
    for expected in (
        *("asked for auto:quality at /v1/chat/completions", f"went to cloud-large (cloud), {LARGE}"),
        *("because quality-first:cloud", "state succeeded", "waited 0.", "ran ", " in, ", "in the cloud $"),
    ):
        assert expected in told
    past = json.loads(run("why", job, "--json").output)
    assert (past["job"], past["choice"]["model"]) == (job, LARGE)


def test_why_tells_who_was_passed_over(four: Routed, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ask(four, "hello", tenant="poor")
    assert run("why", job).exit_code == 2  # it is somebody else's
    monkeypatch.setenv("K9_API_KEY", KEYS["poor"])
    text = shown("why", job)
    assert len([line for line in text.splitlines() if line.startswith("- cloud-")]) == 2
    assert len([line for line in text.splitlines() if line.startswith("* local-")]) == 1
    assert "because budget:exhausted" in words_of(text)


def test_why_of_a_job_that_failed_tells_the_error(four: Routed) -> None:
    four.fake.behave(error_rate=1, error_status=400)
    job = ask(four, "hello")
    told = words_of(shown("why", job))
    assert "state failed" in told
    assert "error " in told


def test_usage_is_a_table_with_its_total_and_the_budget(
    four: Routed, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(four, "hello", model=LARGE)
    ask(four, "hello", model=SMALL)
    text = shown("usage", "--days", "7")
    header, *rows = text.splitlines()
    assert header.split() == ["day", "model", "kind", "jobs", "in", "out", "cost", "saved"]
    assert {LARGE, SMALL} <= {word for row in rows for word in row.split()}
    (total,) = [row for row in rows if row.startswith("total")]
    said = json.loads(run("usage", "--days", "7", "--json").output)
    assert int(total.split()[1].replace(",", "")) == said["total"]["jobs"] >= 2
    assert said["days"] == 7
    monkeypatch.setenv("K9_API_KEY", KEYS["poor"])
    assert "Of today's $0.000001, $0 is spent" in words_of(shown("usage"))
    monkeypatch.setenv("K9_API_KEY", KEYS["acme"])
    assert "No job of the tenant 'acme'" in shown("usage", "--days", "1")


def test_large_numbers_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = {
        *(("jobs", 1_234_567), ("prompt_tokens", 12_345_678_901), ("completion_tokens", 9_876_543)),
        *(
            ("cost_usd", 12_345.678),
            ("compared_cost_usd", 1.5),
            ("cloud_cost_usd", 7.0),
            ("saving_usd", -5.5),
        ),
    }
    row = {"day": "2026-01-31", "model": "maker/some-model-70b", "kind": "local", **dict(sums)}
    said = {"tenant": "t", "days": 30, "total": dict(sums), "by_model": [], "data": [row], "budget": None}
    monkeypatch.setattr("k9_api.cli.usage.http_get", lambda url, path: said)
    text = shown("usage")
    for expected in ("1,234,567", "12,346M", "9,876,543", "$12,345.68", "-$5.5000"):
        assert expected in text
    assert "maker/" in text
    assert "70b" in text


def test_piped_it_is_plain(four: Routed, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "k9_api.cli", "route", "hello"]
    env = {**os.environ, "TERM": "xterm-256color"}
    env.pop("COLUMNS")
    done = subprocess.run(words, env=env, capture_output=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout
    assert b"goes to" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "unknown"), (0, "$0"), (0.0000004, "<$0.000001"), (0.000123, "$0.000123"), (0.01, "$0.0100"),
        (99.5, "$99.5000"), (1234.5, "$1,234.50"), (-0.5, "-$0.5000"), (-0.001, "-$0.001000"),
    ],
)  # fmt: skip
def test_dollars(amount: float | None, text: str) -> None:
    assert usd(amount) == text


@pytest.mark.parametrize(
    ("there", "here", "text"),
    [
        (0.02, 0.0, "$0.0200 at m; $0.0200 is saved"),
        (0.02, 0.05, "$0.0200 at m; $0.0300 more is spent"),
        (0.02, None, "$0.0200 at m"),
        (None, 0.1, None),
    ],
)
def test_a_saving_in_words(there: float | None, here: float | None, text: str | None) -> None:
    said = {"compared_with": "m", "compared_cost_usd": there, "choice": {"cost_usd": here}}
    assert comparison(said) == text
