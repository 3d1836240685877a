"""Other people's clients through K-9: those that validate strictly, and those that rename fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from mistralai.client import Mistral
from mistralai.client.errors import MistralError
from openai import AzureOpenAI, NotFoundError, OpenAI
from pydantic import BaseModel, SecretStr

from stack import Stack

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
LOOK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture
def words(k9: Stack) -> str:
    """What the fake answers to `HELLO`."""
    with OpenAI(base_url=f"{k9.url}/v1", api_key="any", max_retries=0) as client:
        said = client.chat.completions.create(model=k9.model, messages=HELLO).choices[0].message.content
    assert said
    return said


# -- mistralai: every field it knows must be there -------------------------------------------------


@pytest.fixture
def mistral(k9: Stack) -> Iterator[Mistral]:
    with Mistral(api_key="any", server_url=k9.url, timeout_ms=20_000) as client:
        yield client


def test_mistral_chats(k9: Stack, mistral: Mistral, words: str) -> None:
    answer: Any = mistral.chat.complete(model=k9.model, messages=HELLO)
    assert answer.choices[0].message.content == words
    assert answer.usage.completion_tokens > 0
    ask: Any = [{"role": "user", "content": "Please use the tool look."}]
    called: Any = mistral.chat.complete(model=k9.model, messages=ask, tools=[LOOK])
    assert called.choices[0].finish_reason == "tool_calls"
    assert called.choices[0].message.tool_calls[0].function.name == "look"


def test_mistral_reads_streams(k9: Stack, mistral: Mistral, words: str) -> None:
    with mistral.chat.stream(model=k9.model, messages=HELLO) as stream:
        chunks = [event.data for event in stream]
    said = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(map(str, said)) == words
    assert len({chunk.id for chunk in chunks}) == 1


def test_mistral_embeds(k9: Stack, mistral: Mistral) -> None:
    answer: Any = mistral.embeddings.create(model=k9.embed_model, inputs=["a", "b"])
    assert [row.index for row in answer.data] == [0, 1]
    assert all(isinstance(number, float) for number in answer.data[0].embedding)
    assert answer.id.startswith("embd-")


def test_mistral_reads_errors(mistral: Mistral) -> None:
    with pytest.raises(MistralError) as caught:
        mistral.chat.complete(model="nobody", messages=HELLO)
    assert caught.value.status_code == 404


# -- langchain -------------------------------------------------------------------------------------


class City(BaseModel):
    name: str
    people: int


def look(city: str) -> str:
    """Look at a city."""
    return city


@pytest.fixture
def langchain(k9: Stack) -> ChatOpenAI:
    return ChatOpenAI(model=k9.model, base_url=f"{k9.url}/v1", api_key=SecretStr("any"), max_retries=0)


def test_langchain_chats(langchain: ChatOpenAI, words: str) -> None:
    answer = langchain.bind(max_tokens=100).invoke("hello")
    assert answer.content == words
    assert answer.usage_metadata
    assert "".join(str(piece.content) for piece in langchain.stream("hello")) == words


def test_langchain_calls_tools_and_goes_on(langchain: ChatOpenAI) -> None:
    bound = langchain.bind_tools([look])
    asked = HumanMessage("Please use the tool look.")
    called: Any = bound.invoke([asked])
    [call] = called.tool_calls
    assert (call["name"], list(call["args"])) == ("look", ["city"])
    final = bound.invoke([asked, called, ToolMessage("18 C", tool_call_id=call["id"])])
    assert final.content
    assert not getattr(final, "tool_calls", None)


def test_langchain_gets_what_fits_its_schema(langchain: ChatOpenAI) -> None:
    assert isinstance(langchain.with_structured_output(City).invoke("hello"), City)


def test_langchain_knows_an_overflow_of_the_context(k9: Stack, langchain: ChatOpenAI) -> None:
    k9.fake.behave(context_tokens=5)
    with pytest.raises(ContextOverflowError):
        langchain.invoke("hello " * 100)


def test_langchain_embeds(k9: Stack) -> None:
    client = OpenAIEmbeddings(
        model=k9.embed_model,
        base_url=f"{k9.url}/v1",
        api_key=SecretStr("any"),
        check_embedding_ctx_length=False,  # else it downloads a tokenizer
        max_retries=0,
    )
    both = client.embed_documents(["a", "b"])
    assert len(both) == 2
    assert client.embed_query("a") == pytest.approx(both[0])


def test_azures_client_needs_only_another_endpoint(k9: Stack) -> None:
    asked: Any = {"model": k9.model, "messages": [{"role": "user", "content": "hello"}]}
    with AzureOpenAI(azure_endpoint=k9.url, api_key="none", api_version="2024-10-21") as azure:
        assert azure.chat.completions.create(**asked).choices[0].message.content
        pieces = azure.chat.completions.create(**asked, stream=True)
        assert "".join(choice.delta.content or "" for piece in pieces for choice in piece.choices)
        assert azure.embeddings.create(model=k9.embed_model, input=["a", "b"]).data[1].index == 1
        with pytest.raises(NotFoundError) as missing:
            azure.chat.completions.create(model="org/unserved:tag", messages=asked["messages"])
    assert missing.value.code == "model_not_found"
    with OpenAI(base_url=f"{k9.url}/openai/v1/", api_key="none") as v1:
        assert v1.chat.completions.create(**asked).choices[0].message.content
