"""Local queues at their mark: the next candidate is a cloud's, but never for what must stay here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleets import CODE, SMALL
from quartet import CLOUD, LOCAL, MARK, SLOTS, Quartet
from stand import wait_until

QUESTION = "How do I reset my password?"


def who(number: int) -> str:
    """Each fourth is another tenant: none fills a queue alone."""
    return "plain" if number % 4 else "clinic"


@pytest.fixture
def full(k9: Quartet) -> Iterator[Quartet]:
    """Local backends that do not answer, with every slot taken and queues at their marks."""
    jobs: list[str] = []
    models = dict(zip(LOCAL, (SMALL, CODE), strict=True))

    def fill(count: int, of: str, what: str) -> None:
        for model in models.values():
            jobs.extend(k9.queue(f"{what} {number}", model, who(number)).job for number in range(count))
        wait_until(lambda: all(k9.depth(name)[of] == count for name in models), f"{count} {what} at each")

    try:
        for name in models:
            k9.fakes[name].behave(hang=True)
        fill(SLOTS, "in_flight", "running")
        fill(MARK, "waiting", "waiting")
        yield k9
    finally:
        for tenant in ("plain", "clinic"):
            k9.cancel(jobs, tenant)


def test_the_next_candidate_takes_what_the_local_queues_cannot(full: Quartet) -> None:
    answer = full.chat(QUESTION)
    assert answer.where == ("cloud-mini", "overflow:depth")
    job = full.get(f"/v1/jobs/{answer.job}")
    assert job["skipped"][:2] == ["local-small: overflow:depth", "local-code: overflow:depth"]
    passed = full.route(answer.job)["passed"]
    assert [(one["backend"], one["reason"]) for one in passed] == [
        ("local-small", "overflow:depth"),
        ("local-code", "overflow:depth"),
    ]


@pytest.mark.parametrize(
    ("text", "tenant", "k9_object"),
    [
        (QUESTION, "plain", {"privacy": "local-only"}),
        (QUESTION, "clinic", {}),
        (
            "Write to Mr Okafor (m.okafor@harbourlane.org) that his order is late.",
            "plain",
            {"privacy": "any"},
        ),
    ],
    ids=["caller", "tenant", "detector"],
)
def test_what_must_stay_here_waits_for_room_here(
    full: Quartet, text: str, tenant: str, k9_object: dict[str, str]
) -> None:
    before = full.calls(*CLOUD)
    refused = full.chat(text, tenant=tenant, k9=k9_object)
    assert refused.status == 503
    assert refused.body["error"]["code"] == "queue_full"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "harbourlane" not in str(refused.body)
    assert full.calls(*CLOUD) == before


def test_a_model_that_is_only_here_is_not_replaced(full: Quartet) -> None:
    before = full.calls(*CLOUD)
    assert full.chat(QUESTION, SMALL).status == 503
    assert full.chat(QUESTION, "house").status == 503
    assert full.calls(*CLOUD) == before


def test_room_again_means_here_again(k9: Quartet) -> None:
    k9.fakes["local-small"].behave(hang=True)
    jobs = [k9.queue(f"fills {number}", SMALL).job for number in range(SLOTS)]
    wait_until(lambda: k9.depth("local-small")["in_flight"] == SLOTS, "the slots are taken")
    jobs += [k9.queue(f"waits {number}", SMALL, who(number)).job for number in range(MARK)]
    try:
        assert k9.chat(QUESTION).where == ("local-code", "overflow:depth")
    finally:
        for tenant in ("plain", "clinic"):
            k9.cancel(jobs, tenant)
    k9.reset()
    assert k9.chat(QUESTION).where == ("local-small", "task-type:local small")
