"""TEI, TGI's sister for embeddings: texts to `/embed`, token ids to its OpenAI route.

`/embed` is asked since only it can be told not to cut long texts; how many tokens they had it tells in a
header.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from k9_broker.dialects.base import JSON_HEADERS, Options, WireRequest, json_value, read_usage, unreadable
from k9_broker.dialects.embeddings import inputs_of, ordered, vectors
from k9_broker.dialects.parameters import given, refuse_unknown, unsupported
from k9_broker.dialects.wire_errors import in_band
from k9_broker.errors import BadRequest
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Result

MAX_INPUTS = 32
"""Inputs of one call, unless the server was started with another `--max-client-batch-size`."""

_KNOWN = frozenset({"input", "encoding_format", "dimensions"})
_OWN_OPTIONS = ("normalize", "truncate", "truncation_direction", "prompt_name")


def embeddings_request(request: InferenceRequest, options: Options) -> WireRequest:
    """Raises `BadRequest`, naming the field."""
    asked = given(request.body)
    refuse_unknown(asked, _KNOWN, "TEI")
    inputs = inputs_of(request)
    if not inputs:
        raise BadRequest("There is nothing to embed: `input` is an empty list.", param="input")
    if any(one in ("", []) for one in inputs):
        raise BadRequest("An input is empty. Leave empty texts out.", param="input")
    dimensions = {"dimensions": asked["dimensions"]} if "dimensions" in asked else {}
    if all(isinstance(one, str) for one in inputs):
        own = {name: options[name] for name in _OWN_OPTIONS if options.get(name) is not None}
        body = {"inputs": inputs, "normalize": True, "truncate": False, **own, **dimensions}
        return WireRequest("POST", "/embed", to_json(body), JSON_HEADERS)
    if not all(isinstance(one, list) and all(isinstance(token, int) for token in one) for one in inputs):
        raise unsupported("TEI", "input", "inputs other than texts or lists of token ids")
    body = {"model": request.model, "input": inputs, "encoding_format": "base64", **dimensions}
    return WireRequest("POST", "/v1/embeddings", to_json(body), JSON_HEADERS)


def parse_embeddings(request: InferenceRequest, body: bytes) -> Result:
    """The bare list of `/embed`, or the object of the OpenAI route."""
    answer = json_value(body)
    if error := in_band(answer):
        raise error
    expected = len(inputs_of(request))
    if isinstance(answer, list):
        return Result(request.model, vectors=vectors(answer, expected))
    if not isinstance(answer, dict):
        raise unreadable("has no list of embeddings")
    rows = ordered(answer.get("data"))
    return Result(request.model, read_usage(answer.get("usage")), vectors=vectors(rows, expected))


def cards(info: Mapping[str, Any]) -> dict[str, ModelCard]:
    """The model of an `/info` answer under its names; none when it ranks or classifies."""
    kind = info.get("model_type")
    if kind != "embedding" and not (isinstance(kind, Mapping) and "embedding" in kind):
        return {}
    names = [info.get("served_model_name"), info.get("model_id")]
    card = ModelCard(
        operations=(Operation.EMBEDDINGS,),
        context_window=count(info.get("max_input_length")),
        tags=("embedding",),
    )
    return {name: card for name in names if isinstance(name, str) and name}


def count(told: Any) -> int | None:
    """A positive whole number, or `None` where a server wrote something else."""
    return told if isinstance(told, int) and not isinstance(told, bool) and told > 0 else None
