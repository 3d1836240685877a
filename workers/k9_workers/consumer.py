"""Celery's consumer, sending the events of tasks together.

Celery publishes them at each turn of its loop: up to four round trips to Redis a job, on the thread
that takes the messages. Whoever watches does not see a tenth of a second.
"""

from __future__ import annotations

from celery.worker import consumer, state

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

    def on_close(self) -> None:
        super().on_close()
        self._flush_is_due = False  # Celery may have dropped the timer with the connection

    def _flush_events(self) -> None:
        self._flush_is_due = False
        super()._flush_events()
