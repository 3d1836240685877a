"""The circuit breaker of one instance: from what its calls came to, whether it may be called now.

**Closed.** Successes and failures are kept as two weights that halve every `HALF_LIFE` seconds. The
circuit opens when failures weigh `OPENS_AT` or more (three within some seconds) and are at least
`OPENS_AT_RATE` of everything; at once when the instance could not be reached `GONE_IN_A_ROW` times in a
row, and at once when it says that it is busy: that means elsewhere, now.

**Open.** For `FIRST_OPEN` seconds, twice as long each time it opens again, at most `LONGEST_OPEN`, or
`LONGEST_GONE` where it could not be reached; from the beginning once it has stayed closed for `STEADY`
seconds, or at all when it is only busy. A busy instance that says how long is left alone for as long as
it says.

**Half-open.** One call at a time; `GOOD_ONES` good ones close it, one where it had only been busy, and
any failure opens it again. What says no more than that the server answers, such as its list of models,
closes only a circuit that opened because it did not answer.

**Out.** Until `Breaker.reset`.

What comes of a call counts only while the circuit has not opened since the call began (`epoch`): what
was under way when it opened tells nothing new.

Pure: time is passed in, in seconds of any clock that does not go back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from k9_broker.errors import (
    MAX_RETRY_AFTER,
    BackendCredentials,
    BackendError,
    BackendOverloaded,
    BackendQuotaExceeded,
    BackendRateLimited,
    BackendUnreachable,
    CircuitOpen,
    K9Error,
)
from k9_broker.health import CircuitState

HALF_LIFE = 30.0
"""Seconds in which what was seen loses half of its weight."""
OPENS_AT, OPENS_AT_RATE = 2.5, 0.5
GONE_IN_A_ROW = 2
FIRST_OPEN, LONGEST_OPEN = 1.0, 30.0
"""Seconds."""
LONGEST_GONE = 4.0
"""Seconds: to find that a server still cannot be reached costs next to nothing, and one that was started
again is waited for."""
STEADY = 60.0
GOOD_ONES = 2
SHAKEN = 2.0
"""Seconds after a failure in which another instance is the better choice, until a call succeeds."""
TRIAL_WAIT = 0.5
"""Seconds to tell who asks while a trial is under way."""
SHORTEST_BUSY = 0.1
"""Seconds: a busy instance that says 0 is not asked again in the same moment."""


class Sign(Enum):
    """What an outcome says of the instance."""

    FINE = auto()
    """It answered as it should."""
    ANSWERS = auto()
    """It answers; whether it can infer is not shown."""
    REFUSED = auto()
    """It, or the dialect before it, refused what the caller wrote: no fault of its own."""
    GONE = auto()
    """It could not be reached, or left without an answer."""
    BROKEN = auto()
    """It failed."""
    BUSY = auto()
    """It has too much to do."""
    LIMITED = auto()
    """A rate limit is reached; it is well."""
    OUT = auto()
    """It will not take this worker's calls until somebody mends that."""


_SIGNS: Final[tuple[tuple[type[K9Error], Sign], ...]] = (
    (BackendUnreachable, Sign.GONE),
    (BackendOverloaded, Sign.BUSY),
    (CircuitOpen, Sign.LIMITED),
    (BackendRateLimited, Sign.LIMITED),
    (BackendQuotaExceeded, Sign.OUT),
    (BackendCredentials, Sign.OUT),
    (BackendError, Sign.BROKEN),
)


def sign_of(error: K9Error | None) -> Sign:
    """What a call's error says of the instance it was made at; `None`: it had none."""
    if error is None:
        return Sign.FINE
    return next((sign for kind, sign in _SIGNS if isinstance(error, kind)), Sign.REFUSED)


