"""Tenants, rules and strategies of `k9.toml`, and the detector, on the running stack."""

from __future__ import annotations

import pytest

from quartet import CLOUD, Answer, Quartet

EASY = "What is the difference between RAM and ROM?"


@pytest.mark.parametrize(
    ("tenant", "where"),
    [
        ("plain", ("local-small", "task-type:local small")),
        ("thrift", ("local-small", "cost-first:cheapest")),
        ("best", ("cloud-large", "quality-first:cloud")),
        ("clinic", ("local-small", "quality-first:strongest")),
    ],
)
def test_each_key_has_its_own_strategy_and_privacy(k9: Quartet, tenant: str, where: tuple[str, str]) -> None:
    answer = k9.chat(EASY, tenant=tenant)
    assert answer.where == where
    assert k9.route(answer.job, tenant)["strategy_by"] == ("default" if tenant == "plain" else "tenant")


def test_the_callers_word_beats_the_tenants_strategy_but_not_its_privacy(k9: Quartet) -> None:
    assert k9.chat(EASY, "auto:quality", tenant="thrift").where[0] == "cloud-large"
    assert k9.chat(EASY, tenant="best", k9={"strategy": "cost"}).where == (
        "local-small",
        "cost-first:cheapest",
    )
    stays = k9.chat(EASY, "auto:quality", tenant="clinic", k9={"privacy": "any"})
    assert stays.where[0] == "local-small"
    assert k9.route(stays.job, "clinic")["privacy_by"] == ["tenant"]
    assert k9.calls(*CLOUD) == 1


def test_controls_are_headers_too(k9: Quartet) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": EASY}]}
    sent = k9.post("/v1/chat/completions", body, x_k9_strategy="quality", x_k9_privacy="local-only")
    assert sent.where == ("local-small", "quality-first:strongest")
    told = k9.post("/v1/chat/completions", body, x_k9_task_type="code_refactor_review")
    assert told.where == ("cloud-large", "task-type:cloud large")


def test_a_tenant_without_a_budget_works_here_or_not_at_all(k9: Quartet) -> None:
    assert k9.chat(EASY, tenant="broke").where == ("local-small", "budget:exhausted")
    refused = k9.chat(EASY, "gpt-4o", tenant="broke")
    assert refused.status == 402
    assert refused.body["error"]["code"] == "budget_exhausted"
    assert k9.chat(EASY, tenant="broke", k9={"kind": "cloud"}).status == 402
    assert k9.calls(*CLOUD) == 0


def test_a_budget_is_spent_and_then_the_work_stays_here(k9: Quartet) -> None:
    answers: list[Answer] = []
    while not answers or answers[-1].backend in CLOUD:
        answers.append(k9.chat(f"{EASY} ({len(answers)})", tenant="poor", max_tokens=16))
        assert answers[-1].status == 200
        assert len(answers) < 40, "the budget is never exhausted"
    assert answers[0].where == ("cloud-large", "quality-first:cloud")
    assert answers[-1].where == ("local-small", "budget:exhausted")
    # What is left for the large model is still enough for some of the mini model's.
    assert {one.backend for one in answers} >= {"cloud-large", "local-small"}
    budget = k9.get("/v1/usage", "poor")["budget"]
    assert 0.0003 < budget["spent_usd"] <= 0.0004


def test_a_strategy_of_ones_own_extends_another(k9: Quartet) -> None:
    assert k9.chat("Translate into Spanish: The train is late.", tenant="agency").where == (
        "cloud-mini",
        "agency:cloud small",
    )
    assert k9.chat(EASY, tenant="agency").where == ("local-small", "agency:local small")


def test_a_strategy_of_ones_own_weighs(k9: Quartet) -> None:
    answer = k9.chat(EASY, "auto:value")
    assert answer.where == ("cloud-mini", "value:strongest")
    scores = k9.route(answer.job)["candidates"][0]["scores"]
    assert scores.keys() == {"quality", "cost"}


