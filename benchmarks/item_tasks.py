"""The usual way to put embeddings on Celery: a stock app, one task per line, results in Redis.

The worker is `celery -A item_tasks worker --pool threads`; run as a program, `python item_tasks.py
COUNT` sends so many tasks, collects their results and says how many came back a second.
"""

from __future__ import annotations

import os
import sys
from time import perf_counter

import httpx
from celery import Celery

app = Celery("item_tasks", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
client = httpx.Client(base_url=os.environ["BENCH_URL"], timeout=60)


@app.task(name="bench.embed")
def embed(text: str) -> str:
    body = {"model": os.environ["BENCH_MODEL"], "input": text, "encoding_format": "base64"}
    reply = client.post("/v1/embeddings", json=body).raise_for_status()
    return str(reply.json()["data"][0]["embedding"])


def main(count: int) -> None:
    embed.delay("the worker is there").get(timeout=60)
    began = perf_counter()
    sent = [embed.delay(f"Ticket {n}: the queue was full, please try again.") for n in range(count)]
    vectors = [result.get(timeout=300) for result in sent]
    print(len(vectors) / (perf_counter() - began))


if __name__ == "__main__":
    main(int(sys.argv[1]))
