"""Switches: how one mechanism is turned off for the length of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest

from k9_broker.adapters import connect

Switch = Callable[[pytest.MonkeyPatch], None]
"""Turns a mechanism off until the test ends. Raises `LookupError` when it is no longer where it was."""


def lua(name: str, line: str, instead: str = "") -> Switch:
    """One piece of a script or, as `parts/NAME`, of a part. It must stand there exactly once."""

    def off(patch: pytest.MonkeyPatch) -> None:
        text = (files("k9_broker.adapters") / "scripts" / f"{name}.lua").read_text("utf-8")
        if text.count(line) != 1:
            raise LookupError(f"{name}.lua has {text.count(line)} times {line!r}: say where it is now")
        read = connect.script_text
        patch.setattr(
            connect, "script_text", lambda script: read(script).replace(text, text.replace(line, instead))
        )

    return off


def swap(owner: object, name: str, instead: Any) -> Switch:
    """An attribute of a class or a module."""

    def off(patch: pytest.MonkeyPatch) -> None:
        if not hasattr(owner, name):
            raise LookupError(f"{owner} has no {name}: say where it is now")
        patch.setattr(owner, name, instead)

    return off


def both(*switches: Switch) -> Switch:
    """Several at once, for what stands on two feet."""

    def off(patch: pytest.MonkeyPatch) -> None:
        for switch in switches:
            switch(patch)

    return off


async def never(*_: Any, **__: Any) -> Any:
    """In place of a coroutine that is to do nothing, ever."""
    await asyncio.Event().wait()


def saying(value: Any) -> Any:
    """In place of a coroutine function: it does nothing and gives this."""

    async def say(*_: Any, **__: Any) -> Any:
        return value

    return say