def test_a_rule_gives_the_task_type(k9: Quartet) -> None:
    answer = k9.chat("Write a poem about the sea.", tenant="desk")
    assert answer.headers["x-k9-task-type"] == "extraction_classification"
    assert answer.where == ("local-small", "task-type:local small")
    assert k9.route(answer.job, "desk")["task_type_by"] == "rule:tickets"
    assert k9.chat("Write a poem about the sea.").where[0] == "cloud-large"


def test_a_rule_says_where_to_go(k9: Quartet) -> None:
    assert k9.chat(EASY, tenant="lab").where == ("local-code", "task-type:local code")


def test_a_rule_keeps_what_is_long_here(k9: Quartet) -> None:
    contract = (
        "Write an essay on this clause of the contract: " + "The tenant shall keep the hall in repair. " * 5
    )
    stays = k9.chat(contract, tenant="lawyer")
    assert stays.where[0] == "local-small"
    assert k9.route(stays.job, "lawyer")["privacy_by"] == ["rule:contracts"]
    assert k9.chat("Write a poem about the sea.", tenant="lawyer").where[0] == "cloud-large"


def test_an_address_stays_here_whatever_the_caller_says(k9: Quartet) -> None:
    text = "Write a poem for Mr Okafor, m.okafor@harbourlane.org, about his boat."
    for wish in ({}, {"privacy": "any"}, {"strategy": "quality"}):
        stays = k9.chat(text, k9=wish)
        assert stays.where[0] == "local-small"
        route = k9.route(stays.job)
        assert route["privacy"] == "local-only"
        assert route["privacy_by"] == ["found:email"]
        removed = {one["backend"]: one["reason"] for one in route["removals"]}
        assert {removed[name] for name in CLOUD} == {"privacy:local-only"}
    refused = k9.chat(text, "gpt-4o", k9={"privacy": "any"})
    assert refused.status == 403
    assert "email" in refused.body["error"]["message"]
    assert "okafor" not in str(refused.body).lower()
    assert k9.calls(*CLOUD) == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Why was my card 4916 2508 3174 6058 declined?", "payment_card"),
        ("Write a press release about project larkspur.", "word"),
    ],
)
def test_cards_and_configured_words_stay_here(k9: Quartet, text: str, found: str) -> None:
    stays = k9.chat(text, "auto:quality")
    assert stays.where[0] == "local-small"
    assert k9.route(stays.job)["privacy_by"] == [f"found:{found}"]
    assert k9.calls(*CLOUD) == 0


def test_a_prompt_too_long_for_the_small_windows_goes_where_it_fits(k9: Quartet) -> None:
    text = (
        "Summarize the following text in three sentences: " + "The working group came to section two. " * 600
    )
    answer = k9.chat(text)
    assert answer.where == ("cloud-mini", "task-type:cloud small")
    removed = {one.get("model"): one["reason"] for one in k9.route(answer.job)["removals"]}
    assert removed["llama3.1:8b"] == removed["qwen2.5-coder:7b"] == "context-window"


def test_embeddings_stay_with_the_local_model(k9: Quartet) -> None:
    for model in ("auto", "auto:quality", "auto:latency"):
        answer = k9.post("/v1/embeddings", {"model": model, "input": ["a dog", "a puppy"]}, "best")
        assert answer.where[0] == "local-small"
        assert answer.headers["x-k9-task-type"] == "embeddings"


def test_a_dry_run_says_what_the_real_run_does(k9: Quartet) -> None:
    body = {"model": "auto:cost", "messages": [{"role": "user", "content": EASY}]}
    planned = k9.post("/v1/route", body)
    assert k9.calls(*CLOUD, "local-small", "local-code") == 0
    done = k9.post("/v1/chat/completions", body)
    choice = planned.body["choice"]
    assert done.where == (choice["backend"], choice["reason"])
    route = k9.route(done.job)
    assert [(one["backend"], one["scores"]) for one in route["candidates"]] == [
        (one["backend"], one["scores"]) for one in planned.body["candidates"]
    ]