@dataclass(frozen=True, slots=True)
class Breaker:
    """One instance's circuit, as a value: every method that changes it gives a new one."""

    state: CircuitState = CircuitState.CLOSED
    """Ask `state_at`: an open circuit becomes half-open by the passing of time alone."""
    reason: str = ""
    """The code of the error that opened it."""
    epoch: int = 0
    """How often it has opened or been reset."""
    fine: float = 0.0
    failed: float = 0.0
    """The two weights, as they were at `weighed`."""
    weighed: float = 0.0
    gone_in_a_row: int = 0
    failed_at: float = -math.inf
    """When it failed last without a success since."""
    until: float = -math.inf
    """When its open time is over."""
    open_seconds: float = 0.0
    """How long it was opened for last, when the instance itself did not say."""
    closed_at: float = -math.inf
    needed: int = 0
    """Good ones that still must come before it closes."""
    trying: bool = False
    """The one call that a half-open circuit allows is under way."""
    needs_inference: bool = False
    """It was opened by a failed inference: only an inference can show that it is well."""

    def state_at(self, now: float) -> CircuitState:
        if self.state is CircuitState.OPEN and now >= self.until:
            return CircuitState.HALF_OPEN
        return self.state

    def fit(self, now: float) -> bool:
        """Whether it may be called."""
        if self.state is CircuitState.CLOSED:
            return True
        return self.state_at(now) is CircuitState.HALF_OPEN and not self.trying

    def shaken(self, now: float) -> bool:
        """Whether it has just failed: call another one if there is one."""
        return now - self.failed_at < SHAKEN

    def retry_seconds(self, now: float) -> float | None:
        """Seconds until it may be worth a call: 0 when it may be called; `None`: not until a reset."""
        if self.state is CircuitState.OUT:
            return None
        if self.fit(now):
            return 0.0
        return max(0.0, self.until - now) if self.state_at(now) is CircuitState.OPEN else TRIAL_WAIT

    def begun(self, now: float) -> Breaker:
        """A call begins. Ask `fit` before."""
        if self.state is CircuitState.CLOSED:
            return self
        return replace(self, state=self.state_at(now), trying=True)

    def left(self, epoch: int) -> Breaker:
        """A call that began in `epoch` was ended by its caller: that says nothing."""
        return replace(self, trying=False) if self.trying and epoch == self.epoch else self

    def heard(
        self,
        sign: Sign,
        now: float,
        *,
        epoch: int,
        reason: str = "",
        retry_after: float | None = None,
        inference: bool = True,
    ) -> Breaker:
        """What a call that began in `epoch` came to; `inference`: it was one, not a look at the server."""
        if epoch != self.epoch or self.state is CircuitState.OUT:
            return self
        if sign is Sign.OUT:
            return replace(self._opened(sign, now, reason), state=CircuitState.OUT, until=math.inf)
        if self.state is CircuitState.CLOSED:
            return self._closed_heard(sign, now, reason, retry_after, inference)
        tried = replace(self, trying=False)
        if sign in (Sign.GONE, Sign.BROKEN, Sign.BUSY):
            return tried._opened(sign, now, reason, retry_after, inference)
        if sign is Sign.FINE or (sign is Sign.ANSWERS and not self.needs_inference):
            if self.needed > 1:
                return replace(tried, needed=self.needed - 1)
            return Breaker(epoch=self.epoch, open_seconds=self.open_seconds, closed_at=now, weighed=now)
        return tried

    def reset(self) -> Breaker:
        """Closed, whatever it was."""
        return Breaker(epoch=self.epoch + 1)

    def _closed_heard(
        self, sign: Sign, now: float, reason: str, retry_after: float | None, inference: bool
    ) -> Breaker:
        if sign is Sign.LIMITED:  # another instance may have an account of its own
            return replace(self, failed_at=now)
        if sign is Sign.ANSWERS:  # it may be the list of models of a server that fails every inference
            return replace(self, gone_in_a_row=0)
        left = 2.0 ** (-max(0.0, now - self.weighed) / HALF_LIFE)
        fine, failed = self.fine * left, self.failed * left
        if sign in (Sign.FINE, Sign.REFUSED):
            return replace(
                self, fine=fine + 1, failed=failed, weighed=now, gone_in_a_row=0, failed_at=-math.inf
            )
        failed += 1
        gone = self.gone_in_a_row + 1 if sign is Sign.GONE else 0
        if (
            sign is Sign.BUSY
            or gone >= GONE_IN_A_ROW
            or (failed >= OPENS_AT and failed >= OPENS_AT_RATE * (fine + failed))
        ):
            return self._opened(sign, now, reason, retry_after, inference)
        return replace(self, fine=fine, failed=failed, weighed=now, gone_in_a_row=gone, failed_at=now)

    def _opened(
        self,
        sign: Sign,
        now: float,
        reason: str,
        retry_after: float | None = None,
        inference: bool = True,
    ) -> Breaker:
        busy = sign is Sign.BUSY
        # One that is too busy now and then, and else does what it is asked for, is not ill.
        anew = self.state is CircuitState.CLOSED and (busy or now - self.closed_at >= STEADY)
        longest = LONGEST_GONE if sign is Sign.GONE else LONGEST_OPEN
        seconds = FIRST_OPEN if anew else min(longest, max(FIRST_OPEN, 2 * self.open_seconds))
        if busy and retry_after is not None:
            wait = min(MAX_RETRY_AFTER, max(SHORTEST_BUSY, retry_after))
            seconds = self.open_seconds  # it said so itself: that is no reason to double
        else:
            wait = seconds
        # What the circuit waits for is what the last failure was, unless that was only a look.
        needs_inference = inference and sign is not Sign.GONE
        return Breaker(
            state=CircuitState.OPEN,
            reason=reason,
            epoch=self.epoch + 1,
            until=now + wait,
            open_seconds=seconds,
            closed_at=self.closed_at,
            failed_at=now,
            needed=1 if busy else GOOD_ONES,
            needs_inference=needs_inference or (self.needs_inference and not inference),
        )
