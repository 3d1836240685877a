"""Where a request would go, and where it went, asked of the whole stack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fleets import CODE, EMBED, LARGE, MINI, SMALL
from routed import Routed
from stand import wait_until

CHAT = "/v1/chat/completions"
PROMPTS = [
    "What is the capital of France?",
    "Write a Python function that checks whether a string is a palindrome.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Refactor this so that it can be tested:\n\nclass A:\n    def f(self):\n        return open('x').read()",
    "Prove that the square root of two is irrational, then generalise the proof to every prime.",
    "Write a short story about a lighthouse keeper who is afraid of the dark.",
    "Summarise in one sentence: The committee met on Tuesday and agreed to meet again on Thursday.",
    "Extract all dates as JSON: On 3 May 2021 we met, and on 7 June 2022 we parted.",
    "Translate to German: Where is the nearest railway station?",
    "hi, how are you doing today?",
    "请把这句话翻译成英文：今天天气很好。",
    "Meine Adresse ist erika@example.org, bitte fasse den Text zusammen.",
]
WISHES: list[dict[str, Any]] = [
    {"model": "auto"},
    {"model": "auto:cost"},
    {"model": "auto", "k9": {"strategy": "quality-first"}},
    {"model": "small", "k9": {"strategy": "careful", "privacy": "local-only"}},
]
SLOW: dict[str, Any] = {"tokens_per_second": 20, "answer_tokens": 2000}


@pytest.fixture
def http(four: Routed) -> Iterator[httpx.Client]:
    with four.client() as client:
        yield client


@pytest.fixture
def poor(four: Routed) -> Iterator[httpx.Client]:
    with four.client("poor") as client:
        yield client


def chat(text: str = "hello", model: str = "auto", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def planned(http: httpx.Client, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    reply = http.post("/v1/route", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


# -- a plan ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wishes", WISHES, ids=repr)
def test_a_plan_is_what_then_happens(four: Routed, http: httpx.Client, wishes: dict[str, Any]) -> None:
    for text in PROMPTS:
        body = {**chat(text), **wishes}
        plan = planned(http, body)
        before = four.fake.stats()["inferences"]
        reply = http.post(CHAT, json=body)
        assert reply.status_code == 200, reply.text
        assert four.fake.stats()["inferences"] == before + 1
        happened = {name: reply.headers[f"x-k9-{name}"] for name in ("backend", "model", "kind", "reason")}
        assert {name: plan["choice"][name] for name in happened} == happened
        assert reply.headers["x-k9-strategy"] == plan["strategy"]
        assert reply.headers["x-k9-task-type"] == plan["task_type"]
        assert reply.json()["model"] == plan["choice"]["model"]
        assert float(reply.headers["x-k9-cost-usd"]) >= 0
        past = http.get(f"/v1/jobs/{reply.headers['x-k9-job']}/route").json()
        of_the_request = plan.keys() - {"candidates", "choice"}  # those tell of times, which pass
        assert {name: past[name] for name in of_the_request} == {name: plan[name] for name in of_the_request}
        assert [one["model"] for one in past["candidates"]] == [one["model"] for one in plan["candidates"]]


def test_a_plan_tells_everything_and_sends_nothing(four: Routed, http: httpx.Client) -> None:
    plan = planned(http, chat("What is the capital of France?", max_tokens=20))
    assert (plan["object"], plan["endpoint"], plan["asked_model"]) == ("route", CHAT, "auto")
    assert (plan["strategy"], plan["strategy_by"], plan["priority"]) == (
        "task-type",
        "default",
        "interactive",
    )
    assert 0 <= plan["confidence"] <= 1
    assert 0 <= plan["needs_strong"] <= 1
    assert (plan["privacy"], plan["privacy_by"], plan["output_tokens"]) == ("any", [], 20)
    assert {one["model"] for one in plan["candidates"]} == {SMALL, CODE, LARGE, MINI}
    for one in plan["candidates"]:
        assert one.keys() == {
            *("backend", "model", "kind", "reason", "score", "scores"),
            *("cost_usd", "wait_seconds", "seconds"),
        }
    assert plan["choice"] == plan["candidates"][0]
    assert (plan["passed"], plan["refusal"]) == ([], None)
    assert plan["compared_with"] in (LARGE, MINI)
    assert plan["compared_cost_usd"] > 0
    assert four.fake.stats()["inferences"] == 0
    assert all(one["in_flight"] == 0 for one in http.get("/v1/queues").json()["data"])


def test_a_plan_leaves_no_trace(four: Routed, http: httpx.Client) -> None:
    secret = "zebra-quartz-manifesto"
    jobs = set(four.redis.client.scan_iter("k9:job:*"))
    planned(http, chat(secret))
    planned(http, chat(secret, model="nobody"))
    assert http.post("/v1/route", json={"messages": secret}).status_code == 400
    assert set(four.redis.client.scan_iter("k9:job:*")) == jobs
    assert secret not in http.get("/metrics").text
    assert four.api is not None
    assert secret not in "".join(child.log for child in (four.api, *four.workers.values()))


def test_any_body_has_a_plan(http: httpx.Client) -> None:
    hello = chat()["messages"]
    for body, endpoint in [
        ({"messages": hello}, CHAT),
        ({"prompt": "a", "suffix": "b"}, "/v1/completions"),
        ({"input": ["a", "b"]}, "/v1/embeddings"),
        ({"endpoint": CHAT, "body": {"messages": hello}, "priority": "batch"}, CHAT),
    ]:
        plan = planned(http, body)
        assert (plan["endpoint"], plan["asked_model"]) == (endpoint, "auto")
        assert plan["choice"]["backend"]
    assert plan["priority"] == "batch"
    embedded = planned(http, {"input": "a"})
    assert (embedded["choice"]["model"], embedded["task_type"]) == (EMBED, "embeddings")
    assert planned(http, {"prompt": "a", "suffix": "b"})["task_type"] == "code_completion"


def test_who_wished_what_is_told(four: Routed, http: httpx.Client, poor: httpx.Client) -> None:
    wished = planned(http, chat(), **{"X-K9-Task-Type": "translation", "X-K9-Strategy": "quality"})
    assert (wished["task_type"], wished["task_type_by"], wished["confidence"]) == ("translation", "caller", 1)
    assert (wished["strategy"], wished["strategy_by"]) == ("quality-first", "caller")
    local = planned(http, chat(model="auto:quality"), **{"X-K9-Privacy": "local-only"})
    assert (local["privacy"], local["privacy_by"], local["choice"]["kind"]) == (
        "local-only", ["caller"], "local",
    )  # fmt: skip
    able = {one["reason"] for one in local["removals"]} - {"operation-not-supported"}
    assert able == {"privacy:local-only"}
    assert planned(poor, chat())["strategy_by"] == "tenant"
    with four.client("acme") as acme:
        assert planned(acme, chat(model="auto:quality"))["privacy_by"] == ["rule:contracts stay"]


REFUSED: list[tuple[dict[str, Any], str, int]] = [
    (chat(model="nobody"), "model_not_found", 404),
    (chat(model="nobody-has-it"), "model_not_found", 404),
    (chat(model=LARGE, k9={"privacy": "local-only"}), "privacy_refused", 403),
    (chat(model=SMALL, k9={"kind": "cloud"}), "model_not_found", 404),
    (chat(model=SMALL, max_tokens=9000), "context_length_exceeded", 400),
    (chat(model=EMBED), "model_not_found", 404),
]


@pytest.mark.parametrize(("body", "code", "status"), REFUSED, ids=lambda one: one if type(one) is str else "")
def test_a_refusal_is_planned_word_for_word(
    http: httpx.Client, body: dict[str, Any], code: str, status: int
) -> None:
    plan = planned(http, body)
    assert (plan["choice"], plan["refusal"]["code"]) == (None, code)
    real = http.post(CHAT, json=body)
    assert (real.status_code, real.json()["error"]) == (status, plan["refusal"])
    assert plan["removals"]


def test_a_budget_that_is_exhausted_leaves_what_costs_nothing(four: Routed, poor: httpx.Client) -> None:
    plan = planned(poor, chat())
    assert [one["reason"] for one in plan["passed"]] == ["budget:exhausted"] * 2
    assert (plan["choice"]["kind"], plan["choice"]["reason"]) == ("local", "budget:exhausted")
    reply = poor.post(CHAT, json=chat())
    assert (reply.headers["x-k9-kind"], reply.headers["x-k9-reason"]) == ("local", "budget:exhausted")
    past = poor.get(f"/v1/jobs/{reply.headers['x-k9-job']}/route").json()
    assert past["passed"] == plan["passed"]
    assert past["choice"]["model"] == plan["choice"]["model"]
    only_cloud = chat(k9={"kind": "cloud"})
    assert planned(poor, only_cloud)["refusal"]["code"] == "budget_exhausted"
    refused = poor.post(CHAT, json=only_cloud)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "budget_exhausted")
    assert "x-should-retry" not in refused.headers
    budget = poor.get("/v1/usage").json()["budget"]
    assert budget == {"usd_per_day": 1e-6, "spent_usd": 0, "remaining_usd": 1e-6}


def test_full_queues_are_planned_around(four: Routed, http: httpx.Client) -> None:
    four.fake.behave(**SLOW)
    job = {"endpoint": CHAT, "body": chat(model=SMALL)}
    # Some may be refused at first: the queue is short, and workers need a moment to take from it.
    jobs = [wait_until(lambda: http.post("/v1/jobs", json=job).json().get("id"), "room") for _ in range(7)]
    try:
        wait_until(lambda: planned(http, chat(model=SMALL))["refusal"], "the queue is seen to be full", 10)
        real = http.post(CHAT, json=chat(model=SMALL))
        assert (real.status_code, real.json()["error"]["code"]) == (503, "queue_full")
        assert planned(http, chat(model=SMALL))["refusal"] == real.json()["error"]
        body = chat(model="small", k9={"strategy": "cost"})
        plan = planned(http, body)
        assert plan["passed"] == [{"backend": "local-small", "model": SMALL, "reason": "overflow:depth"}]
        assert (plan["choice"]["model"], plan["choice"]["reason"]) == (MINI, "overflow:depth")
        moved = http.post("/v1/jobs", json={"endpoint": CHAT, "body": body}).json()
        jobs.append(moved["id"])
        assert (moved["model"], moved["reason"], moved["asked_model"]) == (MINI, "overflow:depth", "small")
        assert http.get(f"/v1/jobs/{moved['id']}/route").json()["passed"] == plan["passed"]
    finally:
        for job_id in jobs:
            http.delete(f"/v1/jobs/{job_id}")
        wait_until(lambda: four.fake.stats()["active"] == 0, "all calls were closed")


BAD: list[tuple[dict[str, Any], dict[str, str], str | None]] = [
    ({}, {}, None),
    ({"model": "auto"}, {}, None),
    ({"messages": "secret"}, {}, "messages"),
    (chat(k9={"stratagy": "secret"}), {}, "k9.stratagy"),
    (chat(), {"X-K9-Privacy": "secret"}, "X-K9-Privacy"),
    (chat(), {"X-K9-Strateg": "secret"}, "X-K9-Strateg"),
    ({"endpoint": CHAT, "body": {"model": "m"}}, {}, "body.messages"),
]


@pytest.mark.parametrize(("body", "headers", "param"), BAD)
def test_a_bad_body_has_no_plan(
    http: httpx.Client, body: dict[str, Any], headers: dict[str, str], param: str | None
) -> None:
    reply = http.post("/v1/route", json=body, headers=headers)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert "secret" not in reply.text


@pytest.mark.parametrize("path", ["/v1/route", CHAT])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat(model="auto:nonsense"), "model"),
        (chat(model="auto:"), "model"),
        (chat(k9={"strategy": "nonsense"}), "strategy"),
        (chat(model=SMALL, k9={"strategy": "nonsense"}), "strategy"),
    ],
)
def test_an_unknown_strategy_is_told_which_there_are(
    http: httpx.Client, path: str, body: dict[str, Any], param: str
) -> None:
    reply = http.post(path, json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, param, "invalid_request")
    for name in ("careful", "cost-first", "latency-first", "quality-first", "task-type"):
        assert name in error["message"]


def test_a_plan_and_a_past_job_are_for_their_own_tenant(four: Routed, http: httpx.Client) -> None:
    job_id = http.post(CHAT, json=chat()).headers["x-k9-job"]
    with four.client("acme") as other, httpx.Client(base_url=four.url) as nobody:
        assert other.get(f"/v1/jobs/{job_id}/route").status_code == 404
        assert nobody.get(f"/v1/jobs/{job_id}/route").status_code == 401
        assert nobody.post("/v1/route", json=chat()).status_code == 401
        assert nobody.get("/v1/usage").status_code == 401
    missing = http.get(f"/v1/jobs/job-{'0' * 26}/route")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "job_not_found")
    past = http.get(f"/v1/jobs/{job_id}/route").json()
    assert (past["job"], past["state"], past["error"]) == (job_id, "succeeded", None)
    assert past["queue_seconds"] >= 0
    assert past["usage"]["completion_tokens"] > 0
    assert past["cost_usd"] >= 0
    assert past["cloud_cost_usd"] > 0
