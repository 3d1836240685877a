"""`k9 demo-routing`: where prompts of every kind go under each strategy, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo_routing(
    config: Annotated[Path, typer.Option(help="The backends and strategies to play.")] = Path(
        "examples/routing/k9.toml"
    ),
) -> None:
    """Send some dozens of prompts through four fake backends under each strategy; show where they went."""
    from rich.console import Console

    from k9_api.demo.routing import run
    from k9_broker.settings import load_settings

    run(config, load_settings().state_dir / "demo-routing", Console())
