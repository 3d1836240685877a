"""A worker that cannot serve its backend says so and ends; it never takes a message it cannot run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from stand import RedisProcess

FAKE = {"name": "fake", "dialect": "fake", "url": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"K9_BACKEND": json.dumps({**FAKE, "api_key_env": "NO_SUCH_KEY"})}, "NO_SUCH_KEY, which is not set"),
        ({"K9_BACKEND": json.dumps({**FAKE, "dialect": "nonsense"})}, "no dialect 'nonsense'"),
        ({"K9_BACKEND": "unheard-of"}, "no backend 'unheard-of'"),
        ({"K9_BACKEND": json.dumps(FAKE), "K9_REDIS_URL": ""}, "needs Redis"),
    ],
    ids=["no key", "no dialect", "no backend", "no redis"],
)
def test_it_ends_with_one_line(redis_server: RedisProcess, environment: dict[str, str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "k9_workers"],
        env={**os.environ, "K9_REDIS_URL": redis_server.url, **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
