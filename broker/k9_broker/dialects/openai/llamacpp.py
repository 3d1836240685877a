"""The dialect `llama.cpp`: its server, with one model or as a router between several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import from_json

from k9_broker.dialects import wire_errors
from k9_broker.dialects.base import Options, WireRequest
from k9_broker.dialects.openai.dialect import OpenAICompatible
from k9_broker.dialects.openai.folding import fold
from k9_broker.dialects.openai.request import GUIDED, Server
from k9_broker.dialects.openai.stream import OpenAIStream
from k9_broker.dialects.parameters import unsupported
from k9_broker.errors import BadRequest, K9Error
from k9_broker.health import Load
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Result, Usage

_CANNOT = (
    "input is not supported",
    "requires --jinja",
    "unsupported param",
    "cannot use both",
    "does not support logits",  # a model that embeds was asked for text
)
"""Words of refusals that llama.cpp sends with status 500, though no repetition would help."""

_UNREADABLE = ("failed to parse messages", "failed to parse tool")
"""Words for what the caller got wrong, also with status 500."""


class LlamaCpp(OpenAICompatible):
    """llama.cpp's server ignores fields it does not know, so those of other servers are refused here.

    Backend options, beside those of `OpenAICompatible`:

    - `image_urls`: `true` lets it fetch images by URL, from wherever it runs;
    - `load`: `false` leaves its `/slots` alone, which would keep a server from falling asleep.
    """

    server = Server(
        "llama.cpp",
        refuses=frozenset(
            {
                *GUIDED,
                "functions",
                "function_call",
                "modalities",
                "audio",
                "web_search_options",
                "data_sources",
                "verbosity",
                "moderation",
                "best_of",
                "suffix",
                "echo",
                "structured_outputs",
                "stop_token_ids",
                "allowed_token_ids",
                "bad_words",
                "min_tokens",
                "length_penalty",
                "use_beam_search",
            }
        ),
        renames={
            "repetition_penalty": "repeat_penalty",
            "thinking_token_budget": "reasoning_budget_tokens",
        },
        fetches=False,
    )

    def build(self, request: InferenceRequest, options: Options) -> WireRequest:
        """Whole answers are streamed too: while it is busy, llama.cpp does not see that a caller has left
        before it has something to write to him."""
        if request.operation is not Operation.EMBEDDINGS:
            request = request.streaming(True)
        return super().build(request, options)

    def parse(self, request: InferenceRequest, body: bytes) -> Result:
        if request.operation is Operation.EMBEDDINGS or body.lstrip().startswith(b"{"):
            return super().parse(request, body)
        parser = OpenAIStream(request)
        *chunks, last = [*parser.feed(body), *parser.close()]
        folded = fold(request.operation, chunks)
        usage = Usage.from_openai(last["usage"])
        kind = "chat.completion" if request.operation is Operation.CHAT else "text_completion"
        whole = {**folded, "object": kind, "usage": usage.openai()}
        return Result(str(folded.get("model") or request.model), usage, body=whole)

    def adapt(self, operation: Operation, body: dict[str, Any]) -> None:
        if operation is Operation.COMPLETIONS and "response_format" in body:
            raise unsupported(self.server.name, "response_format", "response_format outside of a chat")
        if isinstance(body.get("tool_choice"), Mapping):
            _name_tool(body)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> K9Error:
        facts = wire_errors.read(status, body)
        if status == 500 and any(words in facts.message.lower() for words in _CANNOT):
            facts = replace(facts, status=501)
        elif status == 500 and any(words in facts.message.lower() for words in _UNREADABLE):
            facts = replace(facts, status=400)
        elif status == 500 and "is too large to process" in facts.message:  # an input longer than its batch
            facts = replace(facts, status=400, kind="exceed_context_size")
        return wire_errors.classify(facts, wire_errors.retry_after(headers))

    def card(self, item: Mapping[str, Any]) -> ModelCard:
        """The context a request gets, else that of the model's training; and whether it sees images."""
        meta = item.get("meta")
        meta = meta if isinstance(meta, Mapping) else {}
        lengths = (meta.get("n_ctx"), meta.get("n_ctx_train"))
        architecture = item.get("architecture")
        reads = architecture.get("input_modalities") if isinstance(architecture, Mapping) else None
        return ModelCard(
            context_window=next((one for one in lengths if type(one) is int and one > 0), None),
            vision="image" in reads if isinstance(reads, list) else None,
        )

    def load_request(self, options: Options) -> WireRequest | None:
        return None if options.get("load") is False else WireRequest("GET", "/slots")

    def parse_load(self, body: bytes) -> Load:
        try:
            found = from_json(body)
        except ValueError:
            return Load()
        if not isinstance(found, list):
            return Load()
        busy = [slot.get("is_processing") for slot in found if isinstance(slot, Mapping)]
        if not busy or None in busy:
            return Load()
        return Load(running=sum(one is True for one in busy), slots=len(busy))


def _name_tool(body: dict[str, Any]) -> None:
    """A tool named in `tool_choice`: llama.cpp would take it for `auto`, so it gets that tool alone.

    Raises `BadRequest` when there is no such tool.
    """
    chosen = body["tool_choice"].get("function")
    name = chosen.get("name") if isinstance(chosen, Mapping) else None
    tools = body.get("tools")
    named = [
        tool
        for tool in (tools if isinstance(tools, list) else ())
        if isinstance(tool, Mapping)
        and isinstance(tool.get("function"), Mapping)
        and tool["function"].get("name") == name
    ]
    if name is None or not named:
        raise BadRequest("tool_choice names a tool that is not in tools.", param="tool_choice")
    body["tools"], body["tool_choice"] = named, "required"
