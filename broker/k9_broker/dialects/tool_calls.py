"""Tool calls as OpenAI's clients expect them, from servers that write them in many ways.

Seen in the wild: no `index`, the id "0" for every call, id and name repeated in every piece, two
calls under one index, a whole call in one piece, arguments as an object instead of JSON text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from pydantic_core import from_json, to_json

from k9_broker.errors import BadRequest


def invented_id() -> str:
    """An id for a call whose server gave none; unique over all answers, as the next turn refers to it."""
    return f"call_{uuid4().hex[:24]}"


def arguments_text(arguments: Any) -> str:
    """OpenAI's `arguments`: JSON text, whatever the server sent."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else to_json(arguments).decode()


def function_of(call: Any, where: str) -> Mapping[str, Any]:
    """The function of a call that a caller sends back. Raises `BadRequest`, naming the call."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise BadRequest(f"{where} has no function.", param=where)
    return function


def arguments_object(function: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Its arguments, for servers that want them as an object. Raises `BadRequest`, naming them."""
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = from_json(arguments) if arguments.strip() else {}
        except ValueError:
            arguments = None
    if not isinstance(arguments, Mapping):
        at = f"{where}.function.arguments"
        raise BadRequest(f"{at} is not the JSON of an object.", param=at)
    return arguments


def whole_calls(calls: Iterable[Any]) -> list[dict[str, Any]]:
    """The `tool_calls` of a whole message."""
    taken: set[str] = set()
    return [_whole(call, taken) for call in calls if isinstance(call, Mapping)]


def _whole(call: Mapping[str, Any], taken: set[str]) -> dict[str, Any]:
    function = _function(call)
    return {
        "id": _unique(call.get("id"), taken),
        "type": "function",
        "function": {
            "name": function.get("name") or "",
            "arguments": arguments_text(function.get("arguments")) or "{}",
        },
    }


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    return function if isinstance(function, Mapping) else {}


def _unique(given: Any, taken: set[str]) -> str:
    usable = isinstance(given, str) and given and not given.isdigit() and given not in taken
    chosen = given if usable else invented_id()
    taken.add(chosen)
    return str(chosen)


@dataclass(slots=True)
class _Open:
    """A call whose pieces are still coming."""

    index: int
    given: Any
    """The id as the server wrote it."""
    name: str = ""
    whole: bool = False
    """Its arguments came as an object, so no further piece can belong to it."""


class ToolCallStream:
    """The tool calls of one choice of one stream: gives every piece an index and each call one id."""

    __slots__ = ("_by_id", "_by_index", "_last", "_taken", "count")

    def __init__(self) -> None:
        self.count = 0
        self._last: _Open | None = None
        self._by_index: dict[int, _Open] = {}
        self._by_id: dict[str, _Open] = {}
        self._taken: set[str] = set()

    def pieces(self, deltas: Iterable[Any]) -> list[dict[str, Any]]:
        """The pieces as OpenAI writes them: id, type and name once, then arguments alone."""
        return [self._piece(delta) for delta in deltas if isinstance(delta, Mapping)]

    def _piece(self, delta: Mapping[str, Any]) -> dict[str, Any]:
        function = _function(delta)
        name, arguments = function.get("name"), function.get("arguments")
        call = self._find(delta, name)
        begins = call is None
        if call is None:
            call = self._begin(delta)
        piece: dict[str, Any] = {"index": call.index}
        said: dict[str, Any] = {}
        if begins:
            piece |= {"id": _unique(call.given, self._taken), "type": "function"}
        if name and not call.name:
            said["name"] = call.name = name
        call.whole = isinstance(arguments, Mapping)
        said["arguments"] = arguments_text(arguments)
        piece["function"] = said
        self._last = call
        return piece

    def _find(self, delta: Mapping[str, Any], name: Any) -> _Open | None:
        """The open call this piece continues, or `None` when it begins a new one."""
        given, index = delta.get("id"), delta.get("index")
        if given and not isinstance(index, int):
            call = self._by_id.get(str(given))
        elif isinstance(index, int):
            call = self._by_index.get(index)
        else:
            call = self._last
        if call is None or not name:
            return call
        another = (
            call.whole
            or (call.name and call.name != name)
            or (given and call.given and given != call.given)
            or (not given and not isinstance(index, int))
        )
        return None if another else call

    def _begin(self, delta: Mapping[str, Any]) -> _Open:
        given, index = delta.get("id"), delta.get("index")
        call = _Open(self.count, given)
        self.count += 1
        self._by_index[index if isinstance(index, int) else call.index] = call
        if given:
            self._by_id[str(given)] = call
        return call
