"""The embedded model as a backend: embeddings without a server.

The work runs in threads of its own, so that the event loop stays free, and batch by batch: calls
that run at the same time take turns, and a cancelled one stops after the batch it is in.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from k9_broker.errors import BadRequest, ModelNotFound, UnsupportedParameter
from k9_broker.health import InstanceHealth
from k9_broker.minilm import DIMENSIONS, MODEL_NAME
from k9_broker.minilm.model import Encoding, MiniLM, RunnerName
from k9_broker.models import ModelCard
from k9_broker.requests import InferenceRequest, Operation
from k9_broker.results import Chunk, Result, Usage, Vectors

T = TypeVar("T")

PARAMETERS: Final = frozenset({"model", "input", "dimensions", "encoding_format", "user"})
"""What a request body may hold. The vectors are the same for every `encoding_format` and `user`."""


def default_threads() -> int:
    """One forward pass on each of at most two cores: the rest of the machine is others'."""
    return min(2, os.cpu_count() or 1)


class EmbeddedCaller:
    """`ports.Caller` for the all-MiniLM-L6-v2 in a model folder.

    A text of more than 256 tokens is cut there, as the reference does. With `partial`, an input
    that is empty or not a string has its error in `Result.errors`; without, it fails the request.
    The model is read at the first call; `ConfigurationError` tells what is wrong with its folder.
    """

    def __init__(self, folder: Path, *, runner: RunnerName = "auto", threads: int | None = None) -> None:
        """`threads` is how many batches are worked on at once, each on one core."""
        self._folder, self._runner_name = folder, runner
        self._threads = threads or default_threads()
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="k9-embedded")
        self._loading = asyncio.Lock()
        self._model: MiniLM | None = None

    async def models(self) -> Mapping[str, ModelCard]:
        """The one model, once it has been read. Raises `ConfigurationError` when it cannot be."""
        await self._loaded()
        return {MODEL_NAME: ModelCard()}

    def health(self) -> Sequence[InstanceHealth]:
        """None: it has no server to be ill."""
        return ()

    def spare(self, model: str) -> bool:
        """Never: there is only this process."""
        return False

    async def watch(self) -> None:
        """There is nothing to look after."""
        await asyncio.Event().wait()

    def reset(self) -> None:
        """There is no circuit to close."""

    async def call(self, request: InferenceRequest) -> Result:
        """The vectors of an embeddings request; `usage.prompt` counts the tokens after cutting."""
        texts, errors = _inputs(request)
        model = await self._loaded()
        encoding = await self._in_thread(model.begin, [text for text in texts if text is not None])
        await asyncio.gather(*(self._drive(encoding) for _ in range(self._threads)))
        vectors = _with_gaps(encoding.vectors, texts) if errors else encoding.vectors
        return Result(MODEL_NAME, Usage(prompt=encoding.tokens), vectors=vectors, errors=errors)

    def stream(self, request: InferenceRequest) -> AsyncGenerator[Chunk, None]:
        """Embeddings are not streamed: raises `UnsupportedParameter`."""
        raise UnsupportedParameter("Embeddings are not streamed. Remove `stream`.", param="stream")

    async def close(self) -> None:
        """Give up the threads and the model; batches under way end by themselves."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._model = None

    async def _loaded(self) -> MiniLM:
        async with self._loading:
            if self._model is None:
                self._model = await self._in_thread(MiniLM.load, self._folder, self._runner_name)
            return self._model

    async def _drive(self, encoding: Encoding) -> None:
        # Each batch queues for a thread anew: that is what lets other calls take their turn.
        while await self._in_thread(encoding.step):
            pass

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)


def _inputs(request: InferenceRequest) -> tuple[list[str | None], dict[int, dict[str, Any]]]:
    """The texts, `None` where an input failed, and the error records of those by index."""
    _check(request)
    given = request.body.get("input")
    inputs = given if isinstance(given, list) else [given]
    if not inputs:
        raise BadRequest("There is nothing to embed: `input` is an empty list.", param="input")
    texts: list[str | None] = []
    errors: dict[int, dict[str, Any]] = {}
    for index, text in enumerate(inputs):
        error = _problem(text, "input" if text is given else f"input[{index}]")
        if error and not request.partial:
            raise error
        if error:
            errors[index] = error.record()
        texts.append(None if error else text)
    return texts, errors


def _check(request: InferenceRequest) -> None:
    if request.operation is not Operation.EMBEDDINGS:
        raise BadRequest(f"{MODEL_NAME} only makes embeddings. Choose another model.", param="model")
    if request.model != MODEL_NAME:
        raise ModelNotFound(f"The embedded backend only has {MODEL_NAME}.", param="model")
    asked = {name for name, value in request.body.items() if value is not None and value is not False}
    if unknown := sorted(asked - PARAMETERS):
        raise UnsupportedParameter(
            f"{MODEL_NAME} does not know `{unknown[0]}`. Remove it or choose another model.", param=unknown[0]
        )
    if request.body.get("dimensions") not in (None, DIMENSIONS):
        raise UnsupportedParameter(
            f"{MODEL_NAME} has {DIMENSIONS} dimensions and no others. Remove `dimensions`.",
            param="dimensions",
        )


def _problem(text: object, where: str) -> BadRequest | None:
    if isinstance(text, str):
        return None if text else BadRequest("The text is empty. Leave it out.", param=where)
    if isinstance(text, int | list):
        return UnsupportedParameter(f"{MODEL_NAME} takes text, not token ids.", param=where)
    return BadRequest("The input is not a string.", param=where)


def _with_gaps(vectors: Vectors, texts: Sequence[str | None]) -> Vectors:
    """`vectors` of the texts that are there, with zeros in the places of the others."""
    rows: Iterator[bytes] = (vectors.row(index) for index in range(vectors.count))
    zeros = bytes(4 * DIMENSIONS)
    return Vectors(b"".join(zeros if text is None else next(rows) for text in texts), DIMENSIONS)
