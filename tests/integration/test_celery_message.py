"""K-9's messages are Celery's: the installed Celery would have sent the same, and runs them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery

from k9_broker.adapters.celery_message import Subject, message
from k9_broker.requests import Operation, Priority
from stand import RedisProcess, wait_until

SUBJECT = Subject(Operation.CHAT, True, "acme", Priority.INTERACTIVE, 213)
MODEL = "llama3.1:8b"
QUEUE = "k9.local.gpu.interactive"

STOCK_WORKER = """
import os
from celery import Celery
import redis

app = Celery("stock", broker=os.environ["BROKER"])

@app.task(name="k9.chat", bind=True)
def chat(self, job_id, generation):
    redis.Redis.from_url(os.environ["BROKER"]).set("seen", f"{self.request.id} {job_id} {generation}")
"""


def filled(model: str = MODEL) -> str:
    """As the scripts fill it in."""
    template = message("job-1", 3, SUBJECT)
    return f"{template.of_model(model)}{QUEUE}{template.middle}7{template.tail}"


def ours() -> dict[str, object]:
    return json.loads(filled())  # type: ignore[no-any-return]


def test_it_equals_what_send_task_pushes(clean_redis: RedisProcess) -> None:
    app = Celery("stock", broker=clean_redis.url, set_as_current=False)
    app.send_task(
        "k9.chat", ("job-1", 3), task_id="job-1", queue=QUEUE, ignore_result=True,
        argsrepr=f"{MODEL} chat stream", kwargsrepr=SUBJECT.kwargs_repr,
    )  # fmt: skip
    stock = json.loads(clean_redis.client.lindex(QUEUE, 0))
    mine = ours()
    assert json.loads(base64.b64decode(mine.pop("body"))) == json.loads(base64.b64decode(stock.pop("body")))
    for one in (mine, stock):
        one["headers"].pop("origin")
        assert one["properties"].pop("delivery_tag")
        for leaked in ("reply_to", "argsrepr", "kwargsrepr"):  # send_task repeats its options here
            one["properties"].pop(leaked, None)
    assert mine == stock


def test_its_tag_names_the_job_the_generation_and_the_place() -> None:
    assert ours()["properties"]["delivery_tag"] == "job-1:3:7"  # type: ignore[index]


@pytest.mark.parametrize("model", ["a/b", 'a "b"', "a\\b", "模型 🦙", "@K9-QUEUE@", "\n"])
def test_it_names_the_model_whatever_it_is_called(model: str) -> None:
    message = json.loads(filled(model))
    assert message["headers"]["argsrepr"] == f"{model} chat stream"
    assert message["properties"]["delivery_info"]["routing_key"] == QUEUE


def test_what_operators_see_of_it() -> None:
    headers = ours()["headers"]
    assert headers["argsrepr"] == "llama3.1:8b chat stream"  # type: ignore[index]
    assert headers["kwargsrepr"] == "tenant=acme priority=interactive in~213tok"  # type: ignore[index]


@pytest.mark.timeout(60)
def test_a_stock_worker_runs_it(clean_redis: RedisProcess, tmp_path: Path) -> None:
    (tmp_path / "stock.py").write_text(STOCK_WORKER)
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "stock", "worker", "-P", "solo", "-Q", QUEUE, "-l", "ERROR"],
        cwd=tmp_path,
        env={**os.environ, "BROKER": clean_redis.url},
    )
    try:
        clean_redis.client.lpush(QUEUE, filled())
        assert wait_until(lambda: clean_redis.client.get("seen"), "the task ran", 40) == b"job-1 job-1 3"
        wait_until(lambda: not clean_redis.client.hlen("unacked"), "the message was acknowledged")
    finally:
        worker.terminate()
        worker.wait(20)
