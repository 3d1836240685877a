"""Which instance gets a call, and what keeps requests at one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from k9_broker.backends import Affinity
from k9_broker.balance import InstanceView, Pace, affinity_key, choose, paces
from k9_broker.requests import InferenceRequest, Operation


def view(name: str = "a", **more: Any) -> InstanceView:
    return InstanceView(name=name, **{"slots": 4, **more})


@pytest.mark.parametrize(
    ("views", "chosen"),
    [
        ([], None),
        ([view(fit=False)], None),
        ([view(in_flight=9)], 0),  # full, and the only one
        ([view(in_flight=2), view(in_flight=1)], 1),
        ([view(in_flight=1), view(in_flight=1)], 0),  # equals: the first
        ([view(in_flight=1, picks=3), view(in_flight=1, picks=2)], 1),  # the one chosen less lately
        ([view(fit=False), view(in_flight=3)], 1),
        ([view(in_flight=1, slots=2), view(in_flight=2, slots=8)], 1),  # a quarter is less than a half
        ([view(in_flight=1), view(in_flight=2, weight=3)], 1),
        ([view(in_flight=1), view(foreign=3)], 0),  # others' calls count
        ([view(in_flight=4), view(in_flight=3, pace=20)], 1),  # slow, and yet not full
        ([view(in_flight=4, foreign=2), view(in_flight=4)], 1),  # all full: the least busy
        ([view(pace=3), view(in_flight=3)], 1),  # three times as slow costs more than three calls
        ([view(pace=1.5), view(in_flight=3)], 0),
        ([view(pace=1.2, in_flight=1), view(in_flight=2)], 0),
        ([view(pace=1.2), view(picks=1)], 0),  # a fifth slower is no slower
        ([view(shaken=True), view(in_flight=4)], 1),  # one that has just failed, and one that is full
        ([view(shaken=True), view(in_flight=5)], 0),  # not more than one too many
        ([view(shaken=True), view(fit=False)], 0),
        ([view(loaded=False), view(loaded=True, in_flight=3)], 1),
        ([view(loaded=False), view(loaded=True, in_flight=4)], 0),  # full: another loads it too
        ([view(loaded=False, in_flight=1), view(loaded=False)], 1),
        ([view(loaded=None, in_flight=1), view(loaded=True, in_flight=2)], 0),
    ],
)
def test_the_one_that_is_predicted_to_finish_first(views: list[InstanceView], chosen: int | None) -> None:
    assert choose(views) == chosen


def run(views: list[InstanceView], calls: int, key: str | None = None) -> list[int]:
    """So many calls that never end; gives how many each instance has got."""
    views = list(views)
    for _ in range(calls):
        place = choose(views, key)
        assert place is not None
        one = views[place]
        views[place] = one._replace(in_flight=one.in_flight + 1, picks=one.picks + 1)
    return [one.in_flight for one in views]


def test_equals_share_and_weights_and_slots_divide() -> None:
    assert run([view("a", slots=100), view("b", slots=100), view("c", slots=100)], 30) == [10, 10, 10]
    assert run([view("a", slots=100, weight=2), view("b", slots=100)], 30) == [20, 10]
    assert run([view("a", slots=60), view("b", slots=30)], 30) == [20, 10]


def test_one_after_the_other_idle_instances_take_turns() -> None:
    views = [view("a"), view("b", weight=2), view("c")]
    taken: Counter[int] = Counter()
    for _ in range(40):
        place = choose(views)
        assert place is not None
        taken[place] += 1
        views[place] = views[place]._replace(picks=views[place].picks + 1)
    assert taken == {0: 10, 1: 20, 2: 10}


def test_a_key_stays_until_its_instance_is_much_busier() -> None:
    views = [view(name, slots=8) for name in "abc"]
    home = choose(views, "k")
    assert home is not None
    assert all(choose(views, "k") == home for _ in range(5))
    views[home] = views[home]._replace(in_flight=1)
    assert choose(views, "k") == home
    views[home] = views[home]._replace(in_flight=2)
    second = choose(views, "k")
    assert second not in (None, home)
    # and its second home is as constant as the first
    gone = [one._replace(fit=index != home, in_flight=0) for index, one in enumerate(views)]
    assert choose(gone, "k") == second


def test_one_key_alone_cannot_overload_an_instance() -> None:
    assert max(run([view(name, slots=8) for name in "abcd"], 24, "everybody")) <= 9


def test_an_instance_that_goes_moves_only_its_own_keys() -> None:
    views = [view(name) for name in "abcd"]
    homes = {f"k{number}": choose(views, f"k{number}") for number in range(400)}
    shares = Counter(homes.values())
    assert all(60 <= share <= 140 for share in shares.values())
    views[1] = views[1]._replace(fit=False)
    for key, home in homes.items():
        assert (choose(views, key) == home) == (home != 1)


# -- what keeps requests at one instance -------------------------------------------------------------


def key(affinity: Affinity, **body: Any) -> str | None:
    return affinity_key(InferenceRequest(Operation.CHAT, "m", body), affinity)


def said(*turns: str, system: str = "") -> dict[str, Any]:
    first = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return {"messages": first + [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]}


@pytest.mark.parametrize(
    ("body", "like"),
    [
        ({"prompt_cache_key": "x"}, {"user": "x"}),
        ({"prompt_cache_key": "x", "user": "y"}, {"user": "x"}),
        ({"user": "x", "metadata": {"session_id": "y"}}, {"user": "x"}),
        ({"metadata": {"session_id": "x"}}, {"user": "x"}),
    ],
)
def test_sessions(body: dict[str, Any], like: dict[str, Any]) -> None:
    assert key("session", **body) == key("session", **like) is not None
    assert key("session", user="z") != key("session", **like)


@pytest.mark.parametrize("body", [{}, {"user": ""}, {"user": 3}, {"metadata": "x"}, {"metadata": {}}])
def test_no_session_no_key(body: dict[str, Any]) -> None:
    assert key("session", **body) is None


def test_later_turns_of_a_conversation_have_the_key_of_the_first() -> None:
    first = key("prefix", **said("hello", system="be kind"))
    assert first == key("prefix", **said("hello", "hi", "and now?", system="be kind"))
    assert first != key("prefix", **said("another", system="be kind"))
    assert first != key("prefix", **said("hello", system="be brief"))


def test_prompts_that_share_a_long_beginning_share_the_key() -> None:
    long = "word " * 300
    assert key("prefix", **said("a", system=long)) == key("prefix", **said("b", system=long))
    parts = [{"type": "text", "text": long}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    body = {"messages": [{"role": "user", "content": parts}]}
    assert key("prefix", **body) == key("prefix", **said(long)) == key("prefix", prompt=long)


@pytest.mark.parametrize(
    "body", [{}, {"input": "x"}, {"messages": "x"}, {"messages": [3, {}]}, {"prompt": 3}]
)
def test_no_beginning_no_key(body: dict[str, Any]) -> None:
    assert key("prefix", **body) in (None, key("prefix", messages=[{"role": "user", "content": ""}]))


def test_the_key_tells_nothing_of_the_text() -> None:
    found = key("prefix", **said("my secret"))
    assert found is not None
    assert len(found) == 16
    assert key("none", user="x", **said("a")) is None


# -- paces -------------------------------------------------------------------------------------------


def test_a_pace_follows_and_fades_towards_the_fastest() -> None:
    pace = Pace(1.0, 0.0)
    for _ in range(20):
        pace = pace.observed(3.0, 10.0)
    assert pace.at(10.0, 1.0) == pytest.approx(3.0, rel=0.02)
    assert pace.at(25.0, 1.0) == pytest.approx(2.0, rel=0.02)
    assert pace.at(1e6, 1.0) == pytest.approx(1.0)
    assert paces([Pace(1.0, 0.0), None, Pace(3.0, 0.0)], 0.0) == [1.0, 1.0, 3.0]
    assert paces([None, None], 0.0) == [1.0, 1.0]


def test_one_that_was_slow_is_tried_again_after_a_while() -> None:
    known, taken = [Pace(1.0, 0.0), Pace(3.0, 0.0)], []
    for second in range(1, 120):
        now = float(second)
        views = [
            view("ab"[place], pace=pace, picks=float(taken.count(place)))
            for place, pace in enumerate(paces(known, now))
        ]
        place = choose(views)
        assert place is not None
        taken.append(place)
        known[place] = known[place].observed(1.0, now)  # it is no longer slow
    assert 30 < taken.index(1) < 60
    assert taken[-20:].count(1) >= 10
