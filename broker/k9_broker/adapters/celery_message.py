"""The Celery message of a job, built with Celery's and kombu's public calls only.

It is the message `send_task` would have pushed, byte for byte but for the ids (a test compares them
with the installed Celery): message protocol 2, JSON, in kombu's envelope for virtual transports. It
carries the job's id and generation, never its content; what Flower shows is in `argsrepr` and
`kwargsrepr`. The model, the queue and the sequence number are left open: the admission script fills
them in when it has taken a candidate.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from typing import Any

from celery import Celery
from kombu.serialization import dumps
from kombu.utils.json import dumps as json_dumps

from k9_broker.naming import task_name
from k9_broker.requests import Operation, Priority

_MODEL, _QUEUE, _SEQUENCE = "@K9-MODEL@", "@K9-QUEUE@", "@K9-SEQUENCE@"


@dataclass(frozen=True, slots=True)
class MessageTemplate:
    """A message in four parts: `start + model + head + queue + middle + sequence + tail`."""

    start: str
    head: str
    middle: str
    tail: str

    def of_model(self, model: str) -> str:
        """Everything up to the queue."""
        return f"{self.start}{json_dumps(model)[1:-1]}{self.head}"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a message says of its job to operators, beside its id."""

    operation: Operation
    stream: bool
    tenant: str
    priority: Priority
    tokens_estimate: int

    @property
    def args_repr(self) -> str:
        return f"{_MODEL} {self.operation}{' stream' if self.stream else ''}"

    @property
    def kwargs_repr(self) -> str:
        return f"tenant={self.tenant} priority={self.priority} in~{self.tokens_estimate}tok"


@cache
def _producer() -> Celery:
    """A Celery app that only knows how messages look; it never connects."""
    app = Celery("k9", set_as_current=False, broker="memory://")
    app.conf.update(task_serializer="json", accept_content=["json"], task_ignore_result=True)
    return app


def message(job_id: str, generation: int, subject: Subject) -> MessageTemplate:
    """The message that wakes a worker for one generation of a job.

    The delivery tag `<job>:<generation>:<sequence>` is unique, and tells the reaper how far the
    queue has been read.
    """
    task = _producer().amqp.as_task_v2(
        job_id,
        task_name(subject.operation),
        (job_id, generation),
        {},
        argsrepr=subject.args_repr,
        kwargsrepr=subject.kwargs_repr,
        ignore_result=True,
    )
    content_type, content_encoding, body = dumps(task.body, serializer="json")
    raw: bytes = body.encode() if isinstance(body, str) else body
    properties: dict[str, Any] = {
        **task.properties,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": _QUEUE},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": f"{job_id}:{generation}:{_SEQUENCE}",
    }
    text: str = json_dumps(
        {
            "body": base64.b64encode(raw).decode(),
            "content-encoding": content_encoding,
            "content-type": content_type,
            "headers": task.headers,
            "properties": properties,
        }
    )
    start, _, rest = text.partition(_MODEL)
    head, _, rest = rest.partition(_QUEUE)
    middle, _, tail = rest.partition(_SEQUENCE)
    return MessageTemplate(start, head, middle, tail)
