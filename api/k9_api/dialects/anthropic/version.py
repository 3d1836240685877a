"""The two versions of Anthropic's API that are live, and what the newer one has removed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from k9_api.dialects.controls import Headers
from k9_api.dialects.decoding import Path, dotted
from k9_broker.errors import BadRequest

OLDEST, NEWEST = "2023-06-01", "2026-10-21"
HEADER = "anthropic-version"

_SAMPLING = ("temperature", "top_p", "top_k")


def version_of(headers: Headers) -> str:
    """The version a caller names; the oldest when it names none. Raises `BadRequest` for what is no date."""
    for name, value in headers:
        if name == HEADER.encode():
            version = value.decode("latin-1").strip()
            if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", version):
                raise BadRequest(
                    f"The header {HEADER} must be a date such as {OLDEST} or {NEWEST}.", param=HEADER
                )
            return version
    return OLDEST


def keep_to(version: str, body: Mapping[str, Any]) -> None:
    """Raise `BadRequest` for what `version` no longer accepts, also at its default value.

    From 2026-10-21 on: sampling parameters, documents in an assistant's turn, and citations on a
    text of a user's.
    """
    if version < NEWEST:
        return
    for name in _SAMPLING:
        if body.get(name) is not None:
            raise _removed(name, "Remove it")
    for path, role, block in _blocks(body):
        if role == "assistant" and block["type"] == "document":
            raise _removed(dotted(path), "Put the document into a message of the user")
        if role == "user" and block["type"] == "text" and block.get("citations"):
            raise _removed(dotted((*path, "citations")), "Remove them")


def _removed(name: str, instead: str) -> BadRequest:
    return BadRequest(
        f"`{name}` is not accepted with {HEADER} {NEWEST} or later. {instead}, or send {HEADER}: {OLDEST}.",
        param=name,
    )


def _blocks(body: Mapping[str, Any]) -> Iterator[tuple[Path, str, Mapping[str, Any]]]:
    for at, turn in enumerate(body["messages"]):
        if isinstance(turn["content"], list):
            for index, block in enumerate(turn["content"]):
                yield ("messages", at, "content", index), turn["role"], block
