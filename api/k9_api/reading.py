"""Reading a request body, never more of it than is allowed."""

from __future__ import annotations

from starlette.requests import Request

from k9_api.presence import CallerGone
from k9_broker.errors import BadRequest, BodyTooLarge, NotJson


async def read_body(request: Request, limit: int) -> bytes:
    """The whole JSON body. Raises `NotJson`, and `BodyTooLarge` beyond `limit` bytes."""
    # Any web page may have a browser send the other types to this machine, unasked and unseen.
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise NotJson
    declared = request.headers.get("content-length")
    if declared is not None:
        if not declared.isdigit():
            raise BadRequest("The header Content-Length is not a number.", param="Content-Length")
        if int(declared) > limit:
            raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than {limit} bytes. Send fewer or shorter inputs.")
