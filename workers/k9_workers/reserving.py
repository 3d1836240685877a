"""Slots that batch jobs leave free while interactive ones come.

Priority says whose message is taken next. It does nothing for an interactive job that finds every slot
held by a batch job of many seconds. So while interactive jobs come, a worker begins no batch job in the slots
they lately had, nor in a few more; alone, a batch has them all.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

from celery.utils.log import get_logger
from celery.worker.state import reserved_requests
from kombu.utils.scheduling import priority_cycle
from redis.exceptions import ResponseError

from k9_broker.backends import Backend
from k9_broker.naming import queue_name
from k9_broker.requests import Priority
from k9_broker.serving import KeptSlots

logger = get_logger(__name__)


class QueueOrder(priority_cycle):
    """Which queues the worker asks for its next message: interactive before batch, or without batch.

    kombu makes one for each channel (`queue_order_strategy`). It asks with one BRPOP at a time, which brings
    one message; so what `consume` leaves out cannot come, and nothing comes between.
    """

    kept: ClassVar[KeptSlots] = KeptSlots(0, time.monotonic)
    """The rule for the backend of this process."""
    interactive: ClassVar[str] = ""
    batch: ClassVar[str] = ""

    def __init__(self, it: Any = None) -> None:
        super().__init__(it)  # type: ignore[no-untyped-call]
        self._channel: Any = None
        self._pool: Any = None
        self._asks_without_batch = False
        self._client: tuple[Any, int | None] = (None, None)
        """A socket, and the id Redis has given it."""

    @classmethod
    def serve(cls, backend: Backend) -> None:
        """Keep slots as this backend wants it."""
        cls.kept = KeptSlots(backend.reserved_slots, time.monotonic)
        cls.interactive, cls.batch = (queue_name(backend.kind, backend.name, one) for one in Priority)

    def attend(self, channel: Any, pool: Any) -> None:
        """Begin to leave batch out where the rule says so: on this channel, for this pool's slots."""
        self._channel, self._pool = channel, pool

    def rotate(self, last_used: str) -> None:
        """Called by kombu for each message, with its queue."""
        if last_used == self.interactive:
            self.kept.interactive_came()

    def consume(self, n: int) -> list[str]:
        """Called by kombu when it is about to ask, its connection being idle."""
        names: list[str] = super().consume(n)  # type: ignore[no-untyped-call]
        self._asks_without_batch = self._channel is not None and not self._lets_batch_in()
        if not self._asks_without_batch:
            return names
        self._learn_client()
        return [name for name in names if name != self.batch]

    def look_again(self) -> None:
        """End a BRPOP without batch as soon as a batch job may come; by itself it would wait up to a second.

        Redis answers it as at the end of its time, or with a message that came first: nothing is lost.
        """
        if not (self._asks_without_batch and self._channel._in_poll and self._lets_batch_in()):
            return
        self._asks_without_batch = False
        _, client = self._client
        if client is None:
            return
        try:
            with self._channel.conn_or_acquire() as redis:
                redis.client_unblock(client)
        except ResponseError as refused:
            self._client = (self._client[0], None)
            logger.warning("Redis refuses CLIENT UNBLOCK, a freed slot may wait for a second: %s", refused)
        except self._channel.connection_errors:
            logger.debug("could not end the wait; the connection that waits will see for itself")

    def _lets_batch_in(self) -> bool:
        if not self.kept.in_force:
            return True
        batch = sum(1 for one in reserved_requests if one.delivery_info.get("routing_key") == self.batch)
        return batch < self.kept.most_batch(self._pool.num_processes, len(reserved_requests) - batch)

    def _learn_client(self) -> None:
        """Ask Redis, once for each connection, which client it is."""
        connection = self._channel.client.connection
        if connection._sock is self._client[0]:
            return
        try:
            connection.send_command("CLIENT", "ID")
            self._client = (connection._sock, int(connection.read_response()))
        except ResponseError as refused:
            self._client = (connection._sock, None)
            logger.warning("Redis refuses CLIENT ID, a freed slot may wait for a second: %s", refused)
