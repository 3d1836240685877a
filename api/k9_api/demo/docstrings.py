"""Real texts that are already here: what the standard library says of itself.

The sources are parsed, never imported, so nothing runs and nothing is needed.
"""

from __future__ import annotations

import ast
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from pydantic_core import to_json

LONGEST = 400
"""Characters of a docstring that are embedded: its first paragraph, cut there."""
SHORTEST = 24
"""Shorter ones say nothing."""
SKIPPED = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "site-packages", "ensurepip", "turtledemo", "pydoc_data"}
)


def docstrings(library: Path | None = None) -> Iterator[tuple[str, str]]:
    """Name and text of every public module, class and function: `("subprocess.run", "Run command …")`.

    `library`: the folder with the sources; default: this interpreter's.
    """
    root = library or Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if SKIPPED.intersection(parts) or any(part.startswith("_") for part in parts if part != "__init__"):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        module = ".".join(part for part in parts if part != "__init__")
        if module:
            yield from _documented(tree, module)


def _documented(node: ast.Module | ast.ClassDef | ast.FunctionDef, name: str) -> Iterator[tuple[str, str]]:
    text = " ".join((inspect.cleandoc(ast.get_docstring(node) or "")).split("\n\n")[0].split())
    if len(text) >= SHORTEST:
        yield name, text[:LONGEST]
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield from _documented(child, f"{name}.{child.name}")


def write_jsonl(path: Path, most: int | None = None) -> int:
    """One `{"id": name, "text": "name: text"}` a line; gives the number of lines.

    `most`: take no more, evenly from the whole library.
    """
    found = list(docstrings())
    step = max(1, -(-len(found) // most)) if most else 1
    chosen = found[::step]
    with path.open("wb") as lines:
        for name, text in chosen:
            lines.write(to_json({"id": name, "text": f"{name}: {text}"}) + b"\n")
    return len(chosen)
