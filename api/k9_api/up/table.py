"""What a person sees when everything runs: what is where, what was found, what to try next."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from k9_api.up.child import Child
from k9_api.up.plan import FLOWER_USER, BackendServed, Role
from k9_api.up.state import FILE, Up
from k9_broker.adapters.embedded_redis import How, RedisServer, redacted
from k9_broker.requests import Kind, Operation
from k9_broker.settings import ApiSettings
from k9_broker.snapshot import BackendView, Snapshot


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    where: str
    how: str


def rows(
    children: Sequence[Child], late: Sequence[Child], redis: RedisServer, fleet: Snapshot
) -> tuple[Row, ...]:
    """One row per process, and one for a Redis that is not ours."""
    views = {view.name: view for view in fleet.backends}
    lines = []
    if redis.how is not How.PRIVATE:
        lines.append(
            Row("redis", redacted(redis.url), "the one you named" if redis.how is How.GIVEN else "runs")
        )
    for child in children:
        process = child.process
        how = "ready"
        if process.role is Role.REDIS:
            how = f"private, {redis.binary}"
        if isinstance(process.ready, BackendServed) and (view := views.get(process.ready.backend)):
            how = _served(view)
        if child in late:
            how = f"not ready yet, see {child.log}"
            if isinstance(process.ready, BackendServed) and (view := views.get(process.ready.backend)):
                how = f"{view.dialect} tells no model yet, see {child.log}" if view.workers else how
        lines.append(Row(process.name, process.url, how))
    return tuple(lines)


def _served(view: BackendView) -> str:
    models = sorted(view.models)
    shown = ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")
    where = "cloud: " if view.kind is Kind.CLOUD else ""
    return f"{where}{shown}"


def next_steps(
    up: Up, fleet: Snapshot, state_dir: Path, *, keyed: bool = False
) -> tuple[tuple[str, str], ...]:
    """Pairs of what and how, made from what is really served; `keyed` when the API asks for a key."""
    steps: list[tuple[str, str]] = []
    curl = "curl " + ('-H "authorization: Bearer $K9_API_KEY" ' if keyed else "")
    if model := _first(fleet, Operation.CHAT):
        body = {"model": model, "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
        steps.append(("chat", curl + _post(up.api, "/v1/chat/completions", body)))
    if model := _first(fleet, Operation.EMBEDDINGS):
        steps.append(("embed", curl + _post(up.api, "/v1/embeddings", {"model": model, "input": "a dog"})))
        usual = up.api == f"http://127.0.0.1:{ApiSettings().port}"
        where = "" if usual else f" --url {up.api}"
        steps.append(("embed a file", f"k9 embed lines.txt -o vectors.jsonl{where}"))
    steps.append(("see the queues", f"{curl}{up.api}/v1/queues"))
    steps.append(("API reference", f"{up.api}/docs"))
    if up.flower:
        password = shlex.quote(str(state_dir / "flower-password"))
        steps.append(("watch the work", f"{up.flower}  (user {FLOWER_USER}, password: cat {password})"))
    steps.append(("addresses for scripts", str(state_dir / FILE)))
    return tuple(steps)


_EMBEDS = re.compile(r"embed|minilm|bge|gte|\be5\b", re.IGNORECASE)


def _first(fleet: Snapshot, operation: Operation) -> str | None:
    """A model to try, by its name: backends do not tell which of their models embed."""
    for view in fleet.backends:
        if view.workers and operation in view.operations:
            for model in sorted(view.models):
                if bool(_EMBEDS.search(model)) is (operation is Operation.EMBEDDINGS):
                    return model
    return None


def _post(api: str, path: str, body: Mapping[str, object]) -> str:
    return f"{api}{path} -H 'content-type: application/json' -d {shlex.quote(json.dumps(body))}"


def show(
    console: Console, lines: Sequence[Row], notes: Sequence[str], steps: Sequence[tuple[str, str]]
) -> None:
    """Print it. What is to be copied stands on a line of its own, however narrow the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("process", no_wrap=True)
    table.add_column("where", overflow="fold")
    table.add_column("serves", overflow="fold")
    for row in lines:
        table.add_row(Text(row.what), Text(row.where), Text(row.how))
    console.print(Text("K-9 is up.\n", style="bold"))
    console.print(table, "", soft_wrap=False)
    for note in notes:
        console.print(Text(f"• {note}"), soft_wrap=False)
    for what, how in steps:
        console.print(Text.assemble((f"\n{what}:\n", "bold"), f"  {how}"), soft_wrap=True)
    console.print(Text("\nCtrl-C stops everything in order; again: at once.", style="dim"))
