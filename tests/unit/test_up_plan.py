"""What `k9 up` would run, as a value: which process, in which order, and above all with which secrets."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_api.up.child import Backoff
from k9_api.up.plan import (
    STARTS,
    STOPS,
    Addresses,
    BackendServed,
    FlowerSees,
    HttpOk,
    Process,
    RedisAnswers,
    Role,
    base_url,
    own_settings,
    plan,
    without_secrets,
    workers,
)
from k9_api.up.run import choose_ports
from k9_broker.adapters.embedded_redis import How, RedisServer
from k9_broker.adapters.redis_binary import Binary
from k9_broker.backends import Backend
from k9_broker.errors import ConfigurationError
from k9_broker.requests import Kind
from k9_broker.settings import ApiSettings, FlowerSettings, Settings

SECRETS = {
    "OPENAI_API_KEY": "secret-openai",
    "ANTHROPIC_API_KEY": "secret-anthropic",
    "AZURE_OPENAI_API_KEY": "secret-azure",
    "OTHER_CLOUD": "secret-other",
    "HF_TOKEN": "secret-hf",
    "AWS_SECRET_ACCESS_KEY": "secret-aws",
    "K9_API_KEYS": "acme:secret-tenant",
    "FLOWER_BASIC_AUTH": "who:secret-flower",
}
ENVIRON = {"PATH": "/bin", "HOME": "/home/x", "K9_LOG_LEVEL": "DEBUG", "K9_BACKEND": "stale", **SECRETS}

LOCAL = Backend(name="ollama", dialect="ollama", url="http://127.0.0.1:11434")
OPENAI = Backend(
    name="openai",
    dialect="openai-compatible",
    kind=Kind.CLOUD,
    url="https://api.openai.com",
    api_key_env="OPENAI_API_KEY",
)
OTHER = OPENAI.model_copy(update={"name": "other", "api_key_env": "OTHER_CLOUD"})
BACKENDS = (LOCAL, OPENAI, OTHER)
PRIVATE = RedisServer(
    "redis://:word@127.0.0.1:17000/0",
    How.PRIVATE,
    Binary(Path("/x/valkey-server"), "valkey", (9, 1, 2)),
    17000,
    Path("/s/redis/redis.conf"),
)
PASSWORD = "secret-of-this-flower"


def planned(settings: Settings | None = None, redis: RedisServer = PRIVATE) -> dict[str, Process]:
    settings = settings or Settings(state_dir=Path("/s"))
    processes = plan(settings, BACKENDS, redis, Addresses(8765, 5555), ENVIRON, PASSWORD)
    return {process.name: process for process in processes}


def secrets_in(process: Process) -> set[str]:
    return {value for value in process.env.values() if "secret" in value}


def test_a_key_is_in_the_worker_that_needs_it_and_nowhere_else() -> None:
    assert {name: secrets_in(process) for name, process in planned().items()} == {
        "redis": set(),
        "worker-ollama": set(),
        "worker-openai": {"secret-openai"},
        "worker-other": {"secret-other"},
        "api": {"acme:secret-tenant"},
        "flower": {f"k9:{PASSWORD}"},
    }


def test_no_secret_is_in_a_command_line_an_address_or_a_repr() -> None:
    for process in planned().values():
        for shown in (" ".join(process.argv), process.url, repr(process)):
            assert "secret" not in shown
            assert ":word@" not in shown


@given(st.dictionaries(st.text(min_size=1), st.text()), st.text(min_size=1))
def test_whatever_a_backend_names_as_its_key_is_removed(environ: dict[str, str], name: str) -> None:
    backend = OPENAI.model_copy(update={"api_key_env": name})
    assert name not in without_secrets({**environ, name: "key"}, [backend])


def test_every_process_is_started_and_stopped_once() -> None:
    for order in (STARTS, STOPS):
        roles = [role for group in order for role in group]
        assert sorted(roles) == sorted(Role)
    flat = [role for group in STOPS for role in group]
    assert flat == [Role.API, Role.WORKER, Role.FLOWER, Role.REDIS]
    assert STARTS[0] == (Role.REDIS,)


def test_each_process_says_how_it_is_ready() -> None:
    processes = planned()
    assert processes["redis"].ready == RedisAnswers(PRIVATE.url)
    assert processes["api"].ready == HttpOk("http://127.0.0.1:8765/readyz")
    assert processes["flower"].ready == FlowerSees("http://127.0.0.1:5555", PASSWORD)
    assert processes["worker-openai"].ready == BackendServed("openai", PRIVATE.url)
    assert {name for name, process in processes.items() if process.is_needed} == {"redis", "api"}


def test_a_worker_gets_its_backend_and_its_place() -> None:
    worker = planned()["worker-openai"]
    assert worker.argv[1:] == ("-m", "k9_workers", "--backend", "openai")
    assert Backend.model_validate_json(worker.env["K9_BACKEND"]) == OPENAI
    assert worker.env["K9_BACKEND_ORDER"] == "1000"
    assert worker.env["K9_REDIS_URL"] == PRIVATE.url
    assert worker.env["OPENBLAS_NUM_THREADS"] == worker.env["OMP_NUM_THREADS"] == "1"
    assert worker.env["K9_LOG_LEVEL"] == "DEBUG"
    for name, process in planned().items():
        if not name.startswith("worker"):
            assert "K9_BACKEND" not in process.env


def test_a_worker_alone_keeps_its_place_among_all() -> None:
    (worker,) = workers([OTHER], {}, {}, "redis://x", among=BACKENDS)
    assert worker.env["K9_BACKEND_ORDER"] == "2000"


def test_a_backend_of_several_instances_shows_them_all() -> None:
    several = Backend(
        name="s", dialect="vllm", instances=({"url": "http://u:word@one:1"}, {"url": "http://two"})
    )
    (process,) = workers([several], {}, {}, "redis://x", among=[several])
    assert "http://two" in process.url
    assert "one:1" in process.url
    assert "word" not in process.url


def test_threads_the_operator_chose_are_kept() -> None:
    (worker,) = workers([LOCAL], {"OMP_NUM_THREADS": "2"}, {}, "redis://x", among=BACKENDS)
    assert (worker.env["OMP_NUM_THREADS"], worker.env["OPENBLAS_NUM_THREADS"]) == ("2", "1")


def test_children_find_the_same_state_folder_and_model() -> None:
    settings = Settings(state_dir=Path("/s"), embed_model=Path("/m"))
    own = own_settings(settings, "redis://x")
    assert (own["K9_STATE_DIR"], own["K9_EMBED_MODEL"]) == ("/s", "/m")


@pytest.mark.parametrize("how", [How.GIVEN, How.RUNNING])
def test_a_redis_that_is_not_ours_is_not_run(how: How) -> None:
    processes = planned(redis=RedisServer("redis://:word@cache:6379/0", how))
    assert "redis" not in processes
    assert processes["api"].env["K9_REDIS_URL"] == "redis://:word@cache:6379/0"


def test_flower_is_locked_read_only_and_configured_by_us_alone() -> None:
    flower = planned()["flower"]
    assert "--read-only" in flower.argv
    assert "--address=127.0.0.1" in flower.argv
    (conf,) = [word.partition("=")[2] for word in flower.argv if word.startswith("--conf=")]
    assert Path(conf).is_file()
    assert {name for name in flower.env if name.startswith("FLOWER_")} == {"FLOWER_BASIC_AUTH"}
    off = Settings(state_dir=Path("/s"), flower=FlowerSettings(enabled=False))
    assert "flower" not in planned(off)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("::1", "http://[::1]:1"),
        ("box", "http://box:1"),
    ],
)
def test_an_address_to_listen_on_becomes_one_to_call(host: str, url: str) -> None:
    assert base_url(host, 1) == url


def test_a_taken_port_is_replaced_and_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings(api=ApiSettings(port=port), flower=FlowerSettings(port=port))
        addresses, notes = choose_ports(settings)
    assert len({port, addresses.api_port, addresses.flower_port}) == 3
    assert [f"Port {port} is taken" in note for note in notes] == [True, True]
    assert choose_ports(Settings(api=ApiSettings(port=0), flower=FlowerSettings(port=0)))[1] == []
    with pytest.raises(ConfigurationError, match="not an address of this machine"):
        choose_ports(Settings(api=ApiSettings(host="203.0.113.1")))


def test_backoff_doubles_to_its_end_and_forgets_after_a_steady_run() -> None:
    backoff = Backoff()
    delays = [0.0]
    for _ in range(7):
        delays.append(backoff.after(delays[-1], ran=0.1))
    assert delays[1:] == [0.5, 1, 2, 4, 8, 10, 10]
    assert backoff.after(10, ran=31) == 0.5
