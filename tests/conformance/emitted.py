"""What K-9 writes for its own callers, for answers that came from any dialect, read as strictly as can be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from anthropic_answers import job
from conformance.cases import ASKS, MODEL
from k9_api.dialects.surface import Surface
from k9_broker.errors import K9Error
from k9_broker.requests import InferenceRequest
from k9_broker.results import Chunk, Result

Json = dict[str, Any]
HEAD = ("id", "object", "created", "model")


def whole(surface: Surface, ask: InferenceRequest, result: Result) -> Json:
    return dict(json.loads(surface.whole(ask, _job(ask), result)))


def written(surface: Surface, ask: InferenceRequest, chunks: Iterable[Chunk]) -> bytes:
    """A streamed answer as its caller gets it, byte for byte."""
    writer = surface.stream(ask, _job(ask))
    return b"".join([*(writer.write(chunk) or b"" for chunk in chunks), writer.close()])


def broken(surface: Surface, ask: InferenceRequest, chunks: Iterable[Chunk], error: K9Error) -> bytes:
    """The same of an answer that fails after these chunks."""
    writer = surface.stream(ask, _job(ask))
    return b"".join([*(writer.write(chunk) or b"" for chunk in chunks), surface.error_frame(error, "req_1")])


def _job(ask: InferenceRequest) -> Any:
    return replace(job(), operation=ask.operation, model=MODEL)


def wish(case: str, *, usage: bool) -> InferenceRequest:
    """What a caller asks who streams, and wants the usage too or not."""
    body = {
        **ASKS[case].body,
        "stream": True,
        **({"stream_options": {"include_usage": True}} if usage else {}),
    }
    return replace(ASKS[case], body=body)


def frames(raw: bytes) -> list[Json]:
    """OpenAI's frames: `data: `, LF, a blank line after each, `[DONE]` at the end."""
    assert raw.endswith(b"\n\n")
    *found, last = raw.decode().removesuffix("\n\n").split("\n\n")
    assert last == "data: [DONE]"
    assert all(one.startswith("data: ") and "\n" not in one and "\r" not in one for one in found)
    return [json.loads(one.removeprefix("data: ")) for one in found]


def check_frames(found: list[Json], *, usage: bool) -> None:
    """One head for all; usage in one last frame of its own or nowhere; one reason; the role first."""
    assert len({tuple(one[name] for name in HEAD) for one in found}) == 1
    assert not any("obfuscation" in one for one in found)
    if usage:
        *found, last = found
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] == sum(
            last["usage"][name] for name in ("prompt_tokens", "completion_tokens")
        )
        assert all(one["usage"] is None for one in found)
    else:
        assert not any("usage" in one for one in found)
    choices = [choice for one in found for choice in one["choices"]]
    assert len(choices) == len(found)
    assert all({"index", "logprobs", "finish_reason"} <= choice.keys() for choice in choices)
    assert [choice["finish_reason"] is not None for choice in choices].count(True) == 1
    assert not any("stop_reason" in choice and choice["stop_reason"] is None for choice in choices)


def error_body(surface: Surface, error: K9Error) -> Json:
    return dict(json.loads(surface.error(error, "req_1")))


def as_documented(frame: Mapping[str, Any]) -> Json:
    """A frame as OpenAI's document has it, which knows neither the `usage: null` of OpenAI's streams nor, for
    plain completions, the finish reason null of all their frames but one."""
    made = {name: value for name, value in frame.items() if name != "usage" or value is not None}
    if frame["object"] == "text_completion":
        reasons = ({"finish_reason": one["finish_reason"] or "stop"} for one in frame["choices"])
        made["choices"] = [{**one, **reason} for one, reason in zip(frame["choices"], reasons, strict=True)]
    return made
