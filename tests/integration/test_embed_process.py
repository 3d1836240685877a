"""`k9 embed` as a caller has it: a real process, a real file, and every way a run can end."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from embed_runs import PROGRAM, command, embedded, expected, lines, plan, read_jsonl, run, until
from jobs_stand_in import StandIn, error_reply, vector
from k9_api.batch.run import embed_file
from k9_broker.errors import ConfigurationError

RSS_BOUND_MB = 140.0
"""Peak memory of the whole command for 50,000 lines; about 60 MB of it is Python with its libraries."""


# -- the whole command -----------------------------------------------------------------------------


def test_every_format_in_and_out(server: StandIn, tmp_path: Path) -> None:
    texts = {f"n{number}": f"text {number}" for number in range(30)}
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items())
    )
    with open(tmp_path / "in.csv", "w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *texts.items()])
    for source, out in [("in.jsonl", "a.jsonl"), ("in.csv", "b.npy"), ("in.jsonl", "c.parquet")]:
        done = run(server, tmp_path / source, "-o", tmp_path / out, "--chunk", "7")
        assert done.returncode == 0, done.stderr
        assert "30 items, 0 errors" in done.stderr
        assert "ran on: toy 30" in done.stderr
        assert done.stdout == ""
    assert embedded(tmp_path / "a.jsonl") == expected(texts)
    matrix = np.stack([vector(text) for text in texts.values()])
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), matrix)
    assert [line["id"] for line in read_jsonl(tmp_path / "b.npy.ids.jsonl")] == list(texts)
    table = parquet.read_table(tmp_path / "c.parquet")
    assert table["id"].to_pylist() == list(texts)
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), "f4"), matrix)
    assert not [path for path in tmp_path.iterdir() if "part" in path.suffix or "progress" in path.suffix]


def test_standard_input(server: StandIn, tmp_path: Path) -> None:
    done = run(server, "-", "-o", tmp_path / "out.jsonl", input="a\n\nb\n")
    assert done.returncode == 0, done.stderr
    assert embedded(tmp_path / "out.jsonl") == expected({"1": "a", "3": "b"})
    refused = run(server, "-", "-o", tmp_path / "new.jsonl", "--resume", input="a\n")
    assert refused.returncode == 2
    assert "cannot be resumed" in refused.stderr


def test_lines_that_fail_go_to_the_error_file(server: StandIn, tmp_path: Path) -> None:
    server.bad_input = lambda text: "bad" in text
    (tmp_path / "in.txt").write_bytes(b"good 1\nbad 2\n\n\xff\xfe\ngood 5\nbad 6\n")
    done = run(server, tmp_path / "in.txt", "-o", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert embedded(tmp_path / "out.jsonl") == expected({"1": "good 1", "5": "good 5"})
    errors = read_jsonl(tmp_path / "out.jsonl.errors.jsonl")
    found = [(error["line"], error["id"], error["code"]) for error in errors]
    assert found == [
        (2, "2", "not_liked"),
        (3, None, "empty_line"),
        (4, None, "invalid_utf8"),
        (6, "6", "not_liked"),
    ]
    assert "bad 2" not in (tmp_path / "out.jsonl.errors.jsonl").read_text()
    assert "2 items, 4 errors" in done.stderr


def test_when_nothing_could_be_embedded_the_exit_code_says_so(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"\n\n")
    assert run(server, tmp_path / "in.txt", "-o", tmp_path / "out.jsonl").returncode == 1


def test_what_cannot_run_exits_2_in_one_line(server: StandIn, tmp_path: Path) -> None:
    good = lines(tmp_path, 3)
    (tmp_path / "there.jsonl").write_text("precious")
    cases: list[tuple[list[str | Path], str]] = [
        ([tmp_path / "missing.txt", "-o", tmp_path / "o.jsonl"], "missing.txt cannot be read"),
        ([tmp_path, "-o", tmp_path / "o.jsonl"], "cannot be read"),
        ([good, "-o", tmp_path / "o.txt"], "must end in"),
        ([good, "-o", tmp_path / "there.jsonl"], "--overwrite"),
    ]
    for arguments, message in cases:
        done = run(server, *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert (tmp_path / "there.jsonl").read_text() == "precious"
    assert not server.submissions


async def test_the_input_is_never_overwritten(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ConfigurationError, match="is the input"):
        await embed_file(plan(server, tmp_path / "in.jsonl", tmp_path / "in.jsonl", overwrite=True))
    assert (tmp_path / "in.jsonl").read_text() == '{"text": "a"}\n'


async def test_without_an_embedding_model_it_names_the_next_step(server: StandIn, tmp_path: Path) -> None:
    server.backends = []
    with pytest.raises(ConfigurationError, match="k9 model fetch minilm"):
        await embed_file(plan(server, lines(tmp_path, 1), tmp_path / "out.jsonl"))


# -- ends of all kinds -----------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["out.jsonl", "out.npy", "out.parquet"])
def test_killed_and_resumed_gives_the_same_bytes(server: StandIn, tmp_path: Path, out: str) -> None:
    server.bad_input = lambda text: text.endswith("7")
    server.seconds = lambda submission: 0.02 * (len(submission.texts[0]) % 3)
    file = lines(tmp_path, 500)
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    done = run(server, file, "-o", undisturbed / out, "--chunk", "10")
    assert done.returncode == 0, done.stderr

    target, progress = tmp_path / out, tmp_path / f"{out}.progress"
    eager = f"import k9_api.batch.run as run; run.SECONDS = 0.05; {PROGRAM}"  # checkpoints often
    reached = [0]
    for kills in range(2):
        begun = len(server.submissions)
        options = ["--chunk", "10", "--window", "8", *(["--resume"] if kills else [])]
        arguments = command(server, file, "-o", target, *options)
        arguments[2] = eager
        process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
        until(lambda begun=begun: len(server.submissions) >= begun + 18)  # type: ignore[misc]
        process.kill()
        process.wait()
        reached.append(json.loads(progress.read_text())["next"])
    assert 0 < reached[1] < reached[2] < 500
    assert not target.exists()
    done = run(server, file, "-o", target, "--resume")
    assert done.returncode == 0, done.stderr
    for path in undisturbed.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    assert "450 items, 50 errors" in done.stderr
    # 50 chunks a run: what was under way when it was killed was met again by its key, not done again.
    assert len(server.submissions) == 2 * 50
    again = run(server, file, "-o", target, "--resume")
    assert again.returncode == 0
    assert "complete already" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_cleanly_and_resumed(server: StandIn, tmp_path: Path, number: signal.Signals) -> None:
    file, out = lines(tmp_path, 300), tmp_path / "out.jsonl"
    server.seconds = lambda submission: 30.0 if int(submission.texts[0].split()[-1]) >= 150 else 0.0
    process = subprocess.Popen(
        command(server, file, "-o", out, "--chunk", "10", "--window", "8"), stderr=subprocess.PIPE, text=True
    )
    until(lambda: server.waiting == 8 and len(server.submissions) == 23)
    begun = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - begun < 5
    assert f"Go on with: k9 embed {file} -o {out} --resume --url {server.url}" in said
    assert "Traceback" not in said
    assert len(server.cancelled) == 8
    assert json.loads((tmp_path / "out.jsonl.progress").read_text())["next"] in (
        140,
        150,
    )  # the last may be on its way

    server.seconds = lambda submission: 0.0
    done = run(server, file, "-o", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert "300 items, 0 errors" in done.stderr
    assert list(embedded(out)) == [str(number + 1) for number in range(300)]


def test_stopped_while_standard_input_is_silent(server: StandIn, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(server, "-", "-o", tmp_path / "out.jsonl", "--chunk", "1"),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    process.stdin.write("one\ntwo\n")
    process.stdin.flush()
    until(lambda: len(server.submissions) == 1)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    process.communicate()


async def test_a_changed_input_is_not_resumed(server: StandIn, tmp_path: Path) -> None:
    server.seconds = lambda submission: 5.0
    file, out = lines(tmp_path, 30), tmp_path / "out.jsonl"
    running = asyncio.create_task(embed_file(plan(server, file, out)))
    while not server.submissions:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    lines(tmp_path, 31)
    with pytest.raises(ConfigurationError, match="input has changed"):
        await embed_file(plan(server, file, out, resume=True))


# -- figures ---------------------------------------------------------------------------------------


def test_fifty_thousand_lines_in_bounded_memory(server: StandIn, tmp_path: Path) -> None:
    count = 50_000
    file = lines(tmp_path, count)
    ready = np.linspace(-1, 1, 384).astype("<f4")
    server.embed = lambda text: ready
    done = run(server, file, "-o", tmp_path / "out.npy")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "out.npy", mmap_mode="r").shape == (count, 384)
    found = re.search(r"([\d,]+) items/s.*peak RSS (\d+) MB", done.stderr)
    assert found, done.stderr
    assert float(found[2]) < RSS_BOUND_MB, done.stderr


def test_the_key_is_sent_and_never_shown(server: StandIn, tmp_path: Path) -> None:
    server.refuse = lambda number: error_reply(401, "invalid_api_key")
    secret = "secret-key-of-the-caller"
    done = run(
        server, lines(tmp_path, 3), "-o", tmp_path / "o.jsonl", env={**os.environ, "K9_API_KEY": secret}
    )
    assert done.returncode == 2
    assert secret not in done.stderr + done.stdout
    assert server.authorizations == {f"Bearer {secret}"}
