"""Celery's consumer, sending the events of tasks together and keeping slots free for interactive jobs.

Celery publishes events at each turn of its loop: up to four round trips to Redis a job, on the thread
that takes the messages. Whoever watches does not see a tenth of a second.
"""

from __future__ import annotations

from typing import Any

from celery.worker import consumer, state

from k9_workers.reserving import QueueOrder

EVENTS_EVERY = 0.1
"""Seconds an event may wait for others. A full buffer of Celery's (24) leaves at once."""


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Select it with `worker_consumer="k9_workers.consumer:Consumer"`."""

    _flush_is_due = False

    def on_send_event_buffered(self) -> None:
        if state.should_stop is not None:  # the hub turns no more
            self._flush_events()
        elif self.hub and not self._flush_is_due:
            self._flush_is_due = True
            self.hub.call_later(EVENTS_EVERY, self._flush_events)

    def register_with_event_loop(self, hub: Any) -> None:
        super().register_with_event_loop(hub)
        if order := self._order:
            order.attend(self.task_consumer.channel, self.pool)
            hub.on_tick.add(self._look_again)  # after a reconnect it is there already

    @property
    def _order(self) -> QueueOrder | None:
        """That of the present connection; `None` while there is none."""
        order = getattr(getattr(self.task_consumer, "channel", None), "_queue_cycle", None)
        return order if isinstance(order, QueueOrder) else None

    def _look_again(self) -> None:
        if order := self._order:
            order.look_again()

    def on_close(self) -> None:
        super().on_close()
        self._flush_is_due = False  # Celery may have dropped the timer with the connection

    def _flush_events(self) -> None:
        self._flush_is_due = False
        super()._flush_events()
