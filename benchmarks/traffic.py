"""A recorded hour of requests, given prompts, and sent through the engine on a simulated fleet.

The trace tells when a request came, how long its prompt and its answer were, and whether it was code
or conversation; a corpus of labelled prompts tells what such requests say. Both are bound by a seeded
draw. The fleet is a model: local slots that are held for as long as an answer takes, queues that fill,
marks that overflow. Decisions are the engine's own, admission is `strategy.admission.choose`.
"""

from __future__ import annotations

import csv
import heapq
import json
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import thread_time

from k9_broker.backends import Backend
from k9_broker.cards import card_of
from k9_broker.models import Latency, ModelCard, Prices
from k9_broker.money import listed_cost, machine_cost, token_cost
from k9_broker.policy import Policy
from k9_broker.requests import InferenceRequest, Kind, Operation, Priority, Privacy
from k9_broker.snapshot import BackendView, Snapshot
from k9_broker.strategy.admission import choose
from k9_broker.strategy.engine import Router

STRATEGIES = ("task-type", "cost-first", "quality-first", "latency-first")
PREFILL = 5000.0
"""Prompt tokens a local machine reads in a second."""
FILLER = (
    " ".join(f"In part {word} of the notes nothing else was said." for word in ("one", "two", "three")) + " "
)
"""What stands before a prompt that is shorter than the trace says; plain words, so it changes no decision."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it came (seconds), its true tokens, and what the engine is asked."""

    at: float
    prompt_tokens: int
    answer_tokens: int
    request: InferenceRequest = field(repr=False)


