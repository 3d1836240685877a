"""`k9 fake`: a backend without a model, to try K-9 with and to test against."""

from __future__ import annotations

from typing import Annotated

import typer


def fake(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8799,
    models: Annotated[
        str, typer.Option(help="Names of its models, comma separated.")
    ] = "fake-chat,fake-embed",
    slots: Annotated[int, typer.Option(min=0, help="Requests at once; more wait. 0: no limit.")] = 0,
    latency_ms: Annotated[float, typer.Option(min=0, help="Before every answer.")] = 0.0,
    first_token_ms: Annotated[float, typer.Option(min=0, help="Before the first token of a text.")] = 0.0,
    tokens_per_second: Annotated[float, typer.Option(min=0, help="Rate of tokens; 0: all at once.")] = 0.0,
) -> None:
    """Run a fake language model server that speaks OpenAI's and Ollama's wire formats.

    Its answers are deterministic; how fast they are and which faults they have can be changed
    while it runs, with PATCH /fake/behaviour.
    """
    from k9_broker.fake.faults import Behaviour
    from k9_broker.fake.server import serve

    names = tuple(name.strip() for name in models.split(",") if name.strip())
    behaviour = Behaviour(
        models=names,
        slots=slots,
        latency_ms=latency_ms,
        first_token_ms=first_token_ms,
        tokens_per_second=tokens_per_second,
    )

    def ready(url: str) -> None:
        typer.echo(f"The fake listens on {url} (OpenAI: {url}/v1, Ollama: {url}). Ctrl-C ends it.")
        typer.echo(f"Models: {', '.join(names) or 'none'}")
        typer.echo("To use it, put this into k9.toml:\n")
        typer.echo(f'[[backends]]\nname = "fake"\ndialect = "fake"\nurl = "{url}"\n')
        typer.echo("To change it while it runs:\n")
        typer.echo(
            f"curl -X PATCH {url}/fake/behaviour -d "
            """'{"first_token_ms": 200, "tokens_per_second": 50, "error_rate": 0.1}'"""
        )

    serve(host, port, behaviour, ready)
