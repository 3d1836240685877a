"""`k9 route`: where a prompt would go, and why."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from k9_api.cli.decided import Said, comparison, show, usd
from k9_api.cli.where import AsJson, Url, answer, client
from k9_broker.errors import BadRequest
from k9_broker.requests import Kind, Privacy, TaskType

Prompt = Annotated[str | None, typer.Argument(help="What to ask; `-`, or nothing, reads it from stdin.")]
Model = Annotated[str, typer.Option(help="The model, an alias, `auto` or `auto:STRATEGY`.")]
System = Annotated[str | None, typer.Option(help="A system message before it.")]
Strategy = Annotated[str | None, typer.Option(help="The strategy to decide by.")]
Type = Annotated[TaskType | None, typer.Option("--task-type", help="What kind of work it is.")]
Where = Annotated[Privacy | None, typer.Option("--privacy", help="Where it may go.")]
Only = Annotated[Kind | None, typer.Option("--kind", help="The only kind of backend it may go to.")]


def route(
    prompt: Prompt = None,
    model: Model = "auto",
    system: System = None,
    strategy: Strategy = None,
    task_type: Type = None,
    privacy: Where = None,
    kind: Only = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show where a prompt would go, and why. Nothing is sent to a model."""
    messages = [{"role": "user", "content": _text(prompt)}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    controls = {"strategy": strategy, "task_type": task_type, "privacy": privacy, "kind": kind}
    body = {
        "model": model,
        "messages": messages,
        "k9": {name: value for name, value in controls.items() if value is not None},
    }
    with client(url) as api:
        said: dict[str, Any] = answer(api.post("/v1/route", json=body))
    show(said, _ending, as_json=as_json)


def _text(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise BadRequest('There is no prompt. Write k9 route "PROMPT", or `-` to type it.')
    text = sys.stdin.read()
    if not text.strip():
        raise BadRequest("There is no prompt: nothing came from stdin.")
    return text


def _ending(said: Said) -> list[tuple[str, str]]:
    if (choice := said["choice"]) is None:
        error = said["refusal"]
        return [("refused", f"{error['message']} ({error['code']})")]
    lines = [
        ("goes to", f"{choice['backend']} ({choice['kind']}), {choice['model']}"),
        ("because", choice["reason"]),
        ("expected", f"{usd(choice['cost_usd'])}, {choice['seconds']:.1f} s"),
    ]
    if cloud := comparison(said):
        lines.append(("in the cloud", cloud))
    return lines
