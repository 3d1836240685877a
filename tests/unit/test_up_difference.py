"""What another configuration means for the workers that run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_api.up.difference import difference, needs_restart, orders, read_by_workers
from k9_api.up.plan import Process, worker
from k9_broker.backends import ORDER_STEP, Backend
from k9_broker.models import ModelCard
from k9_broker.settings import ApiSettings, JobSettings, Settings

NAMES = st.lists(st.sampled_from("abcdefghij"), unique=True)


def process(name: str, slots: int = 8, key: str = "") -> Process:
    backend = Backend(
        name=name, dialect="fake", url="http://x", slots=slots, api_key_env="KEY" if key else None
    )
    return worker(backend, 0, {}, {"KEY": key}, "redis://x")


def test_each_backend_is_added_removed_changed_or_kept() -> None:
    old = {name: process(name) for name in ("gone", "same", "other")}
    new = {"same": process("same"), "other": process("other", slots=9), "fresh": process("fresh")}
    what = difference(old, new)
    assert (what.added, what.removed, what.changed, what.kept) == (
        ("fresh",),
        ("gone",),
        ("other",),
        ("same",),
    )
    assert what.lines() == ["added: fresh", "changed: other", "removed: gone"]


def test_another_key_is_another_worker() -> None:
    assert difference({"a": process("a", key="one")}, {"a": process("a", key="two")}).changed == ("a",)


def test_a_name_of_its_own_does_not_make_a_worker_another() -> None:
    backend = Backend(name="a", dialect="fake", url="http://x")
    old, new = (worker(backend, 0, {}, {}, "redis://x", node=node) for node in (None, "k9-a.2@x"))
    assert difference({"a": old}, {"a": new}).kept == ("a",)
    assert difference({"a": old}, {"a": new}, all_changed=True).changed == ("a",)


def test_no_difference_says_so() -> None:
    assert difference({}, {}).lines() == ["no backend has changed"]


@pytest.mark.parametrize(
    ("old", "names", "expected"),
    [
        ({}, "abc", [0, ORDER_STEP, 2 * ORDER_STEP]),
        ({"a": 0, "b": 1000}, "abc", [0, 1000, 2000]),
        ({"a": 0, "b": 1000}, "acb", [0, 500, 1000]),
        ({"a": 0, "b": 1000}, "cab", [-1000, 0, 1000]),
        ({"a": 0, "b": 1000, "c": 2000}, "ac", [0, 2000]),
        ({"a": 0, "b": 1000}, "ba", [0, 1000]),
        ({"a": 0, "b": 1}, "acb", [0, 1000, 2000]),
    ],
)
def test_orders(old: dict[str, int], names: str, expected: list[int]) -> None:
    assert list(orders(old, names).values()) == expected


@given(NAMES, NAMES)
def test_orders_grow_and_stay_where_they_can(before: list[str], names: list[str]) -> None:
    old = orders({}, before)
    new = orders(old, names)
    assert list(new) == names or sorted(new, key=new.__getitem__) == names
    assert len(set(new.values())) == len(names)
    stay = [name for name in names if name in old]
    if stay == [name for name in before if name in stay]:
        assert all(new[name] == old[name] for name in stay)


def test_what_only_a_new_start_brings_is_named() -> None:
    old = Settings(state_dir=Path("/s"))
    assert needs_restart(old, old) == []
    new = Settings(state_dir=Path("/s"), api=ApiSettings(port=1), redis_url="redis://x")
    assert [line.split()[0] for line in needs_restart(old, new)] == ["redis_url", "api.port"]


def test_what_every_worker_reads_is_seen() -> None:
    old = Settings()
    for new in (Settings(jobs=JobSettings(lease_seconds=9)), Settings(models={"m": ModelCard(quality=0.5)})):
        assert read_by_workers(old) != read_by_workers(new)
    assert read_by_workers(old) == read_by_workers(Settings(aliases={"x": ["m"]}))
