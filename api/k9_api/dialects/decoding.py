"""JSON bodies, read and checked against a shape; what is wrong with one becomes a clear `BadRequest`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json

from k9_broker.errors import BadRequest, UnsupportedParameter

_EMPTY = "must not be empty"
_DEEP = 100
"""Fewer opening brackets are no deep nest: what reads JSON follows two hundred levels."""

Path = tuple[str | int, ...]


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


def valid(shape: TypeAdapter[Any], data: Any, inside: Path = ()) -> Any:
    """`data` in `shape`; `inside` is where it was found. Raises `BadRequest` naming the first bad field."""
    try:
        return shape.validate_python(data)
    except ValidationError as error:
        raise _refusal(error, data, inside) from None


def dotted(path: Iterable[str | int]) -> str:
    """`messages[0].content`, as OpenAI writes it."""
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part[:64]}" if shown else part[:64]
    return shown or "body"


def problem_of(problem: ErrorDetails) -> str:
    """What is wrong, as the end of a sentence whose subject is the field."""
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


def _refusal(error: ValidationError, data: Any, inside: Path) -> BadRequest:
    """One clear sentence about the first bad field; its value is never repeated."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    field = problems[0]["loc"][0] if problems[0]["loc"] else ""
    located = [(_path(item, data), item) for item in problems if not item["loc"] or item["loc"][0] == field]
    # A union reports every alternative that failed; the one that got furthest is what was meant.
    deepest = max((path for path, _ in located), key=_reach)
    first, *others = dict.fromkeys(problem_of(item) for path, item in located if path == deepest)
    if _EMPTY in (first, *others):  # it is of a right kind, so the other kinds do not matter
        first, others = _EMPTY, []
    text = " or ".join([first, *(other.removeprefix("should be ") for other in others)])
    name = dotted((*inside, *deepest))
    if all(item["type"] == "extra_forbidden" for path, item in located if path == deepest):
        return UnsupportedParameter(f"`{name}` is not understood here. Remove it.", param=name)
    return BadRequest(f"`{name}` {text}.", param=name)


def _path(problem: ErrorDetails, data: Any) -> Path:
    """The problem's location without the names of union members, which are not in the data."""
    path: list[str | int] = []
    for part in problem["loc"]:
        if _has(data, part):
            data = data[part]
        elif problem["type"] != "missing" or part != problem["loc"][-1]:
            continue
        path.append(part)
    return tuple(path)


def _reach(path: Path) -> tuple[int, list[int]]:
    """How far a validator got: the deeper, and in lists the later, the further."""
    return len(path), [part for part in path if isinstance(part, int)]


def _has(data: Any, part: str | int) -> bool:
    if isinstance(part, int):
        return isinstance(data, list) and part < len(data)
    return isinstance(data, dict) and part in data
