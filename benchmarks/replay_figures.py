"""What a replay came to: how many requests were served well, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from replay_ground import CLOUD, LOCALS, Speed, Terms
from replay_ways import Served
from tables import Table, percentile

BIN = 15.0
"""Seconds of the trace that the plot over time counts together."""

BUSY = 0.2
"""Share of the SLO's time to the first token that K-9's own way may take before the figures mislead."""


@dataclass(frozen=True, slots=True)
class Slo:
    """What it is to be served well: both, and a whole answer."""

    ttft: float = 5.0
    """Seconds from when the request was due to its first token, queue time included, at most."""
    tpot: float = 0.1
    """Seconds between tokens on average, at most: 10 a second, faster than most people read."""

    def met(self, one: Served) -> bool:
        return one.ttft is not None and one.ttft <= self.ttft and (one.tpot is None or one.tpot <= self.tpot)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of serving a trace in one way. Seconds are the trace's, money is US dollars."""

    way: str
    requests: int
    failed: int
    """Refused, or without a whole answer."""
    slo: float
    """Share of all requests served well; a failed one is not."""
    ttft: Mapping[str, float]
    """p50, p95 and p99, of those that were answered."""
    wait: Mapping[str, float]
    """p50 and p95 of how much later the first token came than from an idle server."""
    late: Mapping[str, float]
    """Of this wait, what was not in K-9's queue: p50 and p95. Nothing where K-9 had no part."""
    cloud: float
    """Share that ran in the cloud."""
    reasons: Mapping[str, int]
    """How often K-9 passed a backend over, by its reason."""
    cloud_usd: float
    server_usd: float
    """For the local servers, as long as the trace lasts; nothing where they are not needed."""
    booked_usd: float | None
    """What K-9's own books say the cloud cost."""
    cores: Mapping[str, float]
    """Of each process, how much of a core it used on average."""
    over_time: Mapping[str, Sequence[int]]
    """Arrivals in each `BIN`, by where they ran: `local`, `cloud`, `failed`; the last number is always 0."""

    @property
    def usd(self) -> float:
        return self.cloud_usd + self.server_usd

    def row(self) -> list[str]:
        return [
            self.way,
            f"{self.slo:.1%}",
            *(f"{self.ttft[part]:.1f}" for part in ("p50", "p95", "p99")),
            *(f"{self.wait[part]:.1f}" for part in ("p50", "p95")),
            f"{self.cloud:.1%}",
            f"{self.cloud_usd:.2f}",
            f"{self.usd:.2f}",
            str(self.failed),
        ]

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"usd": self.usd}


COLUMNS = (
    *("way", "SLO met", "TTFT p50", "p95", "p99", "wait p50", "p95"),
    *("cloud", "cloud $", "with GPUs $", "failed"),
)


def outcome(
    way: str,
    served: Sequence[Served],
    *,
    seconds: float,
    slo: Slo,
    terms: Terms,
    cores: Mapping[str, float],
    booked: float | None = None,
) -> Outcome:
    """Of all that was served in one way; the trace lasts so many seconds."""
    prices = terms.prices
    answered = [one for one in served if one.answered]
    places = Counter(one.kind for one in answered)
    waits = [_wait(one, terms.local) for one in answered]
    late = [wait - one.queued for wait, one in zip(waits, answered, strict=True) if one.queued is not None]
    over = {name: [0] * (ceil(seconds / BIN) + 1) for name in ("local", "cloud", "failed")}
    for one in served:
        over[one.kind if one.answered else "failed"][int(one.arrival.at // BIN)] += 1
    return Outcome(
        way,
        len(served),
        len(served) - len(answered),
        sum(map(slo.met, served)) / len(served),
        _parts([one.ttft or 0.0 for one in answered], 0.5, 0.95, 0.99),
        _parts(waits, 0.5, 0.95),
        _parts(late, 0.5, 0.95) if late else {},
        places["cloud"] / max(1, len(answered)),
        dict(Counter(one.reason for one in answered if one.reason.startswith("overflow:")).most_common()),
        sum(prices.cloud(one.arrival) for one in answered if one.kind == "cloud"),
        LOCALS * prices.server_hour * seconds / 3600 if places["local"] else 0.0,
        booked,
        cores,
        over,
    )


def table(outcomes: Sequence[Outcome], title: str, slo: Slo) -> Table:
    note = (
        f"\nSeconds of the trace. SLO: first token within {slo.ttft:g} s of arrival, waiting included, and"
        f" {slo.tpot:g} s between tokens on average.\nWait: how much later the first token came than from an"
        " idle server."
    )
    return Table(title, COLUMNS, [one.row() for one in outcomes], note)


def notes(outcomes: Sequence[Outcome], slo: Slo) -> str:
    """What the machine under the replay had to do, and what it may have distorted."""
    lines = []
    for one in outcomes:
        busiest = ", ".join(f"{name} {share:.0%}" for name, share in one.cores.items() if share > 0.01)
        lines.append(f"{one.way}: of a core: {busiest}")
        if one.late:
            lines.append(
                f"  the way through K-9 took {one.late['p50']:.2f} s (p95 {one.late['p95']:.2f}), stretched"
                " as the trace is"
            )
        if one.reasons:
            lines.append(f"  {', '.join(f'{reason} {times}' for reason, times in one.reasons.items())}")
        if one.booked_usd is not None:
            lines.append(f"  K-9's own books: {one.booked_usd:.2f} USD")
    if any(one.late and one.late["p95"] > BUSY * slo.ttft for one in outcomes):
        lines.append(
            "The machine was too busy for this: much of the SLO's time went into a way through K-9 that is"
            "\nstretched as the trace is. Lower --speed, or stop what else runs here."
        )
    return "\n".join(lines)


def _wait(one: Served, local: Speed) -> float:
    speed = CLOUD if one.kind == "cloud" else local
    return max(0.0, (one.ttft or 0.0) - speed.until_first(one.arrival.prompt_tokens))


def _parts(values: Sequence[float], *parts: float) -> dict[str, float]:
    return {f"p{part * 100:g}": round(percentile(values, part), 3) if values else 0.0 for part in parts}
