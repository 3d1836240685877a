"""Which instance of a backend gets a call: the one that is predicted to finish it first.

Of the instances that are fit, those that have just failed and those that are full are left out while
there are others; where models are loaded on demand, one that has the model loaded comes before one
that would have to load it. Among the rest a call is predicted to take

    pace * (1 + (own calls + others' calls) / (slots * weight))

where the pace is how long calls take there lately; one within `NEAR` of the fastest counts as that. The
least wins; of equals the one that was chosen least lately for its slots and weight, so that nobody herds.

With an affinity, requests of one key stay at one instance, so that its cache is of use: rendezvous
hashing gives every key its order of instances, which all workers agree on and which moves only the
keys of an instance that goes. With bounded load: the first one of that order whose load is at most
`BOUND` times the least busy one's, and `BOUND_SLOTS` calls more. (Thaler and Ravishankar 1998;
Mirrokni, Thorup and Zadimoghaddam 2016.)

Pure: time is passed in, in seconds of any clock that does not go back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple

from k9_broker.backends import Affinity
from k9_broker.requests import InferenceRequest

NEAR = 1.25
"""Calls differ, and paces with them: a smaller ratio says nothing."""
BOUND, BOUND_SLOTS = 1.25, 1.0
PREFIX_CHARACTERS = 1024
"""The beginning of a prompt that tells whether two requests share it."""
NEWEST = 0.2
"""Least weight of the newest call in a pace; of the first few it is their mean."""
PACE_HALF_LIFE = 15.0
"""Seconds without calls in which what is known of a pace loses half of its weight."""


class InstanceView(NamedTuple):
    """One instance as it is in the moment of choice. A tuple, for one of each is made for every call."""

    name: str
    slots: int
    weight: float = 1.0
    fit: bool = True
    """Its circuit lets a call through."""
    shaken: bool = False
    """It has just failed."""
    in_flight: int = 0
    """This worker's calls there."""
    foreign: int = 0
    """Others' calls there, as the server says."""
    pace: float = 1.0
    """Seconds a call takes there, in any unit that is the same for all."""
    loaded: bool | None = None
    """Whether the model is in its memory; `None`: not known, or always."""
    picks: float = 0.0
    """How often it was chosen lately."""

    @property
    def busy(self) -> float:
        """How much of it is taken: 1 is all its slots, at a weight of 1."""
        return (self.in_flight + self.foreign) / (self.slots * self.weight)


def choose(views: Sequence[InstanceView], affinity: str | None = None) -> int | None:
    """The place in `views` of the instance to call; `None` when none is fit."""
    able = [(index, view) for index, view in enumerate(views) if view.fit]
    if len(able) < 2:
        return able[0][0] if able else None
    # A shaken one is avoided even at the price of one call too many at another.
    able = _rather(able, lambda view: not view.shaken and view.in_flight <= view.slots)
    able = _rather(able, lambda view: view.in_flight < view.slots)
    able = _rather(able, lambda view: view.loaded is not False)
    if affinity is not None:
        return _favoured(able, affinity)
    fastest = min(view.pace for _, view in able)

    def rank(pair: tuple[int, InstanceView]) -> tuple[float, float, int]:
        index, view = pair
        pace = fastest if view.pace <= NEAR * fastest else view.pace
        return pace * (1.0 + view.busy), view.picks / (view.slots * view.weight), index

    return min(able, key=rank)[0]


def affinity_key(request: InferenceRequest, affinity: Affinity) -> str | None:
    """What keeps the request at one instance, as a hash; `None` when nothing does.

    `session`: the caller's `prompt_cache_key`, `user` or `metadata.session_id`, the first that is there.
    `prefix`: the beginning of the prompt, up to and including the first message that is not the system's.
    """
    if affinity == "none":
        return None
    said = _session(request.body) if affinity == "session" else _prefix(request.body)
    return blake2b(said.encode("utf-8", "replace"), digest_size=8).hexdigest() if said else None


@dataclass(frozen=True, slots=True)
class Pace:
    """How long calls take at an instance: a decaying mean of seconds for each unit of work."""

    seconds: float
    seen: float
    calls: int = 1

    def observed(self, seconds: float, now: float) -> Pace:
        calls = self.calls + 1
        kept = (1 - max(NEWEST, 1 / calls)) * self._share(now)
        return Pace(seconds + kept * (self.seconds - seconds), now, calls)

    def at(self, now: float, fastest: float) -> float:
        """The pace to go by now; without calls it goes towards the fastest, so that it is tried again."""
        return fastest + self._share(now) * (self.seconds - fastest)

    def _share(self, now: float) -> float:
        share: float = 2.0 ** (-max(0.0, now - self.seen) / PACE_HALF_LIFE)
        return share


def paces(known: Sequence[Pace | None], now: float) -> list[float]:
    """What to predict with: an instance nobody knows yet counts as the fastest of those that are known."""
    fastest = min((pace.seconds for pace in known if pace is not None), default=1.0)
    return [fastest if pace is None else pace.at(now, fastest) for pace in known]


_Able = list[tuple[int, InstanceView]]


def _rather(able: _Able, wish: Callable[[InstanceView], bool]) -> _Able:
    return [pair for pair in able if wish(pair[1])] or able


def _favoured(able: _Able, key: str) -> int:
    least = min(view.busy for _, view in able)
    order = sorted(able, key=lambda pair: _rendezvous(key, pair[1]))
    for index, view in order:
        size = view.slots * view.weight
        if view.busy * size <= BOUND * least * size + BOUND_SLOTS:
            return index
    return min(able, key=lambda pair: pair[1].busy)[0]


def _rendezvous(key: str, view: InstanceView) -> float:
    """The lower the earlier; an instance of twice the slots and weight is first for twice the keys."""
    digest = blake2b(f"{key} {view.name}".encode(), digest_size=8).digest()
    share = (int.from_bytes(digest) + 0.5) / 2**64
    return -math.log(share) / (view.slots * view.weight)


def _session(body: Mapping[str, Any]) -> str:
    metadata = body.get("metadata")
    named = metadata.get("session_id") if isinstance(metadata, Mapping) else None
    said = (body.get("prompt_cache_key"), body.get("user"), named)
    return next((value for value in said if isinstance(value, str) and value), "")


def _prefix(body: Mapping[str, Any]) -> str:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return prompt[:PREFIX_CHARACTERS]
    messages = body.get("messages")
    beginning = ""
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, Mapping):
            continue
        beginning += "\n".join(chain(_texts(message.get("content")), [""]))
        if message.get("role") not in ("system", "developer") or len(beginning) >= PREFIX_CHARACTERS:
            break
    return beginning[:PREFIX_CHARACTERS]


def _texts(content: Any) -> Iterable[str]:
    if isinstance(content, str):
        return (content,)
    parts = content if isinstance(content, list) else ()
    return (part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str))
