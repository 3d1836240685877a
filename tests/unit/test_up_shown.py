"""What `k9 up` and its Flower show to people and leave for scripts."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from k9_api.up import flowerconfig, state, table
from k9_api.up.child import Child
from k9_api.up.plan import Addresses, plan
from k9_broker.adapters.embedded_redis import How, RedisServer
from k9_broker.adapters.redis_binary import Binary
from k9_broker.backends import Backend
from k9_broker.errors import ConfigurationError
from k9_broker.requests import Kind, Operation, Priority
from k9_broker.settings import Settings
from k9_broker.snapshot import BackendView, Snapshot

SETTINGS = Settings(state_dir=Path("/s"))
BACKENDS = tuple(Backend(name=name, dialect="fake", url="http://x") for name in ("ollama", "other"))
PRIVATE = RedisServer(
    "redis://:word@127.0.0.1:17000/0",
    How.PRIVATE,
    Binary(Path("/x/valkey-server"), "valkey", (9, 1, 2)),
    17000,
    Path("/s/redis/redis.conf"),
)
PASSWORD = "secret-of-this-flower"


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("kwargs", "tenant=acme in=213tok max=512"),
        ("args", "llama3.2 chat stream"),
        ("result", "{'backend': 'ollama', 'tokens': 12, 'ms': 80}"),
    ],
)
def test_flower_shows_what_the_producer_says(field: str, shown: str) -> None:
    task = SimpleNamespace(args=None, kwargs=None, result=None)
    setattr(task, field, shown)
    assert getattr(flowerconfig.format_task(task), field) == shown


def test_flower_never_shows_a_prompt() -> None:
    task = SimpleNamespace(
        args="({'messages': [{'role': 'user', 'content': 'my diagnosis'}]},)",
        kwargs="{'prompt': 'my diagnosis'}",
        result="x" * 500,
    )
    shown = flowerconfig.format_task(task)
    assert (shown.args, shown.kwargs) == ("(hidden)", "(hidden)")
    assert len(shown.result) == 120


def view(name: str, models: set[str], *operations: Operation, order: int = 0) -> BackendView:
    return BackendView(
        name=name,
        kind=Kind.LOCAL,
        dialect="ollama",
        models=frozenset(models),
        operations=frozenset(operations),
        order=order,
        slots=1,
        max_waiting=dict.fromkeys(Priority, 1),
        workers=1,
    )


def test_the_table_says_what_is_served_and_what_to_try(tmp_path: Path) -> None:
    fleet = Snapshot(
        (
            view("ollama", {"llama3.2:3b", "qwen3:4b"}, Operation.CHAT, Operation.EMBEDDINGS),
            view("embedded", {"all-minilm-l6-v2"}, Operation.EMBEDDINGS, order=1),
        )
    )
    processes = plan(SETTINGS, BACKENDS, PRIVATE, Addresses(9000, 5555), {}, PASSWORD)
    children = [Child(process, tmp_path, print) for process in processes]
    late = [child for child in children if child.process.name == "worker-other"]
    up = state.with_flower(state.Up(api="http://127.0.0.1:9000", redis=PRIVATE.url), "http://f", PASSWORD)
    steps = table.next_steps(up, fleet, tmp_path)
    out = io.StringIO()
    rows = table.rows(children, late, PRIVATE, fleet)
    table.show(Console(file=out, width=80), rows, ["a [note]"], steps)
    text = out.getvalue()
    for part in ("private, valkey 9.1.2", "llama3.2:3b, qwen3:4b", "not ready yet", "• a [note]"):
        assert part in text
    for _, how in steps:
        assert f"  {how}\n" in text, "what is to be copied is never cut or wrapped"
    assert "secret" not in text
    assert "word" not in text.replace("password", "")
    said = dict(steps)
    body = json.loads(said["chat"].split(" -d ")[1].strip("'"))
    assert body["model"] == "llama3.2:3b"
    assert '"model": "all-minilm-l6-v2"' in said["embed"]
    assert "--url http://127.0.0.1:9000" in said["embed a file"]


def test_the_table_without_a_chat_model_offers_no_chat(tmp_path: Path) -> None:
    fleet = Snapshot((view("embedded", {"all-minilm-l6-v2"}, Operation.EMBEDDINGS),))
    steps = dict(table.next_steps(state.Up(api="http://127.0.0.1:8765", redis="redis://x"), fleet, tmp_path))
    assert "chat" not in steps
    assert steps["embed a file"] == "k9 embed lines.txt -o vectors.jsonl"


@pytest.mark.parametrize("keyed", [True, False])
def test_what_is_to_be_copied_has_the_key_where_one_is_asked_for(tmp_path: Path, keyed: bool) -> None:
    fleet = Snapshot((view("ollama", {"llama3.2:3b", "bge"}, Operation.CHAT, Operation.EMBEDDINGS),))
    up = state.Up(api="http://127.0.0.1:8765", redis="redis://x")
    steps = dict(table.next_steps(up, fleet, tmp_path, keyed=keyed))
    for name in ("chat", "embed", "see the queues"):
        assert ('-H "authorization: Bearer $K9_API_KEY" ' in steps[name]) is keyed


def test_the_state_file_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with state.alone(folder):
        state.write(folder, state.Up(api="http://a", redis="redis://:word@x"))
        assert stat.S_IMODE((folder / "up.json").stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert json.loads((folder / "up.json").read_text())["api"] == "http://a"
        with pytest.raises(ConfigurationError, match=r"already runs on .*http://a"), state.alone(folder):
            pass
    assert not (folder / "up.json").exists()


def test_the_password_of_flower_is_made_once(tmp_path: Path) -> None:
    password = state.flower_password(tmp_path)
    assert len(password) >= 24
    assert state.flower_password(tmp_path) == password
    assert stat.S_IMODE((tmp_path / "flower-password").stat().st_mode) == 0o600
