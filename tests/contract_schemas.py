"""The published schemas of the contracts, and whether a value fits one of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

Check = Callable[[str, str, Any], None]
"""Fails when a value does not fit a schema of a document: `check(document, schema, value)`."""


def checker(contracts: Path) -> Check:
    documents: dict[str, Any] = {}

    def check(document: str, schema: str, value: Any) -> None:
        if document not in documents:
            documents[document] = with_nulls(json.loads((contracts / document).read_text("utf-8")))
        root = {**documents[document], "$ref": f"#/components/schemas/{schema}"}
        problems = [
            f"{one.json_path}: {one.message[:200]}" for one in Draft202012Validator(root).iter_errors(value)
        ]
        assert not problems, problems

    return check


def with_nulls(schema: Any) -> Any:
    """`nullable` of OpenAPI 3.0, which JSON Schema does not know, as a type."""
    if isinstance(schema, list):
        return [with_nulls(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: with_nulls(value) for key, value in schema.items()}
    if schema.get("nullable") is True and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return schema
