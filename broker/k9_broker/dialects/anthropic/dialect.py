"""The dialect `anthropic`: the Messages API, in both of its living versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from k9_broker.dialects.anthropic import errors
from k9_broker.dialects.anthropic.answer import result
from k9_broker.dialects.anthropic.events import whole_message
from k9_broker.dialects.anthropic.request import DEFAULT_VERSION, request_body
from k9_broker.dialects.anthropic.stream import AnthropicStream
from k9_broker.dialects.base import (
    JSON_HEADERS,
    Dialect,
    Options,
    StreamParser,
    WireRequest,
    json_object,
    read_models,
)
from k9_broker.errors import K9Error
from k9_broker.limits import Limit, RateLimits
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Result


class Anthropic(Dialect):
    """Stateless. Backend options:

    - `version`: the API version, "2023-06-01" unless set. "2026-10-21" has no sampling parameters:
      there `temperature` and its kin are refused by name, save at their defaults;
    - `beta`: names for the `anthropic-beta` header, a list;
    - `max_tokens`: the limit of answers whose callers name none, 4096 unless set;
    - `budget_models`: models that are told how much to think in tokens, not by effort. Those that
      refuse effort are added by themselves;
    - anything else is a default for requests, such as `inference_geo`.

    A whole answer that may be long is streamed by the service and folded here, as Anthropic wants it.
    """

    operations = frozenset({Operation.CHAT})

    def headers(self, key: str | None) -> dict[str, str]:
        """A key goes as `x-api-key`, which both versions accept; an OAuth token as a bearer's.

        A key that begins with `Bearer ` is sent as it is, for gateways that want that.
        """
        if not key:
            return {}
        if key.startswith("Bearer "):
            return {"authorization": key}
        if key.startswith("sk-ant-oat"):
            return {"authorization": f"Bearer {key}"}
        return {"x-api-key": key}

    def build(self, request: InferenceRequest, options: Options) -> WireRequest:
        body = to_json(request_body(request, options))
        return WireRequest("POST", "/v1/messages", body, {**JSON_HEADERS, **_version(options)})

    def parse(self, request: InferenceRequest, body: bytes) -> Result:
        if body.startswith((b"event:", b"data:", b":")):  # long answers come as a stream, see `build`
            return result(request, whole_message(body))
        answer = json_object(body)
        if error := errors.in_band(answer):
            raise error
        return result(request, answer)

    def parser(self, request: InferenceRequest) -> StreamParser:
        return AnthropicStream(request)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> K9Error:
        return errors.of_response(status, headers, body)

    def relax(self, request: InferenceRequest, error: K9Error, options: Options) -> Options | None:
        """Turn `reasoning_effort` into a budget of tokens for a model that refused it as effort."""
        known = tuple(options.get("budget_models", ()))
        asked = request.body.get("reasoning_effort") and not request.body.get("thinking")
        if not asked or request.model in known or not errors.wants_budgets(error):
            return None
        return {**options, "budget_models": (*known, request.model)}

    def models_request(self, options: Options) -> WireRequest:
        """One page of a thousand models holds them all."""
        return WireRequest("GET", "/v1/models?limit=1000", headers=_version(options))

    def parse_models(self, body: bytes) -> Mapping[str, ModelCard]:
        listed = read_models(body).items()
        return {name: _card(item) for name, item in listed if item.get("lifecycle") != "retired"}

    def limits(self, headers: Mapping[str, str], now: float) -> RateLimits | None:
        lower = {name.lower(): value for name, value in headers.items()}
        requests = _limit(lower, "requests", now)
        tokens = _limit(lower, "tokens", now)
        if tokens == Limit():
            tokens = _limit(lower, "input-tokens", now)
        found = RateLimits(requests, tokens)
        return None if found == RateLimits() else found


def _version(options: Options) -> dict[str, str]:
    headers = {"anthropic-version": str(options.get("version", DEFAULT_VERSION))}
    if beta := options.get("beta"):
        headers["anthropic-beta"] = beta if isinstance(beta, str) else ",".join(beta)
    return headers


def _card(model: Mapping[str, Any]) -> ModelCard:
    return ModelCard(
        context_window=_positive(model.get("max_input_tokens")),
        max_output=_positive(model.get("max_tokens")),
        vision=_supported(model, "image_input"),
        json_schema=_supported(model, "structured_outputs"),
    )


def _positive(told: Any) -> int | None:
    return told if isinstance(told, int) and told > 0 else None


def _supported(model: Mapping[str, Any], capability: str) -> bool | None:
    found = model.get("capabilities")
    found = found.get(capability) if isinstance(found, Mapping) else None
    told = found.get("supported") if isinstance(found, Mapping) else None
    return told if isinstance(told, bool) else None


def _limit(headers: Mapping[str, str], of: str, now: float) -> Limit:
    """One limit; a limit that is not positive is none, and then what remains of it says nothing."""
    name = f"anthropic-ratelimit-{of}"
    per_minute = _whole(headers.get(f"{name}-limit"))
    if not per_minute:
        return Limit()
    reset = _seconds_until(headers.get(f"{name}-reset"), now)
    return Limit(per_minute, _whole(headers.get(f"{name}-remaining")), reset)


def _whole(told: str | None) -> int | None:
    """A count; `None` for what is no count."""
    return int(told) if told and re.fullmatch(r"[0-9]{1,18}", told) else None


def _seconds_until(told: str | None, now: float) -> float | None:
    try:
        return max(0.0, datetime.fromisoformat(told or "").timestamp() - now)
    except (ValueError, OverflowError):
        return None
