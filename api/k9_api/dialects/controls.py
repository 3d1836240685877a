"""K-9's own wishes beside a request: `X-K9-*` headers and, equally, the `k9` object of a body."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12

from k9_api.dialects.decoding import problem_of
from k9_api.dialects.fields import CLOSED, Seconds
from k9_broker.errors import BadRequest, UnsupportedParameter
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority, Privacy, TaskType

Headers = Iterable[tuple[bytes, bytes]]
"""As an ASGI scope has them: names in lower case."""


class Controls(TypedDict, total=False):
    """The `k9` object of a body. Closed: a control that is not understood must not be dropped in silence."""

    __pydantic_config__ = CLOSED  # type: ignore[misc]
    priority: Literal["interactive", "batch"]
    deadline: Seconds
    strategy: Annotated[str, Field(min_length=1, max_length=80)]
    task_type: Literal[
        "qa",
        "code_generation",
        "code_completion",
        "code_refactor_review",
        "reasoning",
        "creative_writing",
        "summarization",
        "extraction_classification",
        "translation",
        "chat",
    ]
    privacy: Literal["any", "local-only"]
    kind: Literal["local", "cloud"]
    queue: Literal["wait", "refuse"]


CONTROLS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(hint) for name, hint in get_type_hints(Controls, include_extras=True).items()
}
"""What stands in the `k9` object, one by one: each is a header too, `X-K9-Task-Type` for `task_type`."""


def header_controls(headers: Headers) -> dict[str, Any]:
    """The controls among `headers`. Raises `BadRequest` for one that is not understood or not valid."""
    controls: dict[str, Any] = {}
    for name, value in headers:
        if not name.startswith(b"x-k9-"):
            continue
        shown = name.decode("latin-1").title()
        control = shown.removeprefix("X-K9-").lower().replace("-", "_")
        if control not in CONTROLS:
            # A control such as a privacy class must never be dropped in silence.
            raise UnsupportedParameter(f"The header {shown} is not understood here. Remove it.", param=shown)
        said = _header(CONTROLS[control], shown, value.decode("latin-1").strip())
        before = controls.setdefault(control, said)
        if before == said:
            continue
        if control != "privacy":
            raise BadRequest(f"The header {shown} is given twice, with different values.", param=shown)
        controls[control] = Privacy.LOCAL_ONLY  # a proxy may add its own to the caller's
    return controls


def controlled(
    operation: Operation,
    body: dict[str, Any],
    tenant: str,
    *,
    said: Mapping[str, Any],
    controls: Mapping[str, Any],
    partial: bool = False,
) -> InferenceRequest:
    """`body`, which has been checked, as a request.

    What the body's `k9` object `said` wins over the headers' `controls`, but privacy is the stricter of
    the two.
    """
    wishes = {**controls, **said}
    if Privacy.LOCAL_ONLY in (controls.get("privacy"), said.get("privacy")):
        wishes["privacy"] = Privacy.LOCAL_ONLY
    task_type, kind = wishes.get("task_type"), wishes.get("kind")
    return InferenceRequest(
        operation=operation,
        model=body["model"],
        body=body,
        tenant=tenant,
        priority=Priority(wishes.get("priority", Priority.INTERACTIVE)),
        deadline=wishes.get("deadline"),
        partial=partial,
        task_type=None if task_type is None else TaskType(task_type),
        strategy=wishes.get("strategy"),
        privacy=Privacy(wishes.get("privacy", Privacy.ANY)),
        kind=None if kind is None else Kind(kind),
        patient=wishes.get("queue") == "wait",
    )


def _header(shape: TypeAdapter[Any], name: str, text: str) -> Any:
    try:
        return shape.validate_strings(text)
    except ValidationError as error:
        raise BadRequest(f"The header {name} {problem_of(error.errors()[0])}.", param=name) from None
