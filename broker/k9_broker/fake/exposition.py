"""Metrics in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One name with a value for each set of labels."""

    name: str
    kind: str
    help: str
    values: Sequence[tuple[Mapping[str, str], float]]


def exposition(metrics: Iterable[Metric]) -> bytes:
    lines: list[str] = []
    for metric in metrics:
        if metric.help:
            lines.append(f"# HELP {metric.name} {metric.help}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for labels, value in metric.values:
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in sorted(labels.items()))
            lines.append(f"{metric.name}{{{inside}}} {float(value)}" if inside else f"{metric.name} {value}")
    return ("\n".join(lines) + "\n").encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
