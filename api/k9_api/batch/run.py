"""One run of `k9 embed`: source → chunks → jobs → outputs, with a checkpoint every second."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterator
from contextlib import aclosing, closing
from urllib.parse import urlsplit

import httpx
from pydantic_core import to_json

from k9_api.batch.answers import Answer
from k9_api.batch.checkpoint import SECONDS, Checkpoint, Outputs, check_same, new_run
from k9_api.batch.chunks import CHUNK, Chunk, pack
from k9_api.batch.feeder import WINDOW, ReadAhead, in_order
from k9_api.batch.jobs import POLL, JobsClient
from k9_api.batch.models import default_model
from k9_api.batch.parts import Part, part_of, publish
from k9_api.batch.progress import Display, Silent, Summary, View, keep_showing, stopwatch
from k9_api.batch.records import Fields
from k9_api.batch.source import Source
from k9_api.batch.writers import Writer, writer_for
from k9_broker.errors import ConfigurationError


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What the caller asked for. `None` means: the default, or as the run that is resumed began."""

    file: str
    outputs: Outputs
    url: str
    model: str | None = None
    field: str | None = None
    id_field: str | None = None
    chunk: int | None = None
    window: int = WINDOW
    resume: bool = False
    overwrite: bool = False
    give_up_after: float = 600.0
    """Seconds the API may be unreachable."""
    api_key: str = dataclasses.field(default="", repr=False)


async def embed_file(plan: Plan, display: Display | None = None) -> Summary:
    """Run the plan to its end.

    Whatever ends it early (cancellation, an API that stays away, a full disk) leaves outstanding
    jobs cancelled and a checkpoint to resume from. Raises `ConfigurationError` when the plan cannot
    be run, `GaveUp` when the API stayed away.
    """
    display = display or Silent()
    writer_for(plan.outputs.out)
    async with _client(plan) as http:
        checkpoint, source = await _begin(plan, http)
        with closing(source):
            if checkpoint.complete:
                return _end(plan, checkpoint)
            return await _Run(plan, checkpoint, source, http).go(display)


async def _begin(plan: Plan, http: httpx.AsyncClient) -> tuple[Checkpoint, Source]:
    """The checkpoint to go on from, new or found, and the opened source it belongs to."""
    found = plan.outputs.begin(resume=plan.resume, overwrite=plan.overwrite)
    fields = Fields(plan.field, plan.id_field) if found is None else Fields(found.field, found.id_field)
    source = Source(plan.file, fields)
    try:
        if plan.resume and not source.rewindable:
            raise ConfigurationError("A stream cannot be resumed. Save it to a file first.")
        _refuse_own_input(plan)
        identity = source.identity()
        if found is not None:
            check_same(
                found,
                input=identity,
                model=plan.model,
                field=plan.field,
                id_field=plan.id_field,
                chunk=plan.chunk,
                errors=plan.outputs.errors_from_out,
            )
            return found, source
        return Checkpoint(
            run=new_run(),
            input=identity,
            model=plan.model or await default_model(http),
            field=plan.field,
            id_field=plan.id_field,
            chunk=plan.chunk or CHUNK,
            errors=plan.outputs.errors_from_out,
        ), source
    except BaseException:
        source.close()
        raise


def _refuse_own_input(plan: Plan) -> None:
    for path in plan.outputs.finals:
        if path.exists() and os.path.exists(plan.file) and os.path.samefile(path, plan.file):
            raise ConfigurationError(f"{path} is the input. Name another output.")


