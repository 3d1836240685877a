"""`k9 embed FILE -o OUT`: a file of lines to a file of vectors, through the queue, resumable."""

from __future__ import annotations

import asyncio
import shlex
import signal
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from k9_api.cli.where import Url, api_key, api_url

if TYPE_CHECKING:
    from k9_api.batch.progress import Summary
    from k9_api.batch.run import Plan


STOPPED = 130
"""The exit code of a run that was told to stop: 128 + SIGINT, as shells have it."""


def embed(
    file: Annotated[
        str, typer.Argument(help="Input: .jsonl, .csv, .parquet, else one text per line; .gz; - is stdin.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output: .jsonl, .npy or .parquet.")],
    model: Annotated[str | None, typer.Option(help="Default: the first model that embeds.")] = None,
    field: Annotated[
        str | None, typer.Option(help="The text's field. Default: text, input, content.")
    ] = None,
    id_field: Annotated[str | None, typer.Option(help="The id's field. Default: id, else the line.")] = None,
    url: Url = None,
    chunk: Annotated[int | None, typer.Option(min=1, max=2048, help="Lines per job. Default: 256.")] = None,
    window: Annotated[int, typer.Option(min=1, max=256, help="Jobs under way or waiting at once.")] = 16,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start again, replacing OUT.")] = False,
    errors: Annotated[Path | None, typer.Option(help="Lines that failed. Default: OUT.errors.jsonl.")] = None,
    give_up_after: Annotated[
        float, typer.Option(min=0, help="Seconds to keep trying while the API cannot be reached.")
    ] = 600.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the summary.")] = False,
) -> None:
    """Embed every line of FILE and write the vectors to OUT.

    Lines that cannot be embedded go to the error file; nothing else is lost. Ctrl-C stops cleanly,
    and after any kind of end --resume goes on as if nothing had happened. Exit codes: 0 done, 1 not
    one line could be embedded, 2 could not run, 130 stopped.
    """
    try:
        from k9_api.batch.checkpoint import Outputs
        from k9_api.batch.run import Plan
    except ModuleNotFoundError as missing:
        _fail(f"{missing.name} is not installed. Install it with: pip install 'k9-broker[batch]'")

    outputs = Outputs(out=output, errors=errors or _errors_of(output))
    if resume and outputs.finished:
        typer.echo(f"{output} is complete already.", err=True)
        return
    plan = Plan(
        file=file,
        outputs=outputs,
        url=api_url(url),
        model=model,
        field=field,
        id_field=id_field,
        chunk=chunk,
        window=window,
        resume=resume,
        overwrite=overwrite,
        give_up_after=give_up_after,
        api_key=api_key(),
    )
    summary = _run(plan, quiet)
    typer.echo(f"k9 embed: {summary}", err=True)
    if summary.errors:
        typer.echo(f"k9 embed: the lines that failed are in {outputs.errors}", err=True)
        if not summary.items:
            raise typer.Exit(1)


def _run(plan: Plan, quiet: bool) -> Summary:
    """The plan's summary. What ends a run early becomes one line that tells how to go on."""
    from k9_api.batch.jobs import GaveUp
    from k9_api.batch.progress import display
    from k9_api.batch.run import embed_file

    try:
        shown = display(quiet, lambda line: typer.echo(line, err=True))
        return asyncio.run(_stoppable(embed_file(plan, shown)))
    except (asyncio.CancelledError, KeyboardInterrupt):
        typer.echo(f"k9 embed: stopped. {_how_to_go_on(plan)}", err=True)
        raise typer.Exit(STOPPED) from None
    except GaveUp as error:
        _fail(f"{error.message} {_how_to_go_on(plan)}")
    except OSError as error:
        _fail(f"{error.filename or plan.outputs.out}: {error.strerror or error}. {_how_to_go_on(plan)}")


async def _stoppable(work: Coroutine[Any, Any, Summary]) -> Summary:
    """`work`, cancelled by Ctrl-C or SIGTERM; a second one cuts its cleaning up short."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


def _how_to_go_on(plan: Plan) -> str:
    if plan.outputs.progress.exists():
        command = ["k9", "embed", plan.file, "-o", str(plan.outputs.out), "--resume"]
        if plan.outputs.errors != _errors_of(plan.outputs.out):
            command += ["--errors", str(plan.outputs.errors)]
        if plan.url != api_url():
            command += ["--url", plan.url]
        return f"Go on with: {shlex.join(command)}"
    return "There is no checkpoint to resume from; once that is mended, run the same command again."


def _errors_of(output: Path) -> Path:
    return output.parent / f"{output.name}.errors.jsonl"  # `with_name` raises for a folder such as `.`


def _fail(message: str) -> NoReturn:
    typer.echo(f"k9 embed: {message}", err=True)
    raise typer.Exit(2)
