"""What another configuration means for the workers that run: who comes, who goes, who is replaced. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from k9_api.up.plan import Process
from k9_broker.backends import ORDER_STEP
from k9_broker.settings import Settings


@dataclass(frozen=True, slots=True)
class Difference:
    """Names of backends, in the order of the configuration they come from."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What has become of each, as a person reads it."""
        told = (("added", self.added), ("changed", self.changed), ("removed", self.removed))
        said = [f"{what}: {', '.join(names)}" for what, names in told if names]
        return said or ["no backend has changed"]


def difference(
    old: Mapping[str, Process], new: Mapping[str, Process], *, all_changed: bool = False
) -> Difference:
    """From the worker of each backend that runs to that of each that should.

    `all_changed`: something that every worker reads has changed.
    """
    both = {name: all_changed or old[name].env != new[name].env for name in new if name in old}
    return Difference(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(name for name, changed in both.items() if changed),
        kept=tuple(name for name, changed in both.items() if not changed),
    )


def orders(old: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """The `Announcement.order` of each name, growing in this sequence; as many as can be keep theirs.

    A worker must be started again to announce another order, so those that stay between their neighbours
    keep what they have, and new ones get a number in between. Where there is none left, or the sequence
    is another one, all are numbered anew.
    """
    stay = [old[name] for name in names if name in old]
    if any(first >= second for first, second in pairwise(stay)):
        return _anew(names)
    given: dict[str, int] = {}
    waiting: list[str] = []
    last: int | None = None
    for name in names:
        if name not in old:
            waiting.append(name)
            continue
        room = _between(last, old[name], len(waiting))
        if room is None:
            return _anew(names)
        given |= dict(zip(waiting, room, strict=True))
        given[name] = last = old[name]
        waiting = []
    begin = 0 if last is None else last + ORDER_STEP
    return given | {name: begin + place * ORDER_STEP for place, name in enumerate(waiting)}


def _anew(names: Sequence[str]) -> dict[str, int]:
    return {name: place * ORDER_STEP for place, name in enumerate(names)}


def _between(low: int | None, high: int, count: int) -> list[int] | None:
    """So many numbers between two others, evenly spread; `None` when there is no room."""
    if low is None:
        return [high - ORDER_STEP * (count - place) for place in range(count)]
    if high - low <= count:
        return None
    return [low + (high - low) * (place + 1) // (count + 1) for place in range(count)]


def needs_restart(old: Settings, new: Settings) -> list[str]:
    """Settings that differ and are read only when everything starts."""
    fixed = {
        "redis_url": (old.redis_url, new.redis_url),
        "state_dir": (old.state_dir, new.state_dir),
        "api.host": (old.api.host, new.api.host),
        "api.port": (old.api.port, new.api.port),
        "flower": (old.flower, new.flower),
        "jobs (of the API)": (old.jobs, new.jobs),
    }
    return [f"{name} takes effect when K-9 is started again" for name, (a, b) in fixed.items() if a != b]


def read_by_workers(settings: Settings) -> str:
    """What workers read of the configuration beside their backend; another value means another worker."""
    return settings.model_dump_json(include={"jobs", "models", "log_level", "embed_model"})
