"""What K-9 offers under `auto`, what work cost, and what the SDK makes of it, asked of the whole stack."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from fleets import CODE, EMBED, LARGE, MINI, SMALL
from routed import KEYS, Routed

CHAT = "/v1/chat/completions"


@pytest.fixture
def http(four: Routed) -> Iterator[httpx.Client]:
    with four.client() as client:
        yield client


def chat(text: str = "hello", model: str = "auto", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def test_models_end_with_the_names_that_leave_the_choice(http: httpx.Client) -> None:
    listed = http.get("/v1/models").json()["data"]
    names = [one["id"] for one in listed]
    assert set(names[:5]) == {SMALL, EMBED, CODE, LARGE, MINI}
    assert set(names[5:]) == {
        *("small", "auto", "auto:task-type", "auto:cost-first"),
        *("auto:quality-first", "auto:latency-first", "auto:careful"),
    }
    by_name = {one["id"]: one for one in listed}
    assert by_name["auto"]["k9"]["strategy"] == "task-type"
    assert by_name["auto:careful"]["k9"]["strategy"] == "careful"
    assert by_name["small"]["k9"]["models"] == [SMALL, MINI]
    assert by_name[EMBED]["k9"]["operations"] == ["embeddings"]
    assert "chat" in by_name["auto"]["k9"]["operations"]
    (place,) = by_name[LARGE]["k9"]["backends"]
    assert (place["name"], place["kind"], place["tags"]) == ("cloud-large", "cloud", ["large"])
    assert (place["quality"], place["context_window"]) == (0.9, 128_000)
    assert (place["input_usd"], place["output_usd"]) == (2.5, 10)
    for name, listed_as in (("auto:cost", "auto:cost-first"), ("auto", "auto"), ("small", "small")):
        one = http.get(f"/v1/models/{name}").json()
        assert one == {**by_name[listed_as], "id": name}
    for name in ("auto:", "auto:nonsense", "cost", "nobody-has-it", "auto:auto"):
        assert http.get(f"/v1/models/{name}").status_code == 404


def test_usage_adds_up(four: Routed) -> None:
    with four.client("counted") as http:
        empty = http.get("/v1/usage").json()
        assert (empty["data"], empty["total"]["jobs"], empty["budget"]) == ([], 0, None)
        bodies = [chat(), chat(model=LARGE), chat("again", model=LARGE), chat(model="auto:cost")]
        answers = [http.post(CHAT, json=body) for body in bodies]
        used = http.get("/v1/usage?days=1").json()
        costs = [float(answer.headers["x-k9-cost-usd"]) for answer in answers]
    assert (used["object"], used["tenant"], used["days"]) == ("usage", "counted", 1)
    total = used["total"]
    tokens = [answer.json()["usage"] for answer in answers]
    assert total["jobs"] == 4
    assert total["prompt_tokens"] == sum(one["prompt_tokens"] for one in tokens)
    assert total["completion_tokens"] == sum(one["completion_tokens"] for one in tokens)
    assert total["cost_usd"] == pytest.approx(sum(costs))
    assert costs[1] > costs[0] == 0
    assert total["saving_usd"] == pytest.approx(total["cloud_cost_usd"] - total["compared_cost_usd"])
    assert total["cloud_cost_usd"] > total["compared_cost_usd"]
    for parts in (used["data"], used["by_model"]):
        for name, whole in total.items():
            assert sum(part[name] for part in parts) == pytest.approx(whole), name
    today = datetime.now(UTC).date().isoformat()
    assert {(row["day"], row["model"], row["kind"]) for row in used["data"]} >= {(today, LARGE, "cloud")}
    assert used["by_model"][0]["model"] == LARGE


@pytest.mark.parametrize("days", ["0", "367", "-1", "1.5", "secret", ""])
def test_days_that_are_none_are_refused(http: httpx.Client, days: str) -> None:
    reply = http.get(f"/v1/usage?days={days}")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "days")
    assert "secret" not in reply.text


def test_a_whole_year_of_usage_is_quick(http: httpx.Client) -> None:
    assert http.get("/v1/usage?days=366").elapsed.total_seconds() < 5


def test_a_streamed_answer_tells_its_decision_but_not_yet_its_cost(http: httpx.Client) -> None:
    reply = http.post(CHAT, json=chat(model="auto:quality", stream=True))
    assert (reply.headers["x-k9-strategy"], reply.headers["x-k9-model"]) == ("quality-first", LARGE)
    assert reply.headers["x-k9-task-type"]
    assert "x-k9-cost-usd" not in reply.headers
    assert f'"model":"{LARGE}"' in reply.text
    assert '"auto' not in reply.text


def test_the_answer_names_the_model_that_was_chosen(http: httpx.Client) -> None:
    embedded = http.post("/v1/embeddings", json={"model": "auto", "input": "a"})
    assert embedded.json()["model"] == embedded.headers["x-k9-model"] == EMBED
    completed = http.post("/v1/completions", json={"model": "auto:quality", "prompt": "Once upon"})
    assert completed.json()["model"] == completed.headers["x-k9-model"] == LARGE
    for stream in (False, True):
        job = {"endpoint": CHAT, "body": chat(model="auto:quality", stream=stream)}
        done = http.post("/v1/jobs", json=job, headers={"prefer": "wait=20"}).json()
        assert (done["model"], done["asked_model"], done["result"]["model"]) == (LARGE, "auto:quality", LARGE)
        assert (done["strategy"], done["privacy"]) == ("quality-first", "any")


def test_decisions_are_counted(http: httpx.Client) -> None:
    http.post(CHAT, json=chat(model="auto:cost", k9={"task_type": "translation"}))
    wanted = 'k9_decisions_total{kind="local",strategy="cost-first",task_type="translation"}'
    assert wanted in http.get("/metrics").text


def test_the_sdk_raises_what_it_should(four: Routed) -> None:
    for tenant, wishes, kind, status in [
        ("default", {"privacy": "local-only"}, openai.PermissionDeniedError, 403),
        ("poor", {"kind": "cloud"}, openai.APIStatusError, 402),
        ("default", {"strategy": "nonsense"}, openai.BadRequestError, 400),
        ("default", {"task_type": "embeddings"}, openai.BadRequestError, 400),
    ]:
        with OpenAI(base_url=f"{four.url}/v1", api_key=KEYS[tenant], max_retries=2, timeout=20) as sdk:
            with pytest.raises(kind) as caught:
                sdk.chat.completions.create(
                    model=LARGE, messages=[{"role": "user", "content": "hi"}], extra_body={"k9": wishes}
                )
            assert type(caught.value) is kind
            assert caught.value.status_code == status
            assert isinstance(caught.value.body, dict)
            assert caught.value.body.keys() == {"message", "type", "param", "code"}
    assert four.fake.stats()["inferences"] == 0
    with OpenAI(base_url=f"{four.url}/v1", api_key=KEYS["default"], timeout=20) as sdk:
        answer = sdk.chat.completions.create(model="auto", messages=[{"role": "user", "content": "hi"}])
        assert answer.model in (SMALL, CODE, LARGE, MINI)
        assert "auto" in [model.id for model in sdk.models.list()]
