"""The circuit breaker: what opens it, for how long, and what closes it again."""

from __future__ import annotations

import math
from typing import Any

import pytest

from k9_broker import errors
from k9_broker.breaker import LONGEST_GONE, LONGEST_OPEN, STEADY, TRIAL_WAIT, Breaker, Sign, sign_of
from k9_broker.health import CircuitState

CLOSED, OPEN, HALF_OPEN, OUT = CircuitState


class Circuit:
    """A breaker on a clock of its own; every call lasts no time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.breaker = Breaker()

    @property
    def state(self) -> CircuitState:
        return self.breaker.state_at(self.now)

    def hear(self, *signs: Sign, gap: float = 0.0, **more: Any) -> CircuitState:
        for sign in signs:
            assert self.breaker.fit(self.now)
            self.breaker = self.breaker.begun(self.now)
            self.breaker = self.breaker.heard(sign, self.now, epoch=self.breaker.epoch, **more)
            self.now += gap
        return self.state

    def retry(self) -> float:
        """Wait for the end of the open time; gives how long it was."""
        wait = self.breaker.retry_seconds(self.now)
        assert wait is not None
        self.now += wait
        return wait


@pytest.fixture
def circuit() -> Circuit:
    return Circuit()


FINE, ANSWERS, REFUSED, GONE, BROKEN, BUSY, LIMITED, _ = Sign


@pytest.mark.parametrize(
    ("error", "sign"),
    [
        (None, Sign.FINE),
        (errors.BackendUnreachable(), Sign.GONE),
        (errors.BackendTimeout(), Sign.BROKEN),
        (errors.BackendError(), Sign.BROKEN),
        (errors.StreamTruncated(), Sign.BROKEN),
        (errors.BackendOverloaded(retry_after=3), Sign.BUSY),
        (errors.BackendRateLimited(retry_after=3), Sign.LIMITED),
        (errors.BackendQuotaExceeded(), Sign.OUT),
        (errors.BackendCredentials(), Sign.OUT),
        (errors.BadRequest(), Sign.REFUSED),
        (errors.ContextTooLong(), Sign.REFUSED),
        (errors.UnsupportedParameter(), Sign.REFUSED),
        (errors.ModelNotFound(), Sign.REFUSED),
        (errors.K9Error(), Sign.REFUSED),
    ],
)
def test_what_an_error_says_of_the_instance(error: errors.K9Error | None, sign: Sign) -> None:
    assert sign_of(error) is sign


@pytest.mark.parametrize(
    ("signs", "state"),
    [
        ([BROKEN], CLOSED),
        ([BROKEN, BROKEN], CLOSED),
        ([BROKEN, BROKEN, BROKEN], OPEN),
        ([FINE, BROKEN, FINE, BROKEN, FINE, BROKEN], OPEN),  # half of all
        ([FINE, FINE, FINE, FINE, BROKEN, BROKEN, BROKEN], CLOSED),  # less than half
        ([FINE, FINE, FINE, FINE, BROKEN, BROKEN, BROKEN, BROKEN], OPEN),
        ([GONE], CLOSED),
        ([GONE, GONE], OPEN),
        ([FINE] * 50 + [GONE, GONE], OPEN),  # nobody is there: what was before matters not
        ([GONE, FINE, GONE], CLOSED),
        ([GONE, ANSWERS, GONE], CLOSED),
        ([BUSY], OPEN),
        ([FINE] * 50 + [BUSY], OPEN),
        ([LIMITED] * 20, CLOSED),
        ([REFUSED] * 20, CLOSED),
        ([BROKEN, ANSWERS, BROKEN, ANSWERS, BROKEN], OPEN),  # its list of models is no success
        ([Sign.OUT], OUT),
    ],
)
def test_what_opens_it(circuit: Circuit, signs: list[Sign], state: CircuitState) -> None:
    assert circuit.hear(*signs) is state


def test_old_failures_and_old_successes_weigh_less(circuit: Circuit) -> None:
    assert circuit.hear(*[BROKEN] * 20, gap=40.0) is CLOSED  # one every forty seconds
    circuit = Circuit()
    circuit.hear(*[FINE] * 10)
    circuit.now += 120.0  # ten successes are less than one by now
    assert circuit.hear(BROKEN, BROKEN, BROKEN) is OPEN


def test_open_time_doubles_and_begins_anew_once_it_has_been_steady(circuit: Circuit) -> None:
    circuit.hear(BROKEN, BROKEN, BROKEN)
    waits = []
    for _ in range(7):
        waits.append(circuit.retry())
        assert circuit.state is HALF_OPEN
        assert circuit.hear(BROKEN) is OPEN
    assert waits == [1, 2, 4, 8, 16, 30, LONGEST_OPEN]
    circuit.retry()
    assert circuit.hear(FINE, FINE) is CLOSED
    circuit.now += STEADY - 1
    circuit.hear(BROKEN, BROKEN, BROKEN)
    assert circuit.retry() == LONGEST_OPEN  # it was well for too short a time
    assert circuit.hear(FINE, FINE) is CLOSED
    circuit.now += STEADY
    circuit.hear(BROKEN, BROKEN, BROKEN)
    assert circuit.retry() == 1


def test_one_that_cannot_be_reached_is_asked_again_sooner(circuit: Circuit) -> None:
    circuit.hear(GONE, GONE)
    waits = []
    for _ in range(5):
        waits.append(circuit.retry())
        assert circuit.hear(GONE) is OPEN
    assert waits == [1, 2, 4, LONGEST_GONE, LONGEST_GONE]


@pytest.mark.parametrize(
    ("said", "wait"), [(None, 1.0), (7.0, 7.0), (0.0, 0.1), (3600.0, 60.0)], ids=["silent", "7", "0", "hour"]
)
def test_a_busy_instance_is_left_alone_for_as_long_as_it_says(
    circuit: Circuit, said: float | None, wait: float
) -> None:
    assert circuit.hear(BUSY, retry_after=said) is OPEN
    assert circuit.retry() == pytest.approx(wait)
    assert circuit.hear(BUSY, retry_after=said) is OPEN
    assert circuit.retry() == pytest.approx(2.0 if said is None else wait)
    assert circuit.hear(FINE) is CLOSED  # one is enough: it was never ill


def test_a_server_that_is_busy_now_and_then_is_not_left_alone_for_longer_and_longer(circuit: Circuit) -> None:
    """It has no other beside it, perhaps, and does most of what it is asked for."""
    for _ in range(20):
        assert circuit.hear(BUSY) is OPEN
        assert circuit.retry() == 1.0
        assert circuit.hear(FINE) is CLOSED
        circuit.hear(*[FINE] * 20, gap=0.1)


def test_half_open_takes_one_at_a_time_and_two_good_ones_close_it(circuit: Circuit) -> None:
    circuit.hear(GONE, GONE)
    circuit.retry()
    trying = circuit.breaker.begun(circuit.now)
    assert not trying.fit(circuit.now)
    assert trying.retry_seconds(circuit.now) == TRIAL_WAIT
    one = trying.heard(FINE, circuit.now, epoch=trying.epoch)
    assert one.state_at(circuit.now) is HALF_OPEN
    assert one.fit(circuit.now)
    two = one.begun(circuit.now).heard(FINE, circuit.now, epoch=one.epoch)
    assert two.state is CLOSED
    assert two.reason == ""


@pytest.mark.parametrize("sign", [REFUSED, LIMITED])
def test_a_trial_that_says_nothing_gives_its_place_back(circuit: Circuit, sign: Sign) -> None:
    circuit.hear(GONE, GONE)
    circuit.retry()
    assert circuit.hear(sign) is HALF_OPEN
    assert circuit.breaker.fit(circuit.now)
    trying = circuit.breaker.begun(circuit.now)
    assert trying.left(trying.epoch).fit(circuit.now)


@pytest.mark.parametrize(
    ("opened_by", "state"), [([GONE, GONE], CLOSED), ([BROKEN] * 3, HALF_OPEN), ([BUSY], HALF_OPEN)]
)
def test_a_list_of_models_closes_only_what_did_not_answer(
    circuit: Circuit, opened_by: list[Sign], state: CircuitState
) -> None:
    circuit.hear(*opened_by)
    circuit.retry()
    assert circuit.hear(ANSWERS, ANSWERS, inference=False) is state


def test_a_look_that_fails_meanwhile_does_not_make_a_list_of_models_enough(circuit: Circuit) -> None:
    circuit.hear(BROKEN, BROKEN, BROKEN)
    circuit.retry()
    circuit.hear(GONE, inference=False)
    circuit.retry()
    assert circuit.hear(ANSWERS, ANSWERS, inference=False) is HALF_OPEN
    assert circuit.hear(FINE, FINE) is CLOSED


def test_calls_from_before_it_opened_say_nothing(circuit: Circuit) -> None:
    epoch = circuit.breaker.epoch
    circuit.hear(BUSY)
    opened = circuit.breaker
    for sign in Sign:
        assert opened.heard(sign, circuit.now, epoch=epoch) == opened
    circuit.retry()
    trying = circuit.breaker.begun(circuit.now)
    assert trying.heard(FINE, circuit.now, epoch=epoch) == trying
    assert trying.left(epoch) == trying


def test_out_stays_out_until_a_reset(circuit: Circuit) -> None:
    circuit.hear(Sign.OUT, reason="insufficient_quota")
    circuit.now += 1e9
    assert circuit.state is OUT
    assert not circuit.breaker.fit(circuit.now)
    assert circuit.breaker.retry_seconds(circuit.now) is None
    assert circuit.breaker.reason == "insufficient_quota"
    told = circuit.breaker.heard(FINE, circuit.now, epoch=circuit.breaker.epoch)
    assert told.state is OUT
    circuit.breaker = circuit.breaker.reset()
    assert circuit.state is CLOSED
    assert circuit.hear(BROKEN) is CLOSED


@pytest.mark.parametrize("sign", [BROKEN, GONE, LIMITED])
def test_one_that_has_just_failed_is_shaken_until_it_succeeds(circuit: Circuit, sign: Sign) -> None:
    assert not circuit.breaker.shaken(circuit.now)
    circuit.hear(sign)
    assert circuit.breaker.shaken(circuit.now)
    assert not circuit.breaker.shaken(circuit.now + 2.1)
    circuit.hear(FINE)
    assert not circuit.breaker.shaken(circuit.now)


def test_a_new_one_is_well() -> None:
    assert Breaker().fit(-math.inf) is Breaker().fit(0.0) is True
    assert Breaker().retry_seconds(0.0) == 0.0
