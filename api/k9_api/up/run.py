"""The walk of `k9 up`: find, plan, start, show, wait, stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from k9_api.up import state, table
from k9_api.up.plan import Addresses, Process, Role, base_url, plan
from k9_api.up.ready import Probe
from k9_api.up.reload import Configured, Reloaded, Reloader, Reread
from k9_api.up.supervisor import Stopped, Supervisor
from k9_broker.adapters.embedded_redis import How, RedisServer, neighbour
from k9_broker.errors import ConfigurationError
from k9_broker.settings import Settings, config_file

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


async def run_everything(
    now: Configured, redis: RedisServer, environ: Mapping[str, str], console: Console, reread: Reread
) -> None:
    """Run until asked to stop; reload when asked to. Raises `ConfigurationError` and `DidNotStart`."""
    settings, found = now.settings, now.found
    notes = [*found.notes, *_about(settings, redis)]
    addresses, moved = choose_ports(settings)
    notes += moved
    password = state.flower_password(settings.state_dir)
    processes = plan(settings, found.backends, redis, addresses, environ, password)
    async with Probe(redis.url) as probe:
        supervisor = Supervisor(
            processes, settings.state_dir / "logs", probe, lambda line: _say(console, line), reloads=True
        )
        try:
            async with supervisor.running() as late:
                fleet = await probe.fleet()
                up = state.Up(
                    api=base_url(settings.api.host, addresses.api_port),
                    redis=redis.url,
                    backends=tuple(backend.name for backend in found.backends),
                    not_ready=tuple(child.process.name for child in late),
                    config=str(file.absolute()) if (file := config_file()) else None,
                )
                if settings.flower.enabled:
                    up = state.with_flower(
                        up, base_url(settings.flower.host, addresses.flower_port), password
                    )
                lines = table.rows(supervisor.children, late, redis, fleet)
                steps = table.next_steps(up, fleet, settings.state_dir, keyed=bool(settings.keys))
                table.show(console, lines, notes, steps)
                reloader = Reloader(supervisor, now, reread, environ, redis.url)
                await _keep_going(supervisor, reloader, probe, console, up, settings.state_dir)
                state.remove(settings.state_dir)
                _say(console, "Stopping; Ctrl-C again stops at once.")
        except Stopped:
            pass
    _say(console, "Everything has stopped.")


async def _keep_going(
    supervisor: Supervisor,
    reloader: Reloader,
    probe: Probe,
    console: Console,
    up: state.Up | None = None,
    state_dir: Path | None = None,
) -> None:
    """Reload whenever asked to, until asked to stop.

    With `up`, the file in `state_dir` says the truth about who runs as which process all the while.
    """
    written: state.Up | None = None
    stopped = asyncio.create_task(supervisor.stop.wait())
    try:
        while not stopped.done():
            if supervisor.reload.is_set():
                supervisor.reload.clear()
                reloading = asyncio.create_task(_reload(supervisor, reloader, probe, console))
                await asyncio.wait([reloading, stopped], return_when=asyncio.FIRST_COMPLETED)
                if not reloading.done():
                    reloading.cancel()
                    await asyncio.wait([reloading])
                    return
                done = reloading.result()
                up = up and replace(
                    up,
                    backends=done.backends,
                    reloads=done.number,
                    told=done.told,
                    refused=done.refused,
                    complete=done.complete,
                )
            if up and state_dir and written != (said := replace(up, pids=_pids(supervisor))):
                state.write(state_dir, said)
                written = said
            asked = asyncio.create_task(supervisor.reload.wait())
            await asyncio.wait([asked, stopped], timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
    finally:
        stopped.cancel()


async def _reload(supervisor: Supervisor, reloader: Reloader, probe: Probe, console: Console) -> Reloaded:
    done = await reloader.reload()
    if done.refused:
        _say(console, f"The configuration was not read again; the old one stays in force. {done.refused}")
    for line in done.told:
        _say(console, f"Reloaded; {line}")
    for child in supervisor.children:
        if child.process.role is Role.FLOWER:  # it asks the workers that it has not met yet
            await probe.ask(child.process.ready)
    return done


def _pids(supervisor: Supervisor) -> dict[str, int | None]:
    return {child.process.name: child.pid for child in supervisor.children}


async def run_workers(
    processes: Sequence[Process],
    logs: Path,
    redis_url: str,
    console: Console,
    now: Configured,
    environ: Mapping[str, str],
    reread: Reread,
) -> None:
    """Only these workers, for a Redis that runs elsewhere."""
    async with Probe(redis_url) as probe:
        supervisor = Supervisor(processes, logs, probe, lambda line: _say(console, line), reloads=True)
        try:
            async with supervisor.running() as late:
                for child in supervisor.children:
                    said = f"not ready yet, see {child.log}" if child in late else "ready"
                    _say(console, f"{child.process.name}: {said}")
                reloader = Reloader(supervisor, now, reread, environ, redis_url)
                await _keep_going(supervisor, reloader, probe, console)
        except Stopped:
            pass


def choose_ports(settings: Settings) -> tuple[Addresses, list[str]]:
    """The ports of the settings where they are free, others where not, and a note on each of those."""
    api, api_note = _port(settings.api.host, settings.api.port, "the API", ())
    flower, flower_note = settings.flower.port, None
    if settings.flower.enabled:
        flower, flower_note = _port(settings.flower.host, settings.flower.port, "Flower", (api,))
    return Addresses(api, flower), [note for note in (api_note, flower_note) if note]


def _port(host: str, wanted: int, who: str, used: Sequence[int]) -> tuple[int, str | None]:
    if wanted and wanted not in used and _bound(host, wanted):
        return wanted, None
    free = _bound(host, 0)
    if not free:
        raise ConfigurationError(f"On {host} {who} cannot listen: it is not an address of this machine.")
    return free, f"Port {wanted} is taken; {who} listens on {free} instead." if wanted else None


def _bound(host: str, port: int) -> int | None:
    """The port, if a server could listen there now (0: any port)."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError:
        return None


def _about(settings: Settings, redis: RedisServer) -> list[str]:
    notes = []
    if redis.how is How.PRIVATE and (note := neighbour()):
        notes.append(note)
    if settings.api.host not in _LOOPBACK and not settings.keys:
        notes.append(
            f"The API listens on {settings.api.host} and asks for no key: whoever reaches it may use every"
            " backend. Set K9_API_KEYS=TENANT:KEY."
        )
    return notes


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)
