"""What the running workers say of their backends, as findings and in a word: rules over `/v1/queues`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from k9_broker.backends import Announcement
from k9_broker.findings import Finding, Verdict

LATE = 0.1
"""Seconds an event loop may be late before it is told."""

Row = Mapping[str, Any]
"""One backend of `GET /v1/queues`."""


def state_of(row: Row) -> str:
    """A backend's state in a word or two: `fit`, `no worker`, `circuit-open`, `out:…`, `paced 3 s`, …"""
    if not row["workers"]:
        return "no worker"
    if row.get("down"):
        return str(row["down"])
    if paced := row.get("paced_seconds"):
        return f"paced {paced:.0f} s" if paced >= 1 else "paced"
    instances = row.get("instances") or ()
    usable = sum(one["state"] in ("closed", "half-open") for one in instances)
    return "fit" if usable == len(instances) else f"{usable} of {len(instances)} fit"


def findings(row: Row) -> list[Finding]:
    """What the live workers of one backend see."""
    name = row["backend"]

    def found(verdict: Verdict, said: str, mend: str = "", instance: str = "") -> Finding:
        return Finding(name, "workers", verdict, said, mend, instance)

    if not row["workers"]:
        return [
            found(
                Verdict.WRONG,
                "no live worker; jobs that wait for it move on where they may",
                f"start one: `k9 worker --backend {name}`, or `k9 up`",
            )
        ]
    told = []
    if not row["models"]:
        told.append(found(Verdict.WRONG, "its workers announce no model", "see the checks above"))
    for one in row.get("instances") or ():
        about = f"{one['worker']} sees it"
        if one["state"] == "out":
            told.append(
                found(
                    Verdict.WRONG,
                    f"{about} out ({one.get('reason')}): it is not called until it is reset",
                    f"mend the cause, then `k9 backends reset {name}`",
                    one["name"],
                )
            )
        elif one["state"] == "open":
            again = f"; tried again in {one['retry_seconds']:.0f} s" if one.get("retry_seconds") else ""
            told.append(
                found(
                    Verdict.WRONG,
                    f"{about} failing ({one.get('reason')}){again}",
                    f"if it is mended: `k9 backends reset {name}`, or wait",
                    one["name"],
                )
            )
    if paced := row.get("paced_seconds"):
        said = f"calls wait {paced:.1f} s for its rate limit"
        told.append(
            found(Verdict.HINT, said, "raise requests_per_minute and tokens_per_minute if it allows more")
        )
    s = "s" if row["workers"] > 1 else ""
    return told or [found(Verdict.OK, f"{row['workers']} live worker{s}, {state_of(row)}")]


def conflicts(announcements: Iterable[Announcement]) -> list[Finding]:
    """Workers that give one name to different things."""
    by_name: dict[str, list[Announcement]] = {}
    for one in announcements:
        by_name.setdefault(one.backend, []).append(one)
    told = []
    for name, several in sorted(by_name.items()):
        for what, ways in (
            ("both local and cloud", {one.kind.value: one.node for one in several}),
            ("with several dialects", {one.dialect: one.node for one in several}),
        ):
            if len(ways) > 1:
                who = ", ".join(f"{way} at {node}" for way, node in sorted(ways.items()))
                told.append(
                    Finding(
                        name,
                        "workers",
                        Verdict.WRONG,
                        f"announced {what}: {who}",
                        "give one of them another name in its k9.toml",
                    )
                )
        late = [one.node for one in several if one.loop_lag_seconds > LATE]
        if late:
            said = f"the event loop of {', '.join(late)} runs late"
            mend = "give its machine more CPU, or fewer slots"
            told.append(Finding(name, "workers", Verdict.HINT, said, mend))
    return told


def of_fleet(rows: Sequence[Row], announced: Iterable[Announcement], names: Iterable[str]) -> list[Finding]:
    """What the live workers of the named backends see; those that nobody has started are told too."""
    known = {row["backend"]: row for row in rows}
    wanted = list(names)
    told = [one for name in wanted if name in known for one in findings(known[name])]
    for name in wanted:
        if name not in known:
            said, mend = "no worker has announced it", f"`k9 reload`, or `k9 worker --backend {name}`"
            told.append(Finding(name, "workers", Verdict.WRONG, said, mend))
    return told + [one for one in conflicts(announced) if one.backend in wanted]
