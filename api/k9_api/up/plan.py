"""What to run on this machine, as a value: settings, backends and Redis in, processes out.

Pure: nothing is started or asked here. Above all it decides who gets which secret: a cloud key is
in the environment of the worker that calls that cloud, and of no other process.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from k9_broker.adapters.embedded_redis import How, RedisServer, redacted
from k9_broker.backends import ORDER_STEP, Backend
from k9_broker.settings import Settings


class Role(StrEnum):
    """What a process is for; it decides when it starts and when it stops."""

    REDIS = "redis"
    WORKER = "worker"
    API = "api"
    FLOWER = "flower"


STARTS = ((Role.REDIS,), (Role.WORKER, Role.API), (Role.FLOWER,))
"""Groups in the order they start; a group starts when the one before it is ready.

Flower comes last because it asks the workers for their queues once, when it starts.
"""
STOPS = ((Role.API,), (Role.WORKER,), (Role.FLOWER,), (Role.REDIS,))
"""Groups in the order they stop: no new work, then the work, then those who watch it, then its memory."""


@dataclass(frozen=True, slots=True)
class HttpOk:
    """Ready when a GET of the URL is answered with 200."""

    url: str


@dataclass(frozen=True, slots=True)
class RedisAnswers:
    """Ready when the Redis takes commands."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BackendServed:
    """Ready when a live worker announces at least one model of the backend."""

    backend: str
    redis_url: str = field(repr=False)
    node: str | None = None
    """Which worker, where there may be two."""


@dataclass(frozen=True, slots=True)
class FlowerSees:
    """Ready when Flower knows the queues of every live worker: it asks them once, and they may be slow."""

    url: str
    password: str = field(repr=False)


Ready = HttpOk | RedisAnswers | BackendServed | FlowerSees


@dataclass(frozen=True, slots=True)
class Process:
    """One child: how to start it, how to see that it is ready, how long it may take to leave."""

    name: str
    role: Role
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    ready: Ready
    url: str = ""
    """Where it is, for people; without secrets."""
    leaves_within: float = 10.0
    """Seconds from SIGTERM until it is killed."""

    @property
    def is_needed(self) -> bool:
        """Whether nothing works without it; a worker or Flower may come later."""
        return self.role in (Role.REDIS, Role.API)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Ports that are free, chosen by the caller."""

    api_port: int
    flower_port: int


FLOWER_USER = "k9"
_SECRET = re.compile(r"(_KEYS?|_TOKEN|_SECRET|_PASSWORD)$")
_OURS = ("K9_BACKEND", "K9_BACKEND_ORDER", "K9_NODE", "K9_API_KEYS")
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_REDIS_NEEDS = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")


def plan(
    settings: Settings,
    backends: Sequence[Backend],
    redis: RedisServer,
    addresses: Addresses,
    environ: Mapping[str, str],
    flower_password: str,
) -> tuple[Process, ...]:
    """All processes, in the order in which they are shown."""
    clean = without_secrets(environ, backends) | own_settings(settings, redis.url)
    processes: list[Process] = []
    if redis.how is How.PRIVATE:
        processes.append(_redis(redis, environ))
    processes += workers(backends, clean, environ, redis.url, among=backends)
    processes.append(_api(settings, clean, environ, addresses.api_port))
    if settings.flower.enabled:
        processes.append(_flower(settings, clean, addresses.flower_port, flower_password))
    return tuple(processes)


def without_secrets(environ: Mapping[str, str], backends: Iterable[Backend]) -> dict[str, str]:
    """The environment without any key: neither those the backends name nor those that look like one."""
    named = {backend.api_key_env for backend in backends}
    return {
        name: value
        for name, value in environ.items()
        if name not in named
        and name not in _OURS
        and not _SECRET.search(name.upper())
        and not name.startswith("FLOWER_")
    }


def own_settings(settings: Settings, redis_url: str | None = None) -> dict[str, str]:
    """What this process decided and the children must not decide again."""
    return {
        **({"K9_REDIS_URL": redis_url} if redis_url else {}),
        "K9_STATE_DIR": str(settings.state_dir.absolute()),
        "K9_EMBED_MODEL": str(settings.model_folder.absolute()),
        "PYTHONUNBUFFERED": "1",
    }


def workers(
    backends: Sequence[Backend],
    clean: Mapping[str, str],
    environ: Mapping[str, str],
    redis_url: str,
    *,
    among: Sequence[Backend],
) -> list[Process]:
    """One worker process per backend; each with the one key its backend names.

    `among` are all backends in order of preference: a backend's place there is its place in routing.
    """
    return [
        worker(backend, among.index(backend) * ORDER_STEP, clean, environ, redis_url) for backend in backends
    ]


def worker(
    backend: Backend,
    order: int,
    clean: Mapping[str, str],
    environ: Mapping[str, str],
    redis_url: str,
    *,
    node: str | None = None,
) -> Process:
    """The worker process of a backend; `node` is its Celery name where it must differ from the usual."""
    own = ("--node", node) if node else ()
    return Process(
        name=f"worker-{backend.name}",
        role=Role.WORKER,
        argv=(sys.executable, "-m", "k9_workers", "--backend", backend.name, *own),
        env=worker_env(backend, order, clean, environ),
        ready=BackendServed(backend.name, redis_url, node),
        url=", ".join(redacted(one.url) for one in backend.servers) or "in process",
        leaves_within=30.0,  # it lets running jobs end for 20 s and hands the rest back
    )


def worker_env(
    backend: Backend, order: int, clean: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, str]:
    """The environment of a process for one backend: of all keys it has that backend's alone."""
    env = {
        # Many workers share the cores; BLAS threads that wait by spinning make all of them slow.
        **dict.fromkeys(_THREADS, "1"),
        **clean,
        "K9_BACKEND": backend.model_dump_json(),
        "K9_BACKEND_ORDER": str(order),
    }
    if backend.api_key_env and (key := environ.get(backend.api_key_env)):
        env[backend.api_key_env] = key
    return env


