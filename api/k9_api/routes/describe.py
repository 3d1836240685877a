"""What `/docs` says about bodies that the routes read themselves."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter


def json_body(shape: Any) -> dict[str, Any]:
    """The OpenAPI request body of a shape, for a route's `openapi_extra`."""
    schema = TypeAdapter(shape).json_schema()
    # OpenAPI has one place for definitions; written out in place, a body needs none.
    definitions = schema.pop("$defs", {})
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _inline(schema, definitions)}},
        }
    }


def _inline(part: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(part, list):
        return [_inline(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    if reference := part.get("$ref"):
        return _inline(definitions[reference.rpartition("/")[2]], definitions)
    return {key: _inline(value, definitions) for key, value in part.items()}
