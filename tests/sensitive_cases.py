"""Texts by category, each checked alone and inside another text."""

from __future__ import annotations

from k9_broker.sensitive import Category, Detector

_DETECTOR = Detector()


def cases(table: dict[Category, list[str]]) -> list[tuple[Category, str]]:
    return [(category, text) for category, texts in table.items() for text in texts]


def assert_found(category: Category, text: str) -> None:
    assert category in _DETECTOR.find([text])
    assert category in _DETECTOR.find([_inside(text)])


def assert_left_alone(category: Category, text: str) -> None:
    assert category not in _DETECTOR.find([text])
    assert category not in _DETECTOR.find([_inside(text)])


def _inside(text: str) -> str:
    return f"Hello,\nplease have a look: {text}\nThank you!"
