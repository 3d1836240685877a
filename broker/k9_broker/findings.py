"""What an examination of a backend found: a line for each check, and what to do where something is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    HINT = "hint"
    """It works; something could be better."""
    SKIPPED = "skipped"
    """It was not tried; the finding says why."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one backend, or of one of its instances. Never holds a key, a prompt or an answer."""

    backend: str
    check: str
    """What was looked at: `configuration`, `reachable`, `credentials`, `models`, `chat`, `stream`, …"""
    verdict: Verdict
    said: str
    """What was found, as a person reads it."""
    mend: str = ""
    """What to do about it; empty when there is nothing to do."""
    instance: str = ""
    """`Instance.name`; empty for what concerns the whole backend."""

    @property
    def is_wrong(self) -> bool:
        return self.verdict is Verdict.WRONG

    def line(self) -> str:
        """One line of JSON; `Finding.read` is its inverse."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, line: str) -> Finding:
        """The finding in a line of JSON. Raises `ValueError` when it holds none."""
        try:
            said = json.loads(line)
            return cls(**{**said, "verdict": Verdict(said["verdict"])})
        except (TypeError, KeyError) as error:
            raise ValueError("this line is no finding") from error
