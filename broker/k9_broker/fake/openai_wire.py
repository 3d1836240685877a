"""Writes OpenAI's answers byte for byte as the real API does, with dates and ids that never change.

The servers that speak the same paths in their own way are subclasses; what differs is a method.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from pydantic_core import to_json

from k9_broker.fake import openai_asks as asks
from k9_broker.fake.allowance import Breach, Levels
from k9_broker.fake.answers import Answer, Question, ToolCall, answer
from k9_broker.fake.head import Head
from k9_broker.fake.openai_embeddings import embedded
from k9_broker.fake.openai_limits import levels_told, over_limit
from k9_broker.fake.script import EPOCH, Call, Headers, Refused, Reply, Script
from k9_broker.fake.wire import State, Trouble, Wire
from k9_broker.results import Usage

_SYSTEM = "fp_k9fake"
_DONE = b"data: [DONE]\n\n"
_STREAM = "text/event-stream; charset=utf-8"

Choice = tuple[int, Mapping[str, Any], Mapping[str, Any]]
"""When a choice of a stream is due, the choice, and what else its frame has."""
_ALONE: Mapping[str, Any] = {}


class OpenAIWire(Wire):
    """`/v1/*` as OpenAI has it."""

    stream_type = _STREAM
    tells_limits = True
    """Every answer says what is left of the limits of rate."""
    null_usage = True
    """With `include_usage` every chunk but the last has `usage: null`."""

    def __init__(self) -> None:
        self.operations = {
            "/v1/chat/completions": self.chat,
            "/v1/completions": self.completions,
            "/v1/embeddings": self.embeddings,
        }
        self.broken = self.failure(Trouble(500)).body

    # -- operations -------------------------------------------------------------------------------

    def chat(self, call: Call) -> Script:
        """`POST /v1/chat/completions`."""
        name, question = self.model(call), asks.chat_question(call)
        named = question.tool_choice.startswith("named:")
        answers = _answers(call, [question])
        base = self.chat_base(name, question)
        if call.body.get("stream") is True:
            return self._streamed(call, [question], answers, base, self._chat_choices(answers, named))
        choices = [self.chat_choice(index, each, named) for index, each in enumerate(answers)]
        return self._whole(call, [question], answers, {**base, "object": "chat.completion"}, choices)

    def completions(self, call: Call) -> Script:
        """`POST /v1/completions`."""
        name, questions = self.model(call), asks.prompt_questions(call)
        answers = _answers(call, questions)
        base = self.text_base(name, questions[0])
        if call.body.get("stream") is True:
            return self._streamed(call, questions, answers, base, self._text_choices(answers))
        choices = [self.text_choice(index, each, each.text, True) for index, each in enumerate(answers)]
        return self._whole(call, questions, answers, base, choices)

    def embeddings(self, call: Call) -> Script:
        """`POST /v1/embeddings`."""
        return embedded(call, self.model(call), self.embeddings_base, self.broken)

    # -- what other servers say otherwise ----------------------------------------------------------

    def model(self, call: Call) -> str:
        return asks.model(call)

    def chat_base(self, name: str, question: Question) -> dict[str, Any]:
        """What every chunk of one answer has."""
        return {
            "id": f"chatcmpl-{question.fingerprint}",
            "object": "chat.completion.chunk",
            "created": EPOCH,
            "model": name,
            "service_tier": "default",
            "system_fingerprint": _SYSTEM,
        }

    def text_base(self, name: str, question: Question) -> dict[str, Any]:
        base = {"id": f"cmpl-{question.fingerprint}", "object": "text_completion"}
        return base | {"created": EPOCH, "model": name, "system_fingerprint": _SYSTEM}

    def embeddings_base(self, name: str, data: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": name, "usage": usage}

    def usage(self, prompt: int, answers: list[Answer]) -> dict[str, Any]:
        thought = sum([len(each.thoughts) for each in answers])
        return Usage(prompt, sum([each.tokens for each in answers]), reasoning=thought).openai()

    def message(self, answer: Answer) -> dict[str, Any]:
        """The message of a whole answer."""
        message: dict[str, Any] = {
            "role": "assistant", "content": answer.text, "refusal": None, "annotations": []
        }  # fmt: skip
        if answer.calls:
            calls = [self.call(call, "".join(call.pieces)) for call in answer.calls]
            message |= {"content": None, "tool_calls": calls}
        return message

    def call(self, call: ToolCall, arguments: str) -> dict[str, Any]:
        function = {"name": call.name, "arguments": arguments}
        return {"id": call.id, "type": "function", "function": function}

    def deltas(self, answer: Answer) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The deltas of one choice, each with the number of tokens that exist by then."""
        due = len(answer.thoughts)
        if not answer.calls:
            yield 0, {"role": "assistant", "content": "", "refusal": None}
            for at, piece in enumerate(answer.pieces, due + 1):
                yield at, {"content": piece}
            return
        for index, call in enumerate(answer.calls):
            due += 1
            head = {"tool_calls": [{"index": index, **self.call(call, "")}]}
            yield due, head if index else {"role": "assistant", "content": None, **head, "refusal": None}
            for piece in call.pieces:
                due += 1
                yield due, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}

    def finish(self, answer: Answer, named: bool) -> str:
        return "stop" if named and answer.calls else answer.finish

    def chat_choice(self, index: int, answer: Answer, named: bool) -> dict[str, Any]:
        finish, message = self.finish(answer, named), self.message(answer)
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish}

    def text_choice(self, index: int, answer: Answer, text: str, last: bool) -> dict[str, Any]:
        finish = answer.finish if last else None
        return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}

    def beginnings(self, index: int, answer: Answer) -> Iterable[Choice]:
        """The choices before the deltas, if there are others than deltas."""
        return ()

    def endings(self, index: int, answer: Answer, named: bool) -> Iterator[Choice]:
        """The choices that end one answer of a chat stream."""
        finish = self.finish(answer, named)
        ending = {"index": index, "delta": {}, "logprobs": None, "finish_reason": finish}
        yield answer.tokens + 1, ending, _ALONE

    def body(self, base: Mapping[str, Any], choices: list[dict[str, Any]], usage: Any) -> dict[str, Any]:
        """A whole answer."""
        return {**base, "choices": choices, "usage": usage}

    def opening(self) -> list[bytes]:
        """Frames before the first chunk."""
        return []

    def usage_chunk(self, base: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
        return {**base, "choices": [], "usage": usage}

    def headers(self, question: Question, streamed: bool) -> Headers:
        return (("x-request-id", f"req_{question.fingerprint}"), ("openai-version", "2020-10-01"))

    def broken_frames(self) -> bytes:
        """How a stream says that it failed."""
        return b"data: " + self.broken + b"\n\n"

    # -- lists and refusals ------------------------------------------------------------------------

    def inventory(self, head: Head, state: State) -> Reply | None:
        """`GET /v1/models` and `/v1/models/{id}`; `None` for any other path."""
        models = state.behaviour.models
        if head.path == "/v1/models":
            return Reply(to_json({"object": "list", "data": [_model(name) for name in models]}))
        if head.path.startswith("/v1/models/"):
            name = unquote(head.path.removeprefix("/v1/models/"))
            return Reply(to_json(_model(name))) if name in models else asks.unknown_model(name)
        return None

    def failure(self, trouble: Trouble) -> Reply:
        return asks.failure(trouble.status, trouble.code, trouble.retry_after)

    def unreadable(self, body: bytes, why: str) -> Refused:
        return asks.refuse("We could not parse the JSON body of your request. Send a JSON object.")

    def no_route(self, head: Head) -> Reply:
        method, path = head.method, head.path
        if path in self.operations or path == "/v1/models":
            return asks.error(405, f"Not allowed to {method} on {path}.", code="method_not_supported")
        return asks.error(404, f"Invalid URL ({method} {path})", code="unknown_url")

    def limited(self, breach: Breach, model: str, trouble: Trouble) -> Reply:
        return over_limit(breach, model) if self.tells_limits else self.failure(trouble)

    def limit_headers(self, levels: Levels) -> Headers:
        return levels_told(levels) if self.tells_limits else ()

    # -- how it is put together ---------------------------------------------------------------------

    def _chat_choices(self, answers: list[Answer], named: bool) -> Iterator[Choice]:
        for index, each in enumerate(answers):
            yield from self.beginnings(index, each)
            for due, delta in self.deltas(each):
                yield due, self.delta_choice(index, delta), _ALONE
            yield from self.endings(index, each, named)

    def delta_choice(self, index: int, delta: Mapping[str, Any]) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _text_choices(self, answers: list[Answer]) -> Iterator[Choice]:
        for index, each in enumerate(answers):
            for at, piece in enumerate(each.pieces, 1):
                yield at, self.text_choice(index, each, piece, False), _ALONE
            yield each.tokens + 1, self.text_choice(index, each, "", True), _ALONE

    def _whole(
        self,
        call: Call,
        questions: list[Question],
        answers: list[Answer],
        base: Mapping[str, Any],
        choices: list[dict[str, Any]],
    ) -> Script:
        prompt, counts = _prompt(questions), [each.tokens for each in answers]
        tokens = max(counts)
        body = self.body(base, choices, self.usage(prompt, answers))
        return Script(
            "application/json",
            ((tokens, to_json(body)),),
            self.broken,
            tokens=tokens,
            headers=self.headers(questions[0], False),
            prompt=prompt,
            generated=sum(counts),
        )

    def _streamed(
        self,
        call: Call,
        questions: list[Question],
        answers: list[Answer],
        base: Mapping[str, Any],
        choices: Iterable[Choice],
    ) -> Script:
        """Frames of all choices in the order of their tokens; with `include_usage` one more at the end."""
        options = call.body.get("stream_options")
        counted = isinstance(options, dict) and options.get("include_usage") is True
        head = b"data: " + to_json(base)[:-1] + b',"choices":['
        tail = b'],"usage":null}\n\n' if counted and self.null_usage else b"]}\n\n"
        frames = [
            (due, head + to_json(choice) + (b"]," + to_json(more)[1:] + b"\n\n" if more else tail))
            for due, choice, more in choices
        ]
        frames.sort(key=_due)
        prompt, counts = _prompt(questions), [each.tokens for each in answers]
        tokens = max(counts)
        if counted:
            chunk = self.usage_chunk(base, self.usage(prompt, answers))
            frames.append((tokens + 1, b"data: " + to_json(chunk) + b"\n\n"))
        frames.append((tokens + 1, _DONE))
        if first := self.opening():
            frames[:0] = [(0, frame) for frame in first]
        return Script(
            self.stream_type,
            frames,
            self.broken_frames(),
            True,
            tokens,
            headers=self.headers(questions[0], True),
            prompt=prompt,
            generated=sum(counts),
        )


def _due(frame: tuple[int, bytes]) -> int:
    return frame[0]


def _prompt(questions: list[Question]) -> int:
    return sum([question.tokens for question in questions])


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": EPOCH, "owned_by": "k9-fake"}


def _answers(call: Call, questions: list[Question]) -> list[Answer]:
    count = asks.integer(call.body, "n", 1) or 1
    if count > 128:
        raise asks.refuse("Invalid 'n': at most 128.", "n", "integer_above_max_value")
    length = call.behaviour.answer_tokens
    return [answer(question, length, choice) for question in questions for choice in range(count)]
