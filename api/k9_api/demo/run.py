"""The demo: start K-9, embed the standard library's docstrings through the queue, ask three questions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
from rich.console import Console

from k9_api.demo.docstrings import write_jsonl
from k9_api.demo.neighbours import Texts
from k9_api.demo.upping import DemoFailed, k9_up
from k9_broker.minilm.fetch import fetch
from k9_broker.minilm.model import MiniLM
from k9_broker.settings import Settings

QUESTIONS = (
    "how do I run a function in another process?",
    "read a file that was compressed to save space",
    "which day of the week was a given date?",
)


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

    environment = {**os.environ, "K9_EMBED_MODEL": str(settings.model_folder.absolute())}
    with k9_up(settings.state_dir / "demo", ("--backend", "embedded"), environment, console) as url:
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
