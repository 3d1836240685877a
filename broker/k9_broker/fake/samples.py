"""A small value that fits a JSON schema: what the fake puts in tool arguments and JSON answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DEEP = 6
"""Levels after which optional properties are left out, so that a schema that contains itself ends."""
_DEEPEST = 32

_FORMATS = {
    "date": "2024-01-31",
    "date-time": "2024-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}


def sample(schema: Mapping[str, Any], draw: bytes) -> Any:
    """A value that fits `schema`, chosen by the bytes of `draw` where there is a choice.

    Knows types, enum, const, default, $ref, anyOf, oneOf, allOf, required, items, the bounds of
    numbers, and the lengths of strings and arrays; not `pattern` and not conditions.
    """
    return _value(schema, schema, draw, 0)


def _value(schema: Any, root: Mapping[str, Any], draw: bytes, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    schema = _resolve(schema, root, draw, depth)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if options := schema.get("enum"):
        return options[_byte(draw, depth) % len(options)]
    match _type(schema):
        case "object":
            return _object(schema, root, draw, depth)
        case "array":
            count = max(int(schema.get("minItems", 0)), min(1, int(schema.get("maxItems", 1))))
            items = schema.get("items", {"type": "string"})
            return [_value(items, root, draw[at % 4 :], depth + 1) for at in range(count)]
        case "integer" | "number" as kind:
            return _number(schema, kind, _byte(draw, depth))
        case "boolean":
            return _byte(draw, depth) % 2 == 0
        case "null":
            return None
    text = _FORMATS.get(str(schema.get("format")), f"value{_byte(draw, depth)}")
    text = text.ljust(int(schema.get("minLength", 0)), "x")
    return text[: int(schema.get("maxLength", len(text)))]


def _resolve(
    schema: Mapping[str, Any], root: Mapping[str, Any], draw: bytes, depth: int
) -> Mapping[str, Any]:
    """The schema with its reference followed and its combinations decided."""
    for _ in range(_DEEPEST):
        if isinstance(reference := schema.get("$ref"), str):
            target: Any = root
            for part in reference.removeprefix("#").strip("/").split("/") if reference != "#" else ():
                target = target.get(part.replace("~1", "/").replace("~0", "~"), {})
            schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        elif options := schema.get("anyOf") or schema.get("oneOf"):
            rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
            schema = {**rest, **(options[-1] if depth > _DEEP else options[0])}
        elif parts := schema.get("allOf"):
            merged = {key: value for key, value in schema.items() if key != "allOf"}
            for each in parts:
                one = _resolve(each, root, draw, depth)
                properties = {**merged.get("properties", {}), **one.get("properties", {})}
                required = [*merged.get("required", ()), *one.get("required", ())]
                merged = {**merged, **one, "properties": properties, "required": required}
            schema = merged
        else:
            break
    return schema


def _type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return str(kind[0]) if isinstance(kind, list) and kind else str(kind)


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], draw: bytes, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    wanted = [name for name in properties if depth < _DEEP or name in required]
    wanted += [name for name in required if name not in properties]
    return {
        name: _value(properties.get(name, {}), root, draw[at % 8 :], depth + 1)
        for at, name in enumerate(wanted)
    }


def _number(schema: Mapping[str, Any], kind: str, byte: int) -> int | float:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    step: float = schema.get("multipleOf", 1 if kind == "integer" or low is None or high is None else 0)
    if low is None and high is None:
        value: float = byte * step
    elif low is not None and (high is None or step):
        value = -(-low // step) * step if step else low
        value += step if "exclusiveMinimum" in schema and value <= low else 0
    elif low is None:
        value = high // step * step if step else high
        value -= step if "exclusiveMaximum" in schema and value >= high else 0
    else:
        value = (low + high) / 2
    return int(value) if kind == "integer" else float(value)


def _byte(draw: bytes, depth: int) -> int:
    return draw[depth % len(draw)] if draw else 0
