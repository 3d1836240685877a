"""A request before its body is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import parse_qsl


class Head(NamedTuple):
    """A request without its body; `path` is unquoted, header names are lower case."""

    method: str
    path: str
    query: bytes = b""
    headers: Iterable[tuple[bytes, bytes]] = ()

    def header(self, wanted: bytes) -> str | None:
        for name, value in self.headers:
            if name == wanted:
                return value.decode("latin-1")
        return None

    @property
    def parameters(self) -> dict[str, str]:
        return dict(parse_qsl(self.query.decode("latin-1")))
