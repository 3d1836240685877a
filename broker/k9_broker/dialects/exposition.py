"""Prometheus' text exposition: what servers answer to GET /metrics.

Format: prometheus.io/docs/instrumenting/exposition_formats, "Text-based format"; OpenMetrics' exemplars
are skipped. Only numbers are of interest here, so nothing is raised: a line that makes no sense is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

_SAMPLE = re.compile(
    r"[ \t]*+([a-zA-Z_:][a-zA-Z0-9_:]*+)"  # name
    r'[ \t]*+(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*+")*+)\})?+'  # labels; a brace may stand in a quoted value
    r"[ \t]*+([^ \t{}]++)"  # value
    r"(?:[ \t]++-?[0-9.]++)?+[ \t]*+(?:#.*)?+"  # timestamp, exemplar
)
_LABEL = re.compile(
    r'[ \t]*+([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"((?:[^"\\]|\\.)*+)"[ \t]*+(?:,[ \t]*+|$)'
)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n"}


def samples(body: bytes) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Name, labels and value of each sample, in order; comments and bad lines are skipped."""
    for line in body.decode("utf-8", "replace").split("\n"):
        if found := _sample(line.rstrip("\r")):
            yield found


def total(body: bytes, *names: str) -> float | None:
    """The sum over all label sets of the first of `names` that is there, or `None` when none is.

    Names differ between versions of a server; engines of one server are told apart by labels. A
    value that is no finite number counts as not there.
    """
    sums: dict[str, float] = {}
    wanted = tuple(names)
    for line in body.decode("utf-8", "replace").split("\n"):
        if not line.lstrip().startswith(wanted):  # most of a long answer is about something else
            continue
        found = _sample(line.rstrip("\r"))
        if found and found[0] in wanted and math.isfinite(found[2]):
            sums[found[0]] = sums.get(found[0], 0.0) + found[2]
    return next((sums[name] for name in names if name in sums), None)


def _sample(line: str) -> tuple[str, Mapping[str, str], float] | None:
    match = _SAMPLE.fullmatch(line)
    if match is None:
        return None
    name, inside, value = match.groups()
    labels = _labels(inside.strip()) if inside else {}
    if labels is None:
        return None
    try:
        return name, labels, float(value)
    except ValueError:
        return None


def _labels(inside: str) -> Mapping[str, str] | None:
    """The labels between the braces, or `None` when they are not written as they should be."""
    labels: dict[str, str] = {}
    position = 0
    while position < len(inside):
        match = _LABEL.match(inside, position)
        if match is None:
            return None
        labels[match[1]] = _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), match[2])
        position = match.end()
    return labels
