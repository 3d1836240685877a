"""What vLLM measures of itself, as far as a scheduler asks for it."""

from __future__ import annotations

from collections.abc import Iterator

from k9_broker.fake.exposition import Metric
from k9_broker.fake.wire import State


def metrics(state: State) -> Iterator[Metric]:
    """From the fake's real counts; a full house is a full cache."""
    seen, labels = state.seen, {"engine": "0", "model_name": state.behaviour.served}
    slots = state.behaviour.slots
    used = min(1.0, state.active / slots) if slots else min(1.0, state.active / 256)
    reasons = {"capacity": state.waiting, "deferred": 0}
    ends = {
        "stop": max(0, seen.inferences - seen.errors - state.active - state.waiting),
        "length": 0,
        "abort": 0,
    }
    one = [(labels, state.active)]
    yield Metric("vllm:num_requests_running", "gauge", "Number of requests in model execution batches.", one)
    yield Metric(
        "vllm:num_requests_waiting", "gauge", "Number of requests waiting.", [(labels, state.waiting)]
    )
    yield Metric(
        "vllm:num_requests_waiting_by_reason",
        "gauge",
        "Number of waiting requests by reason.",
        [({**labels, "reason": reason}, count) for reason, count in reasons.items()],
    )
    yield Metric(
        "vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent.", [(labels, used)]
    )
    counters = {"prompt_tokens": seen.prompt_tokens, "generation_tokens": seen.generated_tokens}
    counters |= {"prefix_cache_queries": seen.prompt_tokens, "prefix_cache_hits": 0, "num_preemptions": 0}
    for name, count in counters.items():
        yield Metric(
            f"vllm:{name}_total", "counter", f"Number of {name.replace('_', ' ')}.", [(labels, count)]
        )
    yield Metric(
        "vllm:request_success_total",
        "counter",
        "Count of successfully processed requests.",
        [({**labels, "finished_reason": reason}, count) for reason, count in ends.items()],
    )
