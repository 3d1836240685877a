"""Bytes of an OpenAI request, and K-9's own controls beside it, turned into an `InferenceRequest`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from k9_api.dialects.controls import Headers, controlled, header_controls
from k9_api.dialects.decoding import decode, valid
from k9_api.dialects.openai import shapes
from k9_broker.errors import BadRequest, UnsupportedParameter
from k9_broker.policy import AUTO
from k9_broker.requests import InferenceRequest, Operation, Priority

_ASKED = {Operation.CHAT: "messages", Operation.COMPLETIONS: "prompt", Operation.EMBEDDINGS: "input"}
"""The field that every body of an operation has."""
_OPERATIONS = {endpoint: operation for operation, endpoint in shapes.ENDPOINTS.items()}


def parse(operation: Operation, raw: bytes, headers: Headers, tenant: str) -> InferenceRequest:
    """The request in the body `raw`; the `k9` object wins over the headers. Raises `BadRequest`."""
    return check(operation, decode(raw), tenant, controls=header_controls(headers))


def parse_job(raw: bytes, headers: Headers, tenant: str) -> InferenceRequest:
    """The request in the body of `POST /v1/jobs`; its own fields win over its `k9` object and the headers."""
    return _job(decode(raw), headers, tenant)


def parse_any(raw: bytes, headers: Headers, tenant: str) -> InferenceRequest:
    """The request in a body of any of these kinds, told apart by its fields; no model means `auto`."""
    body = decode(raw)
    if "endpoint" in body:
        if isinstance(body.get("body"), dict):
            body["body"].setdefault("model", AUTO)
        return _job(body, headers, tenant)
    for operation, field in _ASKED.items():
        if field in body:
            body.setdefault("model", AUTO)
            return check(operation, body, tenant, controls=header_controls(headers))
    raise BadRequest("The body needs `messages`, `prompt` or `input`, or a job's `endpoint` and `body`.")


def _job(data: dict[str, Any], headers: Headers, tenant: str) -> InferenceRequest:
    job = valid(shapes.JOB, data)
    operation = _OPERATIONS[job["endpoint"]]
    partial = job.get("partial") is True
    if partial and operation is not Operation.EMBEDDINGS:
        raise BadRequest("`partial` is for embeddings only.", param="partial")
    body = dict(job["body"])
    controls = body.get("k9")
    named = {name: job[name] for name in ("priority", "deadline", "queue") if job.get(name) is not None}
    if named and (controls is None or isinstance(controls, dict)):
        body["k9"] = {**(controls or {}), **named}
    return check(
        operation, body, tenant, partial=partial, inside=("body",), controls=header_controls(headers)
    )


def check(
    operation: Operation,
    body: dict[str, Any],
    tenant: str,
    *,
    controls: Mapping[str, Any] = MappingProxyType({}),
    partial: bool = False,
    inside: tuple[str, ...] = (),
) -> InferenceRequest:
    """`body` as a request; its `k9` object wins over `controls`, but privacy is the stricter of the two.

    `inside` names where the body was found, for error messages. Raises `BadRequest`.
    """
    valid(shapes.BODIES[operation], body, inside)
    said = body.pop("k9", None) or {}
    request = controlled(operation, body, tenant, said=said, controls=controls, partial=partial)
    if body.get("stream_options") is not None and not request.stream:
        raise BadRequest("`stream_options` is allowed only with `stream: true`.", param="stream_options")
    if operation is Operation.EMBEDDINGS and request.stream:
        raise UnsupportedParameter("Embeddings are not streamed. Remove `stream`.", param="stream")
    if operation is Operation.EMBEDDINGS and request.priority is Priority.INTERACTIVE:
        _few_enough(body["input"])
    return request


def _few_enough(inputs: Any) -> None:
    several = isinstance(inputs, list) and not isinstance(inputs[0], int)
    if several and len(inputs) > shapes.MAX_INPUTS:
        raise BadRequest(
            f"`input` has more than {shapes.MAX_INPUTS} items. Send fewer, or a job with priority `batch`.",
            param="input",
        )
