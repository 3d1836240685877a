"""Cards: which source wins, and what a model's name suggests."""

from __future__ import annotations

import subprocess
import sys

import pytest

from k9_broker.backends import Backend
from k9_broker.cards import LARGE_CLOUD, SMALL_CLOUD, card_of, guess, quality_of_size, size_of
from k9_broker.models import ModelCard
from k9_broker.requests import Kind, Operation

LOCAL = Backend(name="here", dialect="openai-compatible", url="http://127.0.0.1:8000")
CLOUD = Backend(name="there", dialect="openai-compatible", url="https://llm.example", kind=Kind.CLOUD)
OPENAI = CLOUD.model_copy(update={"url": "https://api.openai.com"})
EMBEDS = (Operation.EMBEDDINGS,)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("llama3.1:8b", (8, 8)),
        ("llama-3.3-70b-versatile", (70, 70)),
        ("qwen2.5-coder:1.5b-instruct-q4_k_m", (1.5, 1.5)),
        ("qwen/qwen2.5-7b-instruct-awq", (7, 7)),
        ("gemma3n:e4b", (4, 4)),
        ("smollm2:135m", (0.135, 0.135)),
        ("mixtral:8x7b", (56, pytest.approx(19.8, abs=0.1))),
        ("qwen3:30b-a3b", (30, pytest.approx(9.5, abs=0.1))),
        ("qwen2.5-7b-instruct-1m", (7, 7)),
        ("model-4bit", None),
        ("phi-3-mini-4k", None),
        ("v0b", None),
        ("nothing-0b", None),
        ("gpt-4o", None),
    ],
)
def test_the_size_a_name_tells(name: str, size: tuple[float, float] | None) -> None:
    assert size_of(name) == size


def test_quality_grows_with_size_and_stays_between_0_and_1() -> None:
    scale = {1: 0.25, 7: 0.45, 8: 0.47, 70: 0.69, 405: 0.87}
    assert {size: quality_of_size(size) for size in scale} == scale
    ladder = [quality_of_size(2.0**power) for power in range(-10, 16)]
    assert ladder == sorted(ladder)
    assert (ladder[0], ladder[-1]) == (0.05, 0.95)


@pytest.mark.parametrize(
    ("name", "local", "cloud"),
    [
        ("llama3.1:8b", (("small",), 0.47), (("small",), 0.47)),
        ("Llama-3.3-70B", (("large",), 0.69), (("large",), 0.69)),
        ("qwen2.5-coder:7b", (("small", "code"), 0.45), (("small", "code"), 0.45)),
        ("gpt-9-mini", (("small",), None), (("small",), SMALL_CLOUD)),
        ("claude-haiku-9", (("small",), None), (("small",), SMALL_CLOUD)),
        ("gemini-9-pro", ((), None), (("large",), LARGE_CLOUD)),
        ("minister-of-flashes", ((), None), (("large",), LARGE_CLOUD)),
        ("codestral", (("code",), None), (("large", "code"), LARGE_CLOUD)),
        ("devstral-small", (("small", "code"), None), (("small", "code"), SMALL_CLOUD)),
        ("cross-encoder", ((), None), (("large",), LARGE_CLOUD)),
        ("m", ((), None), (("large",), LARGE_CLOUD)),
    ],
)
def test_what_a_name_suggests_here_and_in_a_cloud(
    name: str, local: tuple[tuple[str, ...], float | None], cloud: tuple[tuple[str, ...], float | None]
) -> None:
    for backend, expected in ((LOCAL, local), (CLOUD, cloud)):
        card = guess(name, backend)
        assert (card.tags, card.quality) == expected
        assert card.operations == ()  # it can whatever its backend can


@pytest.mark.parametrize(
    "name",
    [
        "nomic-embed-text:latest", "all-minilm:22m", "all-MiniLM-L6-v2", "bge-m3", "BAAI/bge-small-en-v1.5",
        "intfloat/multilingual-e5-large", "gte-large", "mxbai-embed-large", "text-embedding-3-small",
        "text-embedding-ada-002", "codestral-embed", "voyage-code-3", "all-mpnet-base-v2",
        "qwen3-embedding:8b",
    ],
)  # fmt: skip
def test_embedding_models_embed_and_nothing_else(name: str) -> None:
    assert guess(name, LOCAL) == ModelCard(operations=EMBEDS, tags=("embedding",))
    chat_only = LOCAL.model_copy(update={"operations": (Operation.CHAT,)})
    assert guess(name, chat_only).operations == ()  # else it could do nothing at all


