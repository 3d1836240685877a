"""Bytes of an OpenAI request, and K-9's own controls beside it, turned into an `InferenceRequest`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json

from k9_api.dialects.openai import shapes
from k9_broker.errors import BadRequest, UnsupportedParameter
from k9_broker.policy import AUTO
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority, Privacy, TaskType

_EMPTY = "must not be empty"
_ASKED = {Operation.CHAT: "messages", Operation.COMPLETIONS: "prompt", Operation.EMBEDDINGS: "input"}
"""The field that every body of an operation has."""
_DEEP = 100
"""Fewer opening brackets are no deep nest: what reads JSON follows two hundred levels."""
_OPERATIONS = {endpoint: operation for operation, endpoint in shapes.ENDPOINTS.items()}


def parse(
    operation: Operation, raw: bytes, headers: Iterable[tuple[bytes, bytes]], tenant: str
) -> InferenceRequest:
    """The request in the body `raw`; the `k9` object wins over the headers. Raises `BadRequest`."""
    return check(operation, decode(raw), tenant, controls=_header_controls(headers))


def parse_job(raw: bytes, headers: Iterable[tuple[bytes, bytes]], tenant: str) -> InferenceRequest:
    """The request in the body of `POST /v1/jobs`; its own fields win over its `k9` object and the headers."""
    return _job(decode(raw), headers, tenant)


def parse_any(raw: bytes, headers: Iterable[tuple[bytes, bytes]], tenant: str) -> InferenceRequest:
    """The request in a body of any of these kinds, told apart by its fields; no model means `auto`."""
    body = decode(raw)
    if "endpoint" in body:
        if isinstance(body.get("body"), dict):
            body["body"].setdefault("model", AUTO)
        return _job(body, headers, tenant)
    for operation, field in _ASKED.items():
        if field in body:
            body.setdefault("model", AUTO)
            return check(operation, body, tenant, controls=_header_controls(headers))
    raise BadRequest("The body needs `messages`, `prompt` or `input`, or a job's `endpoint` and `body`.")


def _job(data: dict[str, Any], headers: Iterable[tuple[bytes, bytes]], tenant: str) -> InferenceRequest:
    job = _valid(shapes.JOB, data)
    operation = _OPERATIONS[job["endpoint"]]
    partial = job.get("partial") is True
    if partial and operation is not Operation.EMBEDDINGS:
        raise BadRequest("`partial` is for embeddings only.", param="partial")
    body = dict(job["body"])
    controls = body.get("k9")
    named = {name: job[name] for name in ("priority", "deadline") if job.get(name) is not None}
    if named and (controls is None or isinstance(controls, dict)):
        body["k9"] = {**(controls or {}), **named}
    return check(operation, body, tenant, partial=partial, inside="body", controls=_header_controls(headers))


def check(
    operation: Operation,
    body: dict[str, Any],
    tenant: str,
    *,
    controls: Mapping[str, Any] = MappingProxyType({}),
    partial: bool = False,
    inside: str = "",
) -> InferenceRequest:
    """`body` as a request; its `k9` object wins over `controls`, but privacy is the stricter of the two.

    `inside` names where the body was found, for error messages. Raises `BadRequest`.
    """
    _valid(shapes.BODIES[operation], body, inside)
    said = body.pop("k9", None) or {}
    wishes = {**controls, **said}
    if Privacy.LOCAL_ONLY in (controls.get("privacy"), said.get("privacy")):
        wishes["privacy"] = Privacy.LOCAL_ONLY
    priority = Priority(wishes.get("priority", Priority.INTERACTIVE))
    task_type, kind = wishes.get("task_type"), wishes.get("kind")
    request = InferenceRequest(
        operation=operation,
        model=body["model"],
        body=body,
        tenant=tenant,
        priority=priority,
        deadline=wishes.get("deadline"),
        partial=partial,
        task_type=None if task_type is None else TaskType(task_type),
        strategy=wishes.get("strategy"),
        privacy=Privacy(wishes.get("privacy", Privacy.ANY)),
        kind=None if kind is None else Kind(kind),
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
        if raw.count(b"{") + raw.count(b"[") >= _DEEP:
            from_json(b"[%b]" % raw)  # in the job's record it lies one level deeper
    except ValueError as error:
        what, _, where = str(error).rpartition(" at ")
        problem = "is nested too deeply" if "recursion" in what else "is not valid JSON"
        raise BadRequest(f"The body {problem} ({where or 'it is empty'}).") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    return body


def _header_controls(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    controls: dict[str, Any] = {}
    for name, value in headers:
        if not name.startswith(b"x-k9-"):
            continue
        shown = name.decode("latin-1").title()
        control = shown.removeprefix("X-K9-").lower().replace("-", "_")
        if control not in shapes.CONTROLS:
            # A control such as a privacy class must never be dropped in silence.
            raise UnsupportedParameter(f"The header {shown} is not understood here. Remove it.", param=shown)
        said = _header(shapes.CONTROLS[control], shown, value.decode("latin-1").strip())
        before = controls.setdefault(control, said)
        if before == said:
            continue
        if control != "privacy":
            raise BadRequest(f"The header {shown} is given twice, with different values.", param=shown)
        controls[control] = Privacy.LOCAL_ONLY  # a proxy may add its own to the caller's
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
            subject, should, what = problem["msg"].partition(" should ")
            return f"should {what}" if should and subject in ("Input", "String") else "is not valid"