def _redis(redis: RedisServer, environ: Mapping[str, str]) -> Process:
    return Process(
        name="redis",
        role=Role.REDIS,
        argv=redis.argv,
        env={name: environ[name] for name in _REDIS_NEEDS if name in environ},
        ready=RedisAnswers(redis.url),
        url=f"127.0.0.1:{redis.port}",
    )


def _api(settings: Settings, clean: Mapping[str, str], environ: Mapping[str, str], port: int) -> Process:
    url = base_url(settings.api.host, port)
    env = {**clean, "K9_API__HOST": settings.api.host, "K9_API__PORT": str(port)}
    if keys := environ.get("K9_API_KEYS"):
        env["K9_API_KEYS"] = keys
    return Process(
        name="api",
        role=Role.API,
        argv=(sys.executable, "-m", "k9_api"),
        env=env,
        ready=HttpOk(f"{url}/readyz"),
        url=url,
        leaves_within=25.0,  # it gives running answers 20 s
    )


def _flower(settings: Settings, clean: Mapping[str, str], port: int, password: str) -> Process:
    url = base_url(settings.flower.host, port)
    conf = Path(__file__).with_name("flowerconfig.py")
    return Process(
        name="flower",
        role=Role.FLOWER,
        argv=(
            *(sys.executable, "-m", "celery", "-A", "k9_workers.app", "flower"),
            *(f"--address={settings.flower.host}", f"--port={port}", f"--conf={conf}", "--read-only"),
        ),
        env={**clean, "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{password}"},
        ready=FlowerSees(url, password),
        url=url,
        leaves_within=5.0,
    )


def base_url(host: str, port: int) -> str:
    """How a program on this machine reaches a server that listens on `host`."""
    here = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    if ":" in here and not here.startswith("["):
        here = f"[{here}]"
    return f"http://{here}:{port}"
