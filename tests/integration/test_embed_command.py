"""`k9 embed` against a whole running K-9: Redis, workers, API."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from stack import Stack, ask
from stand import wait_until

PROGRAM = "from k9_api.cli.main import app; app()"


def command(stack: Stack, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, "embed", "--url", stack.url, *map(str, arguments)]


def lines(folder: Path, count: int) -> Path:
    path = folder / "in.txt"
    path.write_text("".join(f"line number {number}\n" for number in range(count)))
    return path


def test_the_vectors_are_those_of_the_backend(stack: Stack, tmp_path: Path) -> None:
    file, out = lines(tmp_path, 1000), tmp_path / "out.npy"
    done = subprocess.run(command(stack, file, "-o", out), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "1,000 items, 0 errors" in done.stderr
    assert "ran on: fake 1,000" in done.stderr
    matrix = np.load(out)
    asked = [0, 255, 256, 999]
    body = {"model": stack.embed_model, "input": [f"line number {number}" for number in asked]}
    status, _, said = ask(f"{stack.url}/v1/embeddings", body)
    assert status == 200, said
    np.testing.assert_array_equal(
        matrix[asked], np.array([row["embedding"] for row in said["data"]], np.float32)
    )


def test_a_worker_killed_in_the_middle_loses_nothing(own_stack: Stack, tmp_path: Path) -> None:
    own_stack.fake.behave(latency_ms=100)
    file, out = lines(tmp_path, 2000), tmp_path / "out.jsonl"
    process = subprocess.Popen(
        command(own_stack, file, "-o", out, "--chunk", "20"), stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: own_stack.fake.stats()["inferences"] >= 20, "some chunks are done", 30)
    own_stack.workers["w1"].send(signal.SIGKILL)
    own_stack.start_worker("w2")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "2,000 items, 0 errors" in said
    ids = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    assert ids == [str(number + 1) for number in range(2000)]


def test_stopping_cancels_its_jobs(stack: Stack, tmp_path: Path) -> None:
    stack.fake.behave(latency_ms=60_000)
    try:
        process = subprocess.Popen(
            command(stack, lines(tmp_path, 400), "-o", tmp_path / "out.jsonl", "--chunk", "20"),
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: stack.fake.stats()["active"] >= 8, "the window is under way", 30)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 130, said
        assert "--resume" in said
        wait_until(lambda: stack.fake.stats()["active"] == 0, "the backend's calls are closed", 10)
    finally:
        stack.fake.reset()


def test_bad_lines_cost_nobody_else(stack: Stack, tmp_path: Path) -> None:
    stack.fake.behave(fail_inputs_containing="poison")
    try:
        texts = [f"line {number}" for number in range(40)]
        texts[7] = "a poisoned line"
        raw = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)
        (tmp_path / "in.jsonl").write_bytes(raw + b'\n{\n{"text": "\xff"}\n{"text": 1}\n{"text": "last"}\n')
        out = tmp_path / "out.jsonl"
        done = subprocess.run(
            command(stack, tmp_path / "in.jsonl", "-o", out), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        ids = [json.loads(line)["id"] for line in out.read_text().splitlines()]
        assert ids == [str(number) for number in [*range(1, 8), *range(9, 41), 45]]
        errors = [json.loads(line) for line in (tmp_path / "out.jsonl.errors.jsonl").read_text().splitlines()]
        assert [error["line"] for error in errors] == [8, 41, 42, 43, 44]
        assert [error["code"] for error in errors[1:]] == [
            "empty_line",
            "invalid_json",
            "invalid_utf8",
            "wrong_type",
        ]
    finally:
        stack.fake.reset()
