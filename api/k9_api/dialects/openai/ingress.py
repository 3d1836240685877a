"""Bytes of an OpenAI request, and K-9's own controls beside it, turned into an `InferenceRequest`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json

from k9_api.dialects.openai import shapes
from k9_broker.errors import BadRequest, UnsupportedParameter
from k9_broker.requests import InferenceRequest, Operation, Priority

_EMPTY = "must not be empty"
_OPERATIONS = {endpoint: operation for operation, endpoint in shapes.ENDPOINTS.items()}


def parse(
    operation: Operation, raw: bytes, headers: Iterable[tuple[bytes, bytes]], tenant: str
) -> InferenceRequest:
    """The request in the body `raw`; the `k9` object wins over the headers. Raises `BadRequest`."""
    controls = _header_controls(headers)
    return check(operation, decode(raw), tenant, **controls)


def parse_job(raw: bytes, headers: Iterable[tuple[bytes, bytes]], tenant: str) -> InferenceRequest:
    """The request in the body of `POST /v1/jobs`; its own fields win over its `k9` object and the headers."""
    job = _valid(shapes.JOB, decode(raw))
    operation = _OPERATIONS[job["endpoint"]]
    partial = job.get("partial") is True
    if partial and operation is not Operation.EMBEDDINGS:
        raise BadRequest("`partial` is for embeddings only.", param="partial")
    body = dict(job["body"])
    controls = body.get("k9")
    named = {name: job[name] for name in ("priority", "deadline") if job.get(name) is not None}
    if named and (controls is None or isinstance(controls, dict)):
        body["k9"] = {**(controls or {}), **named}
    return check(operation, body, tenant, partial=partial, inside="body", **_header_controls(headers))


def check(
    operation: Operation,
    body: dict[str, Any],
    tenant: str,
    *,
    priority: Priority = Priority.INTERACTIVE,
    deadline: float | None = None,
    partial: bool = False,
    inside: str = "",
) -> InferenceRequest:
    """`body` as a request; `inside` names where it was found, for error messages. Raises `BadRequest`."""
    _valid(shapes.BODIES[operation], body, inside)
    controls = body.pop("k9", None) or {}
    priority = Priority(controls.get("priority", priority))
    request = InferenceRequest(
        operation=operation,
        model=body["model"],
        body=body,
        tenant=tenant,
        priority=priority,
        deadline=controls.get("deadline", deadline),
        partial=partial,
    )
    if body.get("stream_options") is not None and not request.stream:
        raise BadRequest("`stream_options` is allowed only with `stream: true`.", param="stream_options")
    if operation is Operation.EMBEDDINGS and request.stream:
        raise UnsupportedParameter("Embeddings are not streamed. Remove `stream`.", param="stream")
    if operation is Operation.EMBEDDINGS and priority is Priority.INTERACTIVE:
        _few_enough(body["input"])
    return request


def decode(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises `BadRequest`, which tells where the JSON breaks, not what it says."""
    try:
        body = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        where = str(error).rpartition(" at ")[2]
        raise BadRequest(f"The body is not valid JSON ({where or 'it is empty'}).") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    return body


def _header_controls(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    controls: dict[str, Any] = {}
    for name, value in headers:
        if not name.startswith(b"x-k9-"):
            continue
        text = value.decode("latin-1").strip()
        if name == b"x-k9-priority":
            controls["priority"] = _header(shapes.PRIORITY, "X-K9-Priority", text)
        elif name == b"x-k9-deadline":
            controls["deadline"] = _header(shapes.DEADLINE, "X-K9-Deadline", text)
        else:
            # A control such as a privacy class must never be dropped in silence.
            shown = name.decode("latin-1")
            raise UnsupportedParameter(f"The header {shown} is not understood here. Remove it.", param=shown)
    return controls


def _header(shape: TypeAdapter[Any], name: str, text: str) -> Any:
    try:
        return shape.validate_strings(text)
    except ValidationError as error:
        raise BadRequest(f"The header {name} {_problem(error.errors()[0])}.", param=name) from None


def _few_enough(inputs: Any) -> None:
    several = isinstance(inputs, list) and not isinstance(inputs[0], int)
    if several and len(inputs) > shapes.MAX_INPUTS:
        raise BadRequest(
            f"`input` has more than {shapes.MAX_INPUTS} items. Send fewer, or a job with priority `batch`.",
            param="input",
        )


def _valid(shape: TypeAdapter[Any], data: dict[str, Any], inside: str = "") -> Any:
    try:
        return shape.validate_python(data)
    except ValidationError as error:
        raise _refusal(error, data, inside) from None


def _refusal(error: ValidationError, data: Mapping[str, Any], inside: str) -> BadRequest:
    """One clear sentence about the first bad field; its value is never repeated."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    field = problems[0]["loc"][0] if problems[0]["loc"] else ""
    located = [(_path(item, data), item) for item in problems if not item["loc"] or item["loc"][0] == field]
    # A union reports every alternative that failed; the one that got furthest is what was meant.
    deepest = max((path for path, _ in located), key=_reach)
    first, *others = dict.fromkeys(_problem(item) for path, item in located if path == deepest)
    if _EMPTY in (first, *others):  # it is of a right kind, so the other kinds do not matter
        first, others = _EMPTY, []
    text = " or ".join([first, *(other.removeprefix("should be ") for other in others)])
    name = _dotted((inside, *deepest) if inside else deepest)
    if all(item["type"] == "extra_forbidden" for path, item in located if path == deepest):
        return UnsupportedParameter(f"`{name}` is not understood here. Remove it.", param=name)
    return BadRequest(f"`{name}` {text}.", param=name)


def _path(problem: ErrorDetails, data: Any) -> tuple[str | int, ...]:
    """The problem's location without the names of union members, which are not in the data."""
    path: list[str | int] = []
    for part in problem["loc"]:
        if _has(data, part):
            data = data[part]
        elif problem["type"] != "missing" or part != problem["loc"][-1]:
            continue
        path.append(part)
    return tuple(path)


def _reach(path: tuple[str | int, ...]) -> tuple[int, list[int]]:
    """How far a validator got: the deeper, and in lists the later, the further."""
    return len(path), [part for part in path if isinstance(part, int)]


def _has(data: Any, part: str | int) -> bool:
    if isinstance(part, int):
        return isinstance(data, list) and part < len(data)
    return isinstance(data, dict) and part in data


def _dotted(path: Iterable[str | int]) -> str:
    """`messages[0].content`, as OpenAI writes it."""
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part[:64]}" if shown else part[:64]
    return shown or "body"


def _problem(problem: ErrorDetails) -> str:
    match problem["type"]:
        case "missing":
            return "is required"
        case "too_short" | "string_too_short":
            return _EMPTY
        case "no_content":
            return problem["msg"]
        case _:
            text = problem["msg"]
            return (
                "should" + text.removeprefix("Input should")
                if text.startswith("Input should")
                else "is not valid"
            )
