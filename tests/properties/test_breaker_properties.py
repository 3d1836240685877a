"""What holds of a circuit whatever its calls came to, and in whatever order they ended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from k9_broker.breaker import LONGEST_OPEN, Breaker, Sign
from k9_broker.errors import MAX_RETRY_AFTER
from k9_broker.health import CircuitState

SIGNS = st.sampled_from(Sign)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end", "leave", "reset"]),
        SIGNS,
        st.floats(0, 100),
        st.none() | st.floats(0, 1e6),
        st.booleans(),
    ),
    max_size=80,
)


class Run:
    """Calls that begin when the circuit lets them, and end in any order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.breaker = Breaker()
        self.under_way: list[tuple[int, bool]] = []
        """The epoch of each, and whether it began while the circuit was half-open."""

    def step(self, what: str, sign: Sign, gap: float, retry_after: float | None, inference: bool) -> None:
        self.now += gap
        if what == "begin" and self.breaker.fit(self.now):
            trial = self.breaker.state_at(self.now) is CircuitState.HALF_OPEN
            self.breaker = self.breaker.begun(self.now)
            self.under_way.append((self.breaker.epoch, trial))
        elif what == "reset" and gap < 2:
            self.breaker = self.breaker.reset()
        elif self.under_way and what in ("end", "leave"):
            epoch, _ = self.under_way.pop(int(gap) % len(self.under_way))
            self.breaker = (
                self.breaker.left(epoch)
                if what == "leave"
                else self.breaker.heard(
                    sign, self.now, epoch=epoch, retry_after=retry_after, inference=inference
                )
            )


@given(STEPS)
def test_a_half_open_circuit_never_has_two_trials(
    steps: list[tuple[str, Sign, float, float | None, bool]],
) -> None:
    run = Run()
    for step in steps:
        run.step(*step)
        if run.breaker.state_at(run.now) is CircuitState.HALF_OPEN:
            trials = [1 for epoch, trial in run.under_way if trial and epoch == run.breaker.epoch]
            assert len(trials) <= 1
            assert run.breaker.trying == bool(trials)


@given(STEPS)
def test_only_out_lasts(steps: list[tuple[str, Sign, float, float | None, bool]]) -> None:
    run = Run()
    for step in steps:
        run.step(*step)
        breaker, wait = run.breaker, run.breaker.retry_seconds(run.now)
        assert (wait is None) == (breaker.state is CircuitState.OUT)
        if wait is not None:
            assert 0 <= wait <= max(LONGEST_OPEN, MAX_RETRY_AFTER)
            assert (wait == 0) == breaker.fit(run.now)
            if breaker.state is CircuitState.OPEN:
                assert breaker.fit(run.now + MAX_RETRY_AFTER)


@given(STEPS)
def test_two_good_calls_always_mend_it(steps: list[tuple[str, Sign, float, float | None, bool]]) -> None:
    run = Run()
    for step in steps:
        run.step(*step)
    if run.breaker.state is CircuitState.OUT:
        run.breaker = run.breaker.reset()
    breaker, now = run.breaker.left(run.breaker.epoch), run.now + MAX_RETRY_AFTER
    for _ in range(2):
        assert breaker.fit(now)
        breaker = breaker.begun(now).heard(Sign.FINE, now, epoch=breaker.epoch)
    assert breaker.state is CircuitState.CLOSED


@given(st.lists(st.sampled_from([Sign.FINE, Sign.REFUSED, Sign.ANSWERS, Sign.LIMITED]), max_size=50))
def test_what_is_no_failure_never_opens_it(signs: list[Sign]) -> None:
    breaker = Breaker()
    for number, sign in enumerate(signs):
        breaker = breaker.heard(sign, float(number), epoch=0)
    assert breaker.state is CircuitState.CLOSED


@given(st.integers(1, 40))
def test_failures_that_are_few_among_successes_never_open_it(period: int) -> None:
    """Every third call or fewer fails, one a second."""
    breaker = Breaker()
    for number in range(300):
        sign = Sign.BROKEN if number % (period + 2) == period + 1 else Sign.FINE
        breaker = breaker.heard(sign, float(number), epoch=0)
        assert breaker.state is CircuitState.CLOSED
