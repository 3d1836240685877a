"""`k9 jobs`: look at one job, or cancel it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from k9_api.cli.where import Url, answer, client, http_get

app = typer.Typer(help="Look at one job, or cancel it.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The job's id, as in the header X-K9-Job.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the job as JSON, with its result.")]


@app.command()
def show(id: Id, url: Url = None, as_json: AsJson = False) -> None:
    """Show where a job ran, why, and what became of it."""
    _print(http_get(url, f"/v1/jobs/{id}"), as_json)


@app.command()
def cancel(id: Id, url: Url = None, as_json: AsJson = False) -> None:
    """Cancel a job: a queued one never runs, a running one stops. One that has ended stays as it is."""
    with client(url) as api:
        _print(answer(api.delete(f"/v1/jobs/{id}")), as_json)


def _print(job: dict[str, Any], as_json: bool) -> None:
    from rich.console import Console

    console = Console()
    if as_json:
        console.print_json(data=job)
        return
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for name in (
        "id",
        "state",
        "endpoint",
        "model",
        "priority",
        "backend",
        "kind",
        "reason",
        "worker",
        "generation",
    ):
        if job.get(name) is not None:
            table.add_row(name, str(job[name]))
    if job.get("position") is not None:
        table.add_row("position", _position(job))
    if job.get("queue_seconds") is not None:
        table.add_row("waited", f"{job['queue_seconds']:.3f} s")
    if job.get("ended_at") and job.get("started_at"):
        table.add_row("ran", f"{job['ended_at'] - job['started_at']:.3f} s")
    usage = job["usage"]
    table.add_row("tokens", f"{usage['prompt_tokens']} in, {usage['completion_tokens']} out")
    for skipped in job.get("skipped") or ():
        table.add_row("skipped", skipped)
    if error := job.get("error"):
        table.add_row("error", f"{error['code']}: {error['message']}")
    console.print(table)


def _position(job: dict[str, Any]) -> str:
    """Its place in the queue, and how long half and nine tenths of such waits are at most."""
    wait = job.get("estimated_wait_seconds")
    begins = f", begins in {wait['p50']:.1f} s (p90 {wait['p90']:.1f} s)" if wait else ""
    return f"{job['position']}{begins}"