class _Run:
    """The moving parts of one run. `checkpoint` is the last one saved; the rest is ahead of it."""

    def __init__(self, plan: Plan, checkpoint: Checkpoint, source: Source, http: httpx.AsyncClient) -> None:
        self.plan, self.checkpoint, self.source = plan, checkpoint, source
        self.client = JobsClient(
            http, model=checkpoint.model, run=checkpoint.run, give_up_after=plan.give_up_after
        )
        self.counts = checkpoint.counts.model_copy(deep=True)
        self.next = self.read = checkpoint.next
        self.began = checkpoint.counts
        self.clock, self.saved_at = stopwatch(), 0.0
        self.whole = True
        """Whether the outputs hold whole chunks only; not so when writing one has failed."""

    async def go(self, display: Display) -> Summary:
        if self.source.rewindable:
            self.plan.outputs.save(self.checkpoint)  # before the parts are touched
        writer = writer_for(self.plan.outputs.out)(self.plan.outputs.out, self.checkpoint.position)
        with (
            closing(writer),
            closing(Part(self.plan.outputs.errors, self.checkpoint.errors_offset)) as errors,
        ):
            showing = asyncio.create_task(keep_showing(display, self.view))
            try:
                chunks = ReadAhead(self._chunks())
                async with aclosing(in_order(chunks, self.client.embed, self.plan.window)) as answers:
                    async for answer in answers:
                        self._write(answer, writer, errors)
                        if self.clock() - self.saved_at >= SECONDS:
                            self._save(writer, errors)
                writer.seal()
                self._save(writer, errors, complete=True)
            except BaseException:
                try:
                    self._save_for_later(writer, errors)
                finally:  # a full disk may have no room for a checkpoint either
                    await self.client.cancel_all()
                raise
            finally:
                showing.cancel()
                display.close()
        return _end(self.plan, self.checkpoint, self.clock(), self.began.items)

    def view(self) -> View:
        fraction = self.source.fraction()
        total = round(self.read / fraction) if fraction else None
        lines = self.counts.lines
        return View(lines, self.began.lines, self.counts.errors, self.clock(), total, self.client.note)

    def _chunks(self) -> Iterator[Chunk]:
        for chunk in pack(self.source.items(self.next), self.checkpoint.chunk):
            self.read = chunk.end
            yield chunk

    def _write(self, answer: Answer, writer: Writer, errors: Part) -> None:
        chunk = answer.chunk
        self.whole = False
        writer.write(answer.ids, answer.vectors)
        for line in _error_lines(answer):
            errors.write(line)
        done = len(chunk.records) - len(answer.errors)
        self.counts.items += done
        self.counts.errors += len(answer.errors) + len(chunk.bad)
        self.counts.tokens += answer.tokens
        if done:
            where = answer.backend or "unknown"
            self.counts.backends[where] = self.counts.backends.get(where, 0) + done
        self.next, self.whole = chunk.end, True

    def _save(self, writer: Writer, errors: Part, *, complete: bool = False) -> None:
        position, offset = writer.sync(), errors.sync()
        self.checkpoint = self.checkpoint.model_copy(
            update={
                "next": self.next,
                "position": position,
                "errors_offset": offset,
                "counts": self.counts.model_copy(deep=True),
                "complete": complete,
            }
        )
        if self.source.rewindable:
            self.plan.outputs.save(self.checkpoint)
        self.saved_at = self.clock()

    def _save_for_later(self, writer: Writer, errors: Part) -> None:
        # The jobs that get cancelled must not be met again by their keys, so the next run has a new name.
        self.checkpoint = self.checkpoint.model_copy(update={"run": new_run()})
        if self.whole:
            self._save(writer, errors)
        elif self.source.rewindable:
            self.plan.outputs.save(self.checkpoint)


def _error_lines(answer: Answer) -> list[bytes]:
    """What goes to the error file for one chunk, in the order of the input. It never holds the text."""
    lines: list[tuple[int, dict[str, object]]] = [
        (bad.index, {"line": bad.line_number, "id": None, "code": bad.code, "message": bad.message})
        for bad in answer.chunk.bad
    ]
    for at, (code, message) in answer.errors.items():
        record = answer.chunk.records[at]
        lines.append(
            (record.index, {"line": record.index + 1, "id": record.id, "code": code, "message": message})
        )
    return [to_json(line) + b"\n" for _, line in sorted(lines, key=lambda pair: pair[0])]


def _end(plan: Plan, checkpoint: Checkpoint, seconds: float = 0.0, began: int | None = None) -> Summary:
    """Give the parts their names. Repeatable: a run killed in here does it again when resumed."""
    counts, outputs = checkpoint.counts, plan.outputs
    writer = writer_for(outputs.out)
    finals, remove = [*writer.finals(outputs.out)], [*writer.leftovers(outputs.out)]
    if counts.errors:
        finals.append(outputs.errors)
    else:
        remove += [part_of(outputs.errors), outputs.errors]
    publish(finals, [*remove, outputs.progress])
    done = counts.items - (counts.items if began is None else began)
    return Summary(
        items=counts.items,
        errors=counts.errors,
        tokens=counts.tokens,
        seconds=seconds,
        rate=done / seconds if seconds else 0.0,
        backends=counts.backends,
    )


def _client(plan: Plan) -> httpx.AsyncClient:
    """One client; the API does the retrying of calls to backends, `JobsClient` that of calls to the API."""
    host = urlsplit(plan.url).hostname or ""
    return httpx.AsyncClient(
        base_url=plan.url,
        headers={"Accept-Encoding": "identity"} | _bearer(plan.api_key),
        timeout=httpx.Timeout(POLL + 30.0, connect=5.0),
        limits=httpx.Limits(max_connections=plan.window + 2, max_keepalive_connections=plan.window + 2),
        trust_env=host not in ("127.0.0.1", "localhost", "::1"),  # a proxy does not reach this machine
    )


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}
