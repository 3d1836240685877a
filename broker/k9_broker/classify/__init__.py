"""What a text asks for, and how strong a model it needs: two pure functions of the text.

Everything they need is loaded when they are first called, once.
"""

from __future__ import annotations

from k9_broker.requests import TaskType


def task_type(text: str) -> str:
    """The kind of work `text` asks for: a value of `TaskType`, never `embeddings`."""
    return recognise_text(text)[0].value


def recognise_text(text: str) -> tuple[TaskType, float]:
    """The kind of work `text` asks for, and the probability (0 to 1) that this is right."""
    from k9_broker.classify import text as recogniser

    return recogniser.recognise_text(text)


def needs_strong(text: str) -> float:
    """How much `text` gains from the big model, 0 to 1."""
    from k9_broker.classify import strong

    return strong.score(text)
