"""The demo: start K-9, embed the standard library's docstrings through the queue, ask three questions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.console import Console

from k9_api.demo.docstrings import write_jsonl
from k9_api.demo.neighbours import Texts
from k9_broker.errors import K9Error
from k9_broker.minilm.fetch import fetch
from k9_broker.minilm.model import MiniLM
from k9_broker.settings import Settings

QUESTIONS = (
    "how do I run a function in another process?",
    "read a file that was compressed to save space",
    "which day of the week was a given date?",
)
_START_SECONDS = 90


class DemoFailed(K9Error):
    """The demo could not be run to its end; the message above says why."""

    code = "demo_failed"


def run(settings: Settings, folder: Path, most: int | None, console: Console) -> None:
    """All of it. `folder` receives the texts and the vectors. Raises `DemoFailed`, or what a step raises."""
    folder.mkdir(parents=True, exist_ok=True)
    console.rule("the embedding model")
    fetch(settings.model_folder)
    console.print(f"{MiniLM.MODEL_NAME} in {settings.model_folder}")

    texts, vectors = folder / "docstrings.jsonl", folder / "docstrings.npy"
    console.rule("the texts")
    count = write_jsonl(texts, most)
    console.print(f"{count} docstrings of Python {sys.version.split()[0]}'s standard library in {texts}")

    with _k9_up(settings, console) as url:
        console.rule("k9 embed")
        _command("embed", str(texts), "-o", str(vectors), "--overwrite", "--url", url)
        console.rule("three questions")
        _answer(Texts(vectors, texts), url, console)
        console.rule("where every job ran, and the queues")
        _where(url, console)


def _command(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "k9_api.cli", *words])
    if done.returncode:
        raise DemoFailed(f"`k9 {words[0]}` ended with exit code {done.returncode}.")


@contextmanager
def _k9_up(settings: Settings, console: Console) -> Iterator[str]:
    """`k9 up` in the background, on free ports and a state folder of the demo's own."""
    console.rule("k9 up")
    state = settings.state_dir / "demo"
    environment = {
        **os.environ,
        "K9_STATE_DIR": str(state),
        "K9_EMBED_MODEL": str(settings.model_folder.absolute()),
    }
    words = [sys.executable, "-m", "k9_api.cli", "up", "--port", "0", "--backend", "embedded"]
    process = subprocess.Popen(words, env=environment, start_new_session=True)
    try:
        yield _wait_for_url(process, state / "up.json")
    finally:
        console.rule("shutting down")
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        console.print(f"k9 up ended with exit code {process.returncode}")


def _wait_for_url(process: subprocess.Popen[bytes], said: Path) -> str:
    import json

    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise DemoFailed(f"`k9 up` ended with exit code {process.returncode}.")
        try:
            return str(json.loads(said.read_text("utf-8"))["api"])
        except (OSError, ValueError):
            time.sleep(0.1)
    raise DemoFailed(f"`k9 up` was not ready within {_START_SECONDS} s; see the logs in {said.parent}/logs.")


def _answer(texts: Texts, url: str, console: Console) -> None:
    body = {"model": MiniLM.MODEL_NAME, "input": list(QUESTIONS), "encoding_format": "float"}
    reply = httpx.post(f"{url}/v1/embeddings", json=body, timeout=60).raise_for_status()
    for question, answer in zip(QUESTIONS, reply.json()["data"], strict=True):
        console.print(f"\n[bold]{question}[/bold]", highlight=False)
        for match in texts.nearest(answer["embedding"], 4):
            console.print(
                f"  {match.score:.2f}  {match.text}", overflow="ellipsis", no_wrap=True, markup=False
            )
    console.print()


def _where(url: str, console: Console) -> None:
    _command("queues", "--url", url)
    metrics = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    for line in metrics:
        if line.startswith("k9_jobs_total"):
            console.print(line, markup=False, highlight=False)
