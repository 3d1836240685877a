"""The outermost layer of K-9's own: an id for every request, and one place where errors become answers."""

from __future__ import annotations

import logging
import re
import secrets
from traceback import extract_tb

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from k9_api.errors import error_response, from_status
from k9_api.presence import CallerGone
from k9_api.surfaces import surface_of
from k9_broker.errors import BadRequest, K9Error

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Edge:
    """Gives each answer an `x-request-id` (the caller's own, if it sent one) and turns errors into answers.

    What nobody foresaw is logged by its class and place alone: its text might hold a prompt.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        surface = surface_of(scope)
        ids = [(name, request_id) for name in surface.request_id_headers]
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *ids]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except CallerGone:
            return
        except Exception as problem:
            error = foreseen(problem)
            if error is None:
                error = K9Error()
                log.error("request %s failed: %s", request_id.decode(), _place(problem))
            if not started:
                response = error_response(error, surface, request_id.decode())
                if isinstance(problem, HTTPException):
                    response.headers.update(problem.headers or {})
                await response(scope, receive, sending)
            # A half-written answer cannot be mended; the server closes the connection.


def foreseen(problem: Exception) -> K9Error | None:
    """The error of K-9's tree that `problem` is or stands for."""
    match problem:
        case K9Error():
            return problem
        case HTTPException():
            return from_status(problem.status_code)
        case RequestValidationError():
            names = {str(item["loc"][-1]) for item in problem.errors() if item.get("loc")}
            name = min(names, default="request")
            return BadRequest(f"`{name}` is not valid. See /docs for the API.", param=name)
        case _:
            return None


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value)
    return b"req_" + secrets.token_hex(12).encode()


def _place(problem: Exception) -> str:
    frames = extract_tb(problem.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return type(problem).__name__ + where
