"""`k9 chat`: one question, its answer as it is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from k9_api.cli.where import NoAnswer, Url, answer, client
from k9_broker.errors import ModelNotFound, StreamTruncated, from_record


def chat(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    model: Annotated[str | None, typer.Option(help="The model; default: the first that can chat.")] = None,
    url: Url = None,
) -> None:
    """Ask a model one question and print its answer while it is written."""
    with client(url) as api:
        chosen = model or _first(answer(api.get("/v1/models"))["data"])
        body = {"model": chosen, "messages": [{"role": "user", "content": prompt}], "stream": True}
        with api.stream("POST", "/v1/chat/completions", json=body) as reply:
            if not reply.is_success:
                reply.read()
                answer(reply)
            for piece in pieces(reply.iter_lines()):
                typer.echo(piece, nl=False)
    typer.echo()


def pieces(lines: Iterable[str]) -> Iterator[str]:
    """The text in the frames of a stream. Raises the error in an error frame, and `StreamTruncated`."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        chunk: dict[str, Any] = json.loads(data)
        if error := chunk.get("error"):
            raise from_record(error)
        for choice in chunk.get("choices") or ():
            if text := choice.get("delta", {}).get("content"):
                yield text
    raise StreamTruncated


def _first(models: Iterable[dict[str, Any]]) -> str:
    for model in models:
        if "k9" not in model:
            raise NoAnswer("What answers there is not K-9: its models do not say where they run.")
        if "chat" in model["k9"]["operations"]:
            return str(model["id"])
    raise ModelNotFound("No live worker serves a chat model. `k9 queues` shows what is served.")
