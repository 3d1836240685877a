"""`k9 demo`: the whole of K-9 in a minute or two, on texts every machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    folder: Annotated[Path, typer.Option(help="Where the texts and vectors go.")] = Path("demo-out"),
    most: Annotated[
        int | None, typer.Option(min=1, help="Embed no more texts than this; default: all there are.")
    ] = None,
) -> None:
    """Embed the standard library's docstrings through the queue, then ask three questions in English."""
    from rich.console import Console

    from k9_api.demo.run import run
    from k9_broker.settings import load_settings

    run(load_settings(), folder, most, Console())
