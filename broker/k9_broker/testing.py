"""For tests: a fake backend as a process of its own, started and steered with the standard library."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

# A proxy in the environment must not stand between a test and its own machine.
_open = build_opener(ProxyHandler({})).open


class FakeServer:
    """`k9 fake` in a subprocess, on a free port of loopback.

        with FakeServer(first_token_ms=20) as fake:
            fake.behave(fail_next=1, error_status=503)

    The keyword arguments are fields of `k9_broker.fake.faults.Behaviour`. The process ends with
    the `with` block, and also when this process dies.
    """

    def __init__(self, *, port: int = 0, **behaviour: Any) -> None:
        self._initial = behaviour
        command = [sys.executable, "-m", "k9_broker.fake", "--until-eof", "--port", str(port)]
        command += ["--behaviour", json.dumps(behaviour)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError("The fake did not start; its message is on standard error.")
        self.url: str = json.loads(line)["url"]
        """Without `/v1`: the base URL of Ollama, Anthropic, Azure (as its endpoint), TGI and TEI;
        OpenAI's, vLLM's and llama.cpp's is this and `/v1`."""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self._process.pid

    def behave(self, **changes: Any) -> dict[str, Any]:
        """Change these fields, keep the others; returns all. Raises `ValueError` for a bad one."""
        return dict(self._ask("PATCH", "behaviour", changes))

    def reset(self) -> None:
        """Behave as at the start and forget what was seen."""
        self._ask("PUT", "behaviour", self._initial)
        self._ask("DELETE", "stats")

    def stats(self) -> dict[str, Any]:
        """Counters: `requests`, `inferences`, `inputs`, `prompt_tokens`, `generated_tokens`, `errors`,
        `rate_limited`, `unauthorized`, `closed_reused`, `active`, `waiting`, `max_active`,
        `disconnects`, and `paths` with the number of requests to each."""
        return dict(self._ask("GET", "stats"))

    def requests(self) -> list[dict[str, Any]]:
        """The last hundred requests, oldest first: `method`, `path`, `query`, `headers`, `body`.

        A header that bore a key is there, with `***` as its value.
        """
        return list(self._ask("GET", "requests"))

    def wait(self, seen: Callable[[dict[str, Any]], bool], *, timeout: float = 10.0) -> dict[str, Any]:
        """The stats as soon as `seen` is true of them. Raises `TimeoutError` after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not seen(stats := self.stats()):
            if time.monotonic() > end:
                raise TimeoutError(f"It did not come to pass within {timeout} s: {stats}")
            time.sleep(0.005)
        return stats

    def stop(self) -> int:
        """End the process and return its exit code; does nothing the second time."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return self._process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ask(self, method: str, what: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(  # noqa: S310 - our own http URL
            f"{self.url}/fake/{what}", data, {"content-type": "application/json"}, method=method
        )
        try:
            with _open(request, timeout=30) as answer:
                return json.load(answer)
        except HTTPError as error:
            with error:
                raise ValueError(json.load(error)["error"]) from None
