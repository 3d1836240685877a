"""What came of a run: counted while it goes on, told when it is over."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from k9_broker.money import dollars
from k9_broker.requests import Kind, Priority
from k9_broker.simulation.calls import Call, End
from k9_broker.simulation.scenario import Scenario

PARTS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one stream, or of all. Seconds, shares from 0 to 1, US dollars."""

    traffic: str
    tenant: str
    requests: int
    served: int
    refused: int
    expired: int
    slo: float | None
    """Share of the interactive requests that was served well; `None` where all are of a batch."""
    overflowed: float
    """Share of the served that was passed on for an `overflow:` reason."""
    cloud: float
    """Share of the served that ran in the cloud."""
    wait_mean: float
    wait: dict[str, float]
    """Percentiles of the seconds in a queue, of the served."""
    ttft: dict[str, float]
    """Percentiles of the seconds from arrival to the first token."""
    cloud_usd: float
    reasons: dict[str, int]
    """Why each served or refused one went where it did."""


@dataclass(frozen=True, slots=True)
class Report:
    policy: str
    seconds: float
    """Simulated, until the last request had ended."""
    total: Row
    traffic: tuple[Row, ...]
    backends: dict[str, int]
    """How many each served."""
    server_usd: float
    """For machines that cost by the hour, busy or not, if they served any."""

    @property
    def usd(self) -> float:
        return self.total.cloud_usd + self.server_usd

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"usd": self.usd}


class _Count:
    """What is counted for one stream."""

    def __init__(self, priority: Priority) -> None:
        self.priority = priority
        self.ends: Counter[End] = Counter()
        self.reasons: Counter[str] = Counter()
        self.well = self.cloud = self.nanos = 0
        self.waits = array("d")
        self.firsts = array("d")


class Tally:
    """Counts calls as they end."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._counts = {name: _Count(said.priority) for name, said in scenario.traffic.items()}
        self._slo = scenario.slo
        self.backends: Counter[str] = Counter()
        self._kinds: dict[str, bool] = {}
        for name, machine in scenario.backends.items():
            cloud = machine.kind is Kind.CLOUD
            self._kinds[name] = cloud
            self._kinds |= {f"{name}-{number + 1}": cloud for number in range(machine.instances)}
        self.last_end = 0.0

    def ended(self, call: Call, nanos: int, now: float) -> None:
        """A call has ended; it cost so many nano-dollars."""
        counted = self._counts[call.traffic]
        self.last_end = now
        end = call.end
        assert end is not None
        counted.ends[end] += 1
        counted.nanos += nanos
        if end is not End.EXPIRED:
            counted.reasons[call.reason] += 1
        if end is not End.SERVED:
            return
        assert call.began is not None
        wait = call.began - call.arrived
        first = wait + call.first
        counted.waits.append(wait)
        counted.firsts.append(first)
        self.backends[call.backend] += 1
        counted.cloud += self._kinds[call.backend]
        if first <= self._slo.ttft:
            gaps = call.output - 1
            if not gaps or (call.free_at - call.began - call.first) <= self._slo.tpot * gaps:
                counted.well += 1

    def report(self) -> Report:
        scenario = self._scenario
        rows = [
            _row(name, scenario.traffic[name].tenant, [counted]) for name, counted in self._counts.items()
        ]
        used = {name for name in scenario.backends if self._used(name)}
        hourly = sum(
            scenario.backends[name].usd_per_hour * scenario.backends[name].instances for name in used
        )
        return Report(
            policy=scenario.policy,
            seconds=self.last_end,
            total=_row("all", "", list(self._counts.values())),
            traffic=tuple(rows),
            backends=dict(self.backends.most_common()),
            server_usd=hourly * self.last_end / 3600,
        )

    def _used(self, name: str) -> bool:
        machine = self._scenario.backends[name]
        own = (name, *(f"{name}-{number + 1}" for number in range(machine.instances)))
        return any(self.backends[one] for one in own)


def percentile(ordered: array[float], part: float) -> float:
    """Of values in order, the one that so large a part of them does not exceed; 0 of none."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def _row(traffic: str, tenant: str, counts: list[_Count]) -> Row:
    ends: Counter[End] = sum((one.ends for one in counts), Counter())
    reasons: Counter[str] = sum((one.reasons for one in counts), Counter())
    callers = [one for one in counts if one.priority is Priority.INTERACTIVE]
    asked = sum(one.ends.total() for one in callers)
    requests, served = ends.total(), ends[End.SERVED]
    waits = array("d", sorted(wait for one in counts for wait in one.waits))
    firsts = array("d", sorted(first for one in counts for first in one.firsts))
    overflowed = sum(times for reason, times in reasons.items() if reason.startswith("overflow:"))
    return Row(
        traffic=traffic,
        tenant=tenant,
        requests=requests,
        served=served,
        refused=ends[End.REFUSED],
        expired=ends[End.EXPIRED],
        slo=sum(one.well for one in callers) / max(1, asked) if callers else None,
        overflowed=overflowed / max(1, served),
        cloud=sum(one.cloud for one in counts) / max(1, served),
        wait_mean=sum(waits) / max(1, served),
        wait={name: percentile(waits, part) for name, part in PARTS.items()},
        ttft={name: percentile(firsts, part) for name, part in PARTS.items()},
        cloud_usd=dollars(sum(one.nanos for one in counts)),
        reasons=dict(reasons.most_common()),
    )
