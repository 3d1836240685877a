"""`k9 fake`: a backend without a model, to try K-9 with and to test against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from k9_broker.fake.faults import Flavour

BASES = (
    ("OpenAI, vLLM, llama.cpp", "/v1"),
    ("Azure OpenAI (endpoint)", ""),
    ("Anthropic", ""),
    ("Ollama", ""),
    ("TGI, TEI", ""),
)
"""What to give each SDK as its base, after the URL."""

DIALECTS = {"plain": "fake", "llamacpp": "llama.cpp"}
"""What speaks to a flavour, where it has another name."""


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
    flavour: Annotated[
        str,
        typer.Option(
            help="Whose habits the shared paths (/v1, /health, /metrics, …) have: plain, openai, vllm, tgi, "
            "tei or llamacpp."
        ),
    ] = "plain",
    reasoning_tokens: Annotated[int, typer.Option(min=0, help="Tokens of thought before an answer.")] = 0,
    requests_per_minute: Annotated[int, typer.Option(min=0, help="More get 429; 0: no limit.")] = 0,
    tokens_per_minute: Annotated[int, typer.Option(min=0, help="More get 429; 0: no limit.")] = 0,
) -> None:
    """Run a fake language model server that speaks the wire formats of all backends.

    OpenAI, Azure OpenAI, Anthropic, Ollama, vLLM, TGI, TEI and llama.cpp, on one port. Its answers
    are deterministic; how fast they are, which key they want and which faults they have can be
    changed while it runs, with PATCH /fake/behaviour.
    """
    from k9_broker.fake.faults import Behaviour
    from k9_broker.fake.server import serve

    names = tuple(name.strip() for name in models.split(",") if name.strip())
    behaviour = Behaviour(
        flavour=_known(flavour),
        models=names,
        slots=slots,
        latency_ms=latency_ms,
        first_token_ms=first_token_ms,
        tokens_per_second=tokens_per_second,
        reasoning_tokens=reasoning_tokens,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )

    dialect = DIALECTS.get(flavour, flavour)

    def ready(url: str) -> None:
        typer.echo(f"The fake listens on {url}. Ctrl-C ends it. Base URLs:")
        for name, path in BASES:
            typer.echo(f"  {name:<25}{url}{path}")
        typer.echo(f"Models: {', '.join(names) or 'none'}")
        typer.echo("To use it, put this into k9.toml:\n")
        typer.echo(f'[[backends]]\nname = "fake"\ndialect = "{dialect}"\nurl = "{url}"\n')
        typer.echo("To change it while it runs:\n")
        typer.echo(
            f"curl -X PATCH {url}/fake/behaviour -d "
            """'{"first_token_ms": 200, "tokens_per_second": 50, "error_rate": 0.1}'"""
        )

    serve(host, port, behaviour, ready)


def _known(flavour: str) -> Flavour:
    """Raises `typer.BadParameter` naming the flavours there are."""
    from k9_broker.fake.wires import FLAVOURS

    for name in FLAVOURS:
        if name == flavour:
            return name
    raise typer.BadParameter(f"{flavour!r} is none of {', '.join(FLAVOURS)}.", param_hint="--flavour")
