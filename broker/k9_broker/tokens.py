"""How many tokens a request will be, before any tokenizer has seen it.

Rules of thumb, taken from the common byte-pair vocabularies: English prose has 4.5 characters a
token, code and lists about 3.3, Chinese, Japanese and Korean 0.6 to 1.0 tokens a character, other
scripts about two characters a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from k9_broker.requests import InferenceRequest, Operation, TaskType

_IMAGE_TOKENS = 800
"""An image of about 1024 × 1024 pixels; providers charge 85 to 1,600."""
_MESSAGE_TOKENS = 4
"""What the chat template adds to each message."""
_ANSWERS = {
    TaskType.QA: 250,
    TaskType.CODE_GENERATION: 450,
    TaskType.CODE_COMPLETION: 60,
    TaskType.CODE_REFACTOR_REVIEW: 600,
    TaskType.REASONING: 500,
    TaskType.CREATIVE_WRITING: 700,
    TaskType.SUMMARIZATION: 180,
    TaskType.EXTRACTION_CLASSIFICATION: 60,
    TaskType.TRANSLATION: 200,
    TaskType.CHAT: 80,
    TaskType.EMBEDDINGS: 0,
}
"""Tokens of a usual answer; the median of a chat model's answers to prompts of the type."""


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Tokens of the prompt: `least` is what it cannot well be under, `likely` what to plan with."""

    least: int
    likely: int


def estimate_text(text: str) -> TokenEstimate:
    letters = len(text)
    # UTF-8 has two more bytes for a wide letter (Chinese, Japanese, Korean), one for other scripts.
    wide = 0 if text.isascii() else (len(text.encode("utf-8", "surrogatepass")) - letters) // 2
    plain = letters - wide
    return TokenEstimate(round(plain / 5.5 + wide * 0.45), round(plain / 4 + wide * 0.8))


def strings(value: Any) -> Iterator[str]:
    """Every text in a request's JSON, in its order, but for words of its format and embedded files."""
    left = [value]
    while left:  # no recursion: each text of a deep nest would be handed up through all of it
        part = left.pop()
        if isinstance(part, str):
            if not (part.startswith("data:") and _FILE.fullmatch(part)):
                yield part
        elif isinstance(part, Mapping):
            left += [one for name, one in part.items() if not _of_format(name, one)][::-1]
        elif isinstance(part, list | tuple) and not set(map(type, part)) <= _NUMBERS:
            left += reversed(part)


_FILE = re.compile(r"data:[^,\s]*;base64,[A-Za-z0-9+/=_-]*\s*")
"""A file inside JSON. Prose may begin with `data:` too, and is text."""
_NUMBERS = frozenset({int, float, bool, type(None)})
"""What long lists are made of that hold no text, such as token ids."""


def _of_format(name: str, value: Any) -> bool:
    """Whether a field holds a word of the format, not the caller's own text."""
    if name == "input_audio":
        return isinstance(value, Mapping) and set(value) <= {"data", "format"}
    return name in ("role", "type", "model") and isinstance(value, str)


def _images(messages: Any) -> int:
    return sum(
        part.get("type") in ("image_url", "image", "input_image")
        for message in messages or ()
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if isinstance(part, Mapping)
    )


def has_images(request: InferenceRequest) -> bool:
    return request.operation is Operation.CHAT and _images(request.body.get("messages")) > 0


def prompt_tokens(request: InferenceRequest) -> TokenEstimate:
    """The prompt's tokens; of an embeddings request the sum over its inputs."""
    body = request.body
    match request.operation:
        case Operation.CHAT:
            messages = body.get("messages") or []
            asked = [*messages, body.get("tools")] if body.get("tools") else messages
            extra = _MESSAGE_TOKENS * len(messages) + _IMAGE_TOKENS * _images(messages)
        case Operation.COMPLETIONS:
            asked, extra = [body.get("prompt"), body.get("suffix")], _counted(body.get("prompt"))
        case Operation.EMBEDDINGS:
            asked, extra = [body.get("input")], _counted(body.get("input"))
    whole = estimate_text(" ".join(strings(asked)))
    return TokenEstimate(whole.least + extra, whole.likely + extra)


def longest_input(request: InferenceRequest, whole: TokenEstimate) -> TokenEstimate:
    """What must fit the model's window at once: the longest of several prompts or inputs, else `whole`."""
    several = map(_estimate, _several(request))
    return max(several, key=lambda estimate: estimate.likely, default=whole)


def _several(request: InferenceRequest) -> list[Any]:
    """The prompts or inputs of a request that has a list of them; each gets an answer of its own."""
    given = request.body.get("input" if request.operation is Operation.EMBEDDINGS else "prompt")
    if request.operation is Operation.CHAT or not isinstance(given, list):
        return []
    return given if given and isinstance(given[0], str | list) else []


def _estimate(one: str | list[int]) -> TokenEstimate:
    return estimate_text(one) if isinstance(one, str) else TokenEstimate(len(one), len(one))


def _counted(given: Any) -> int:
    """Tokens of a prompt that is given as token ids."""
    if not isinstance(given, list) or not given or isinstance(given[0], str):
        return 0
    return sum(map(len, given)) if isinstance(given[0], list) else len(given)


def asked_output(request: InferenceRequest) -> int | None:
    """The most tokens the caller lets one answer have; `None` when not said."""
    said = (request.body.get(name) for name in ("max_completion_tokens", "max_tokens"))
    return next((most for most in said if isinstance(most, int) and most > 0), None)


def expected_output(request: InferenceRequest, task_type: TaskType) -> int:
    """Tokens the answer will usually have, over all its choices, to all prompts."""
    usual, most = _ANSWERS[task_type], asked_output(request)
    answers = max(1, len(_several(request))) * (request.body.get("n") or 1)
    return (usual if most is None else min(usual, most)) * answers
