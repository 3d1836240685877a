"""The command `k9`. Each command is a module beside this one; what is slow to import waits until it runs."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from k9_api.cli import (
    backends,
    chat,
    dead,
    demo,
    demo_routing,
    doctor,
    embed,
    fake,
    jobs,
    model,
    queues,
    reload,
    route,
    serve,
    simulate,
    up,
    usage,
    why,
    worker,
)
from k9_broker.errors import K9Error

FAILED = 2
"""The exit code of a command that could not do what it was asked."""


class _Commands(TyperGroup):
    """A group whose commands fail with one clear line, never with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except K9Error as error:
            typer.echo(f"k9: {error.message}", err=True)
            sys.exit(FAILED)
        except UnicodeError:  # its own message holds the text
            typer.echo("k9: Text that comes in or goes out is not UTF-8. Try PYTHONUTF8=1.", err=True)
            sys.exit(FAILED)


app = typer.Typer(
    cls=_Commands,
    help="K-9, a queue-based inference broker.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(up.up)
app.command()(serve.api)
app.command()(worker.worker)
app.command()(reload.reload)
app.command()(doctor.doctor)
app.command()(embed.embed)
app.command()(chat.chat)
app.command()(queues.queues)
app.add_typer(backends.app, name="backends")
app.add_typer(jobs.app, name="jobs")
app.add_typer(dead.app, name="dead")
app.command()(route.route)
app.command()(why.why)
app.command()(simulate.simulate)
app.command()(usage.usage)
app.add_typer(model.app, name="model")
app.command()(fake.fake)
app.command()(demo.demo)
app.command("demo-routing")(demo_routing.demo_routing)
