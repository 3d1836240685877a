"""`k9 chat`: one question, its answer as it is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from k9_api.cli.where import Url, answer, client
from k9_broker.errors import StreamTruncated, from_record


def chat(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    model: Annotated[str, typer.Option(help="The model, an alias, or `auto`.")] = "auto",
    url: Url = None,
) -> None:
    """Ask a model one question and print its answer while it is written."""
    with client(url) as api:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}
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