def arrivals(
    trace: Path,
    corpus: Path,
    *,
    most: int | None = None,
    private: float = 0.0,
    origin: str | None = None,
    seed: int = 7,
) -> list[Arrival]:
    """The first `most` requests of the trace, `code` ones bound to code prompts, the others to the rest.

    The share `private` of them, drawn as well, is local-only by its caller's wish. `origin` takes only
    prompts of that origin, such as `natural`: written by people for an assistant.
    """
    code, talk = [], []
    with corpus.open(encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            if origin not in (None, line.get("origin")):
                continue
            (code if line["task_type"].startswith("code_") else talk).append(line["text"])
    draw = random.Random(seed)
    bound = []
    with trace.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            if most is not None and len(bound) == most:
                break
            into, out = int(row["input_tokens"]), int(row["output_tokens"])
            text = draw.choice(code if row["kind"] == "code" else talk)
            privacy = Privacy.LOCAL_ONLY if draw.random() < private else Privacy.ANY
            bound.append(Arrival(float(row["t_seconds"]), into, out, _request(text, into, privacy)))
    return bound


def _request(text: str, tokens: int, privacy: Privacy) -> InferenceRequest:
    """The prompt as the last turn, after notes that make the whole as long as the trace says."""
    missing = max(0, 4 * tokens - len(text))
    notes = (FILLER * (missing // len(FILLER) + 1))[:missing]
    messages = [{"role": "user", "content": text}]
    if notes:
        messages.insert(0, {"role": "system", "content": notes})
    body = {"model": "auto", "messages": messages}
    return InferenceRequest(Operation.CHAT, "auto", body, privacy=privacy)


def fleet(*, small_slots: int, code_slots: int, mark: int, gpu_usd_per_hour: float | None) -> Snapshot:
    """Two machines here and two models in a cloud, with the cards that names and price lists give."""
    local = {"kind": Kind.LOCAL, "dialect": "vllm", "max_waiting": mark, "gpu_usd_per_hour": gpu_usd_per_hour}
    cloud = {"kind": Kind.CLOUD, "dialect": "openai", "url": "https://api.openai.com", "max_waiting": 10_000}
    here = "http://127.0.0.1:1"
    known = {
        "llama3.1:8b": ModelCard(context_window=8192),
        "qwen2.5-coder:7b": ModelCard(context_window=32_768),
    }
    speeds = {
        "llama3.1:8b": Latency(ttft=0.3, tpot=0.02),
        "qwen2.5-coder:7b": Latency(ttft=0.3, tpot=0.02),
        "gpt-4o": Latency(ttft=0.6, tpot=0.012),
        "gpt-4o-mini": Latency(ttft=0.5, tpot=0.009),
    }
    backends = (
        Backend(name="local-small", models=("llama3.1:8b",), slots=small_slots, url=here, **local),
        Backend(name="local-code", models=("qwen2.5-coder:7b",), slots=code_slots, url=here, **local),
        Backend(name="cloud-large", models=("gpt-4o",), slots=1000, **cloud),
        Backend(name="cloud-mini", models=("gpt-4o-mini",), slots=1000, **cloud),
    )
    return Snapshot(
        tuple(
            BackendView(
                name=one.name,
                kind=one.kind,
                dialect=one.dialect,
                models=frozenset(one.models),
                operations=frozenset({Operation.CHAT, Operation.COMPLETIONS}),
                order=order,
                slots=one.slots,
                max_waiting=dict.fromkeys(Priority, one.max_waiting),
                workers=1,
                service_seconds=3.0,
                cards={model: card_of(model, one, known) for model in one.models},
                latencies={model: speeds[model] for model in one.models},
                slot_usd_per_hour=(one.gpu_usd_per_hour or 0.0) / one.slots,
            )
            for order, one in enumerate(backends)
        )
    )


class Machine:
    """The slots and the queue of one local backend, in simulated time."""

    def __init__(self, view: BackendView) -> None:
        self._view = view
        self._ends: list[float] = []
        self._waiting: deque[float] = deque()
        self._mean = view.service_seconds

    def view(self, now: float) -> BackendView:
        """How it stands: what has ended by now makes room for what waits."""
        while self._ends and self._ends[0] <= now:
            ended = heapq.heappop(self._ends)
            if self._waiting:
                heapq.heappush(self._ends, ended + self._waiting.popleft())
        return replace(
            self._view,
            waiting={Priority.INTERACTIVE: len(self._waiting)},
            in_flight=len(self._ends),
            service_seconds=self._mean,
        )

    def take(self, now: float, seconds: float) -> None:
        """One more job that will hold a slot for so long."""
        self._mean += 0.05 * (seconds - self._mean)
        if len(self._ends) < self._view.slots:
            heapq.heappush(self._ends, now + seconds)
        else:
            self._waiting.append(seconds)


@dataclass(slots=True)
class Outcome:
    """What one strategy made of the trace. Money in nano-dollars."""

    strategy: str
    requests: int = 0
    places: Counter[str] = field(default_factory=Counter)
    """Requests by backend."""
    local: int = 0
    overflowed: int = 0
    refused: int = 0
    """Local-only requests that found the local queues full."""
    private: int = 0
    leaked: int = 0
    """Local-only requests at a cloud: must stay 0."""
    cost: int = 0
    all_cloud: int = 0
    """What the same requests would have cost where this strategy goes without local backends."""
    all_large: int = 0
    """What they would have cost at the large cloud model."""
    hard: int = 0
    hard_strong: int = 0
    """Of the hard ones, how many went to a strong model."""
    seconds: list[float] = field(default_factory=list)
    """CPU seconds of each decision: the machine may be shared, so the clock would tell of others."""
    recognised: Counter[str] = field(default_factory=Counter)

    @property
    def saving(self) -> float:
        """As a share of `all_cloud`."""
        return 1 - self.cost / self.all_cloud if self.all_cloud else 0.0

    @property
    def saving_on_large(self) -> float:
        return 1 - self.cost / self.all_large if self.all_large else 0.0


def replay(strategy: str, fleet: Snapshot, traffic: Sequence[Arrival], policy: Policy) -> Outcome:
    """Decide and admit every request in the order of the trace."""
    router = Router(policy.model_copy(update={"strategy": strategy}))
    machines = {view.name: Machine(view) for view in fleet.backends if view.kind is Kind.LOCAL}
    views = {view.name: view for view in fleet.backends}
    large = Prices("gpt-4o", *_prices(views["cloud-large"].cards["gpt-4o"]))
    done = Outcome(strategy)
    for arrival in traffic:
        snapshot = Snapshot(tuple(_now(machines, view, arrival.at) for view in fleet.backends))
        began = thread_time()
        decision = router.decide(arrival.request, snapshot)
        done.seconds.append(thread_time() - began)
        now = {view.name: view for view in snapshot.backends}
        gauges = {one.queue: now[one.backend].gauge(Priority.INTERACTIVE) for one in decision.candidates}
        admission = choose(decision, arrival.request, gauges)
        done.requests += 1
        done.recognised[decision.recognition.task_type] += 1
        private = decision.privacy is Privacy.LOCAL_ONLY
        done.private += private
        if (taken := admission.candidate) is None:
            done.refused += 1
            continue
        view = views[taken.backend]
        card = view.cards[taken.model]
        done.places[taken.backend] += 1
        done.overflowed += admission.reason == "overflow:depth"
        strong = decision.recognition.needs_strong > policy.strong_above
        done.hard += strong
        done.hard_strong += strong and (card.quality or 0) >= policy.strong_quality
        done.cost += token_cost(card, arrival.prompt_tokens, arrival.answer_tokens) or 0
        if taken.kind is Kind.LOCAL:
            done.local += 1
            seconds = arrival.prompt_tokens / PREFILL + view.latencies[taken.model].seconds(
                arrival.answer_tokens
            )
            machines[taken.backend].take(arrival.at, seconds)
            done.cost += machine_cost(view.slot_usd_per_hour, seconds)
        else:
            done.leaked += private
        if decision.cloud is not None:
            done.all_cloud += listed_cost(decision.cloud, arrival.prompt_tokens, arrival.answer_tokens)
        done.all_large += listed_cost(large, arrival.prompt_tokens, arrival.answer_tokens)
    return done


def _now(machines: dict[str, Machine], view: BackendView, at: float) -> BackendView:
    return machines[view.name].view(at) if view.name in machines else view


def _prices(card: ModelCard) -> tuple[float, float]:
    return card.input_usd or 0.0, card.output_usd or 0.0