@pytest.mark.parametrize(
    "name",
    [
        "dall-e-3", "gpt-image-1", "whisper-1", "tts-1-hd", "gpt-4o-realtime-preview", "gpt-4o-transcribe",
        "omni-moderation-latest", "gpt-4o-mini-audio-preview", "sora-2", "gpt-5-codex", "o1-pro",
        "babbage-002", "BAAI/bge-reranker-v2-m3", "gpt-3.5-turbo-instruct-0914",
    ],
)  # fmt: skip
def test_what_is_not_for_chat_is_special(name: str) -> None:
    assert guess(name, CLOUD) == ModelCard(tags=("special",))


@pytest.mark.parametrize("name", ["fake-chat", "fake-embed", "fake-code"])
def test_models_of_the_fake_do_everything(name: str) -> None:
    assert card_of(name, LOCAL, {}).operations == ()


def test_each_field_comes_from_the_nearest_source_that_knows_it() -> None:
    own = ModelCard(quality=0.8, input_usd=0.0)
    configured = ModelCard(quality=0.7, tags=("house",), context_window=32_000)
    backend = OPENAI.model_copy(update={"cards": {"gpt-4o": own}})
    card = card_of("gpt-4o", backend, {"gpt-4o": configured, "other": ModelCard(quality=0.1)})
    assert (card.quality, card.input_usd) == (0.8, 0.0)  # the backend's; free is not unknown
    assert (card.tags, card.context_window) == (("house",), 32_000)  # the operator's
    assert card.output_usd is not None  # the price list's
    assert card.vision is None  # nobody's


def test_what_the_server_says_stands_between_the_lists_and_configuration() -> None:
    backend = OPENAI.model_copy(update={"cards": {"gpt-4o": ModelCard(tools=False)}})
    said = ModelCard(context_window=4096, vision=False, tools=True, input_usd=0.5)
    card = card_of("gpt-4o", backend, {"gpt-4o": ModelCard(vision=True)}, said)
    assert (card.context_window, card.input_usd) == (4096, 0.5)  # the lists say otherwise
    assert card.vision is True
    assert card.tools is False
    assert card.output_usd  # of which the server said nothing


def test_the_prices_of_several_instances_are_those_of_their_service() -> None:
    instances = ({"url": "https://api.openai.com"}, {"url": "https://eu.api.openai.com"})
    several = Backend.model_validate(
        {"name": "o", "dialect": "openai-compatible", "kind": "cloud", "instances": instances}
    )
    assert card_of("gpt-4o", several, {}).input_usd


def test_a_card_that_went_through_json_hides_nothing_it_does_not_know() -> None:
    sent = Backend.model_validate_json(
        OPENAI.model_copy(update={"cards": {"gpt-4o": ModelCard(quality=0.8)}}).model_dump_json()
    )
    card = card_of("gpt-4o", sent, {})
    assert card.quality == 0.8
    assert card.input_usd
    assert card.tags == ("large",)


def test_latest_may_be_left_out() -> None:
    assert card_of("llama3.2:latest", LOCAL, {"llama3.2": ModelCard(quality=0.4)}).quality == 0.4


def test_prices_are_for_clouds() -> None:
    assert card_of("gpt-4o", OPENAI, {}).input_usd
    assert card_of("gpt-4o", LOCAL, {}).input_usd is None


def test_a_worker_of_a_local_backend_never_loads_the_price_lists() -> None:
    program = (
        "import sys\n"
        "from k9_workers.announcing import card_of\n"
        "from k9_broker.backends import Backend\n"
        "card_of('gpt-4o', Backend(name='a', dialect='fake', url='http://127.0.0.1:1'), {})\n"
        "print('genai_prices' in sys.modules)\n"
        "card_of('gpt-4o', Backend(name='a', dialect='fake', kind='cloud', url='http://127.0.0.1:1'), {})\n"
        "print('genai_prices' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
