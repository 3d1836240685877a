"""Embeddings as SDKs ask for them, and files of many of them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from embed_runs import PROGRAM, read_jsonl, until
from k9_broker.fake.vectors import embed
from k9_broker.results import pack, unpack
from menagerie import CLIENT_KEY, EMBEDDING, Menagerie, only

DIMENSIONS = 64
TOKEN_IDS: list[Any] = [[1, 2], [[1, 2], [3]]]


def vector(text: str) -> list[float]:
    """The float32 values that the fakes have for a text."""
    return list(unpack(embed(text, DIMENSIONS)))


@pytest.fixture(scope="module")
def sdk(every_wire: Menagerie) -> Any:
    with openai.OpenAI(base_url=f"{every_wire.url}/v1", api_key=CLIENT_KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("name", EMBEDDING)
def test_trap_03_embeddings_are_asked_for_as_base64(k9: Menagerie, sdk: openai.OpenAI, name: str) -> None:
    """The SDK adds `encoding_format: base64` unless it is told otherwise; some servers know floats only."""
    for inputs in ("a", ["a"], ["a", "b with ü", "a"]):
        texts = [inputs] if isinstance(inputs, str) else inputs
        default = sdk.embeddings.create(model=only(name), input=inputs)
        floats = sdk.embeddings.create(model=only(name), input=inputs, encoding_format="float")
        for answer in (default, floats):
            assert [row.index for row in answer.data] == list(range(len(texts)))
            assert [row.embedding for row in answer.data] == [vector(text) for text in texts]
    raw = k9.http.post(
        "/v1/embeddings", json={"model": only(name), "input": "a", "encoding_format": "base64"}
    ).json()
    assert base64.b64decode(raw["data"][0]["embedding"]) == embed("a", DIMENSIONS)


@pytest.mark.parametrize("inputs", TOKEN_IDS)
@pytest.mark.parametrize("name", [name for name in EMBEDDING if name != "ollama"])
def test_trap_03_embeddings_of_token_ids(sdk: openai.OpenAI, name: str, inputs: Any) -> None:
    answer = sdk.embeddings.create(model=only(name), input=inputs)
    assert len(answer.data) == (2 if isinstance(inputs[0], list) else 1)
    assert all(len(row.embedding) == DIMENSIONS for row in answer.data)


@pytest.mark.parametrize("inputs", TOKEN_IDS)
def test_trap_03_embeddings_of_token_ids_that_ollama_cannot_take(
    k9: Menagerie, sdk: openai.OpenAI, inputs: Any
) -> None:
    before = k9.inferences("ollama")
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.embeddings.create(model=only("ollama"), input=inputs)
    assert refused.value.param == "input"
    assert k9.inferences("ollama") == before


@pytest.mark.parametrize("name", ["anthropic", "tgi"])
def test_trap_03_embeddings_where_there_are_none(k9: Menagerie, sdk: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        sdk.embeddings.create(model=only(name), input="a")
    assert 400 <= refused.value.status_code < 500


def test_trap_03_embeddings_beyond_what_a_server_takes_at_once(k9: Menagerie, sdk: openai.OpenAI) -> None:
    """TEI takes 32 inputs a request, callers send up to 2048."""
    texts = [f"text {number}" for number in range(100)]
    answer = sdk.embeddings.create(model=only("tei"), input=texts)
    assert [row.embedding for row in answer.data] == [vector(text) for text in texts]


# -- batches ---------------------------------------------------------------------------------------


def _file(folder: Path, count: int, broken: dict[int, str]) -> Path:
    good = (json.dumps({"id": f"n{number}", "text": f"text {number}"}) for number in range(1, count + 1))
    lines = [broken.get(number, line) for number, line in enumerate(good, 1)]
    path = folder / "in.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def packed(line: dict[str, Any]) -> bytes:
    """The float32 values of a line of output."""
    return pack(line["embedding"])


def _command(k9: Menagerie, file: Path, *options: str, eager: bool = False) -> list[str]:
    program = f"import k9_api.batch.run as run; run.SECONDS = 0.05; {PROGRAM}" if eager else PROGRAM
    words = ["embed", str(file), "-o", str(file.with_name("out.jsonl")), "--url", k9.url, "--chunk", "10"]
    return [sys.executable, "-c", program, *words, "--model", only("compatible"), *options]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "K9_API_KEY": CLIENT_KEY}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def test_trap_22_batch_with_bad_lines_keeps_order_and_tells_each_error(
    k9: Menagerie, breaks: Any, tmp_path: Path
) -> None:
    """A file of lines as K-9 takes it today: `k9 embed`, through the queue.

    What waits for `/v1/batches` and `/v1/messages/batches`: uploads, duplicate `custom_id`s, an unknown
    model on one line, a failed validation without files, failures in their two forms (a status of 400 and
    above, or no response and an `error`), cancelling half-way, expiry, Azure's `/chat/completions` lines,
    and a `results_url` that points at K-9 so that no SDK sends its key elsewhere.
    """
    breaks("compatible", fail_inputs_containing="poison")
    poison = json.dumps({"id": "n37", "text": "poison"})
    file = _file(tmp_path, 60, {12: "{not json", 25: '{"id": "n25"}', 37: poison})
    done = _run(_command(k9, file))
    assert done.returncode == 0, done.stderr
    assert "57 items, 3 errors" in done.stderr
    made = read_jsonl(tmp_path / "out.jsonl")
    good = [number for number in range(1, 61) if number not in (12, 25, 37)]
    assert [line["id"] for line in made] == [f"n{number}" for number in good]
    assert [packed(line) for line in made] == [embed(f"text {number}", DIMENSIONS) for number in good]
    failed = read_jsonl(tmp_path / "out.jsonl.errors.jsonl")
    assert [line["line"] for line in failed] == [12, 25, 37]
    assert failed[2]["id"] == "n37"
    assert all(line["code"] for line in failed)
    assert "poison" not in (tmp_path / "out.jsonl.errors.jsonl").read_text()


def test_trap_22_batch_that_was_killed_goes_on(k9: Menagerie, breaks: Any, tmp_path: Path) -> None:
    breaks("compatible", per_input_ms=5)
    file = _file(tmp_path, 300, {})
    env = {**os.environ, "K9_API_KEY": CLIENT_KEY}
    command = _command(k9, file, "--window", "2", eager=True)
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    progress = tmp_path / "out.jsonl.progress"
    until(lambda: progress.exists() and json.loads(progress.read_text())["next"] >= 50)
    process.kill()
    process.wait()
    assert not (tmp_path / "out.jsonl").exists()
    breaks("compatible", per_input_ms=0)
    done = _run(_command(k9, file, "--resume"))
    assert done.returncode == 0, done.stderr
    made = read_jsonl(tmp_path / "out.jsonl")
    assert [line["id"] for line in made] == [f"n{number}" for number in range(1, 301)]
    assert packed(made[250]) == embed("text 251", DIMENSIONS)
    assert k9.fakes["compatible"].stats()["inputs"] == 300  # nothing was paid for twice
