"""Records of an input file, read lazily: `.jsonl`, `.csv`, `.parquet`, or one text per line.

A line that cannot become a record is a `BadLine` and costs nobody else anything. Only what makes
the whole file unreadable (it is missing, a column does not exist, the compression is broken) is
an error.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from k9_api.batch.lines import MAX_LINE, split_lines
from k9_broker.errors import ConfigurationError

TEXT_FIELDS = ("text", "input", "content")
"""Where the text is looked for when no field is named, in this order."""

ID_FIELD = "id"
PARQUET_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Record:
    """One text to embed. `index` counts everything the file holds, bad lines included, from 0."""

    index: int
    id: str
    """The value of the id field, else the line's number (CSV and Parquet: the data row's), from 1."""
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no record. `line_number` counts from 1; in CSV and Parquet it is the data row."""

    index: int
    line_number: int
    code: str
    message: str


Item = Record | BadLine


@dataclass(frozen=True, slots=True)
class Fields:
    """Which field holds the text and which the id; `None` means the defaults."""

    text: str | None = None
    id: str | None = None


class Refusal(ValueError):
    """Why one line is no record: `code` for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


TOO_LONG = Refusal("line_too_long", f"The line is longer than {MAX_LINE // 2**20} MB. Split the text.")
NOT_UTF8 = Refusal("invalid_utf8", "The line is not valid UTF-8. Convert the file to UTF-8.")
EMPTY = Refusal("empty_line", "There is no text to embed.")


def read_text(read: Callable[[int], bytes | None], fields: Fields) -> Iterator[Item]:
    """One record per line."""
    for index, line in enumerate(split_lines(read)):
        try:
            yield Record(index, str(index + 1), _checked(_decoded(line, index)))
        except Refusal as refusal:
            yield _bad(index, refusal)


def read_jsonl(read: Callable[[int], bytes | None], fields: Fields) -> Iterator[Item]:
    """One JSON object per line."""
    for index, line in enumerate(split_lines(read)):
        try:
            yield _from_object(index, _parsed(_decoded(line, index)), fields)
        except Refusal as refusal:
            yield _bad(index, refusal)


_TOO_LONG_MARK = "\ud800"  # no decoder makes it: surrogateescape yields U+DC80 to U+DCFF only


def read_csv(read: Callable[[int], bytes | None], fields: Fields) -> Iterator[Item]:
    """One record per row below a header row; quoted fields may hold newlines.

    Raises `ConfigurationError` when the header lacks a needed column.
    """
    csv.field_size_limit(MAX_LINE)
    rows = csv.reader(_csv_lines(read), strict=True)
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise ConfigurationError(f"The CSV header cannot be read: {error}.") from None
    text_at = header.index(_column(header, fields.text, TEXT_FIELDS, "--field"))
    id_at = _id_column(header, fields)
    index = 0
    while True:
        try:
            row = next(rows)
            yield _from_row(index, row, text_at, id_at)
        except StopIteration:
            return
        except csv.Error as error:
            too_large = "field larger" in str(error)
            yield _bad(index, TOO_LONG if too_large else Refusal("invalid_csv", f"Not valid CSV: {error}."))
        except Refusal as refusal:
            yield _bad(index, refusal)
        index += 1


def read_parquet(path: Path, fields: Fields, advance: Callable[[int], None]) -> Iterator[Item]:
    """One record per row, from the needed columns only; `advance` is told the rows read so far.

    Raises `ConfigurationError` when the file is no Parquet or lacks a needed column of text.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
    except (arrow.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path} cannot be read as Parquet: {_first_line(error)}.") from None
    with file:
        names = list(file.schema_arrow.names)
        text_column = _column(names, fields.text, TEXT_FIELDS, "--field")
        id_at = _id_column(names, fields)
        kind = file.schema_arrow.field(text_column).type
        if arrow.types.is_dictionary(kind):
            kind = kind.value_type
        if not (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
            raise ConfigurationError(f"Column {text_column!r} holds {kind}, not text. Name another: --field.")
        columns = [text_column] if id_at is None else [text_column, names[id_at]]
        index = 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=list(dict.fromkeys(columns))):
            texts = batch.column(text_column)
            ids = None if id_at is None else batch.column(names[id_at])
            for row in range(batch.num_rows):
                try:
                    given = str(index + 1) if ids is None else ids[row].as_py()
                    yield Record(
                        index, _identified(given, index, ids is not None), _checked(texts[row].as_py())
                    )
                except UnicodeDecodeError:
                    yield _bad(index, NOT_UTF8)
                except Refusal as refusal:
                    yield _bad(index, refusal)
                index += 1
            advance(index)


READERS = {".jsonl": read_jsonl, ".ndjson": read_jsonl, ".csv": read_csv}
"""Suffix → reader of a byte stream. Parquet reads its file itself; any other suffix is text."""

BROKEN = (OSError, EOFError, zlib.error)
"""What a file raises that turns out to be unreadable halfway."""


def _bad(index: int, refusal: Refusal) -> BadLine:
    return BadLine(index, index + 1, refusal.code, str(refusal))


def _decoded(line: bytes | None, index: int) -> str:
    if line is None:
        raise TOO_LONG
    if index == 0:
        line = line.removeprefix(b"\xef\xbb\xbf")
    try:
        return line.removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise NOT_UTF8 from None


def _parsed(line: str) -> Mapping[str, Any]:
    if not line.strip():
        raise EMPTY
    try:
        value = from_json(line)
    except ValueError:  # pydantic's message may quote the line; an error file holds no text
        raise Refusal("invalid_json", "The line is not valid JSON.") from None
    if not isinstance(value, dict):
        raise Refusal("wrong_type", 'The line is JSON but not an object. Write {"text": "…"}.')
    return value


def _from_object(index: int, value: Mapping[str, Any], fields: Fields) -> Record:
    names = (fields.text,) if fields.text is not None else TEXT_FIELDS
    name = next((name for name in names if name in value), None)
    if name is None:
        raise Refusal(
            "missing_field", f"The object has no field {_listed(names)}. Name the text's field: --field."
        )
    text = _checked(value[name])
    id_name = fields.id if fields.id is not None else ID_FIELD
    if id_name not in value and fields.id is not None:
        raise Refusal("missing_field", f"The object has no field {id_name!r} for the id.")
    return Record(index, _identified(value.get(id_name), index, fields.id is not None), text)


def _from_row(index: int, row: list[str], text_at: int, id_at: int | None) -> Record:
    if any(_TOO_LONG_MARK in cell for cell in row):
        raise TOO_LONG
    if not row:
        raise EMPTY
    if len(row) <= max(text_at, id_at or 0):
        raise Refusal("missing_field", f"The row has {len(row)} fields, fewer than the header.")
    text, given = row[text_at], str(index + 1) if id_at is None else row[id_at]
    try:
        (text + given).encode()
    except UnicodeEncodeError:
        raise NOT_UTF8 from None
    return Record(index, given, _checked(text))


def _csv_lines(read: Callable[[int], bytes | None]) -> Iterator[str]:
    for number, line in enumerate(split_lines(read)):
        if line is None:
            yield _TOO_LONG_MARK + "\n"
            continue
        if number == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield line.decode("utf-8", "surrogateescape") + "\n"


def _checked(text: object) -> str:
    if text is None:
        raise Refusal("missing_field", "The text is null.")
    if not isinstance(text, str):
        raise Refusal("wrong_type", f"The text is of type {type(text).__name__}, not a string.")
    if not text or text.isspace():
        raise EMPTY
    if len(text) > MAX_LINE:
        raise TOO_LONG
    return text


def _identified(given: object, index: int, named: bool) -> str:
    if given is None and not named:
        return str(index + 1)
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise Refusal("wrong_type", f"The id is of type {type(given).__name__}, not a string or a number.")
    return str(given)


def _column(names: list[str], wanted: str | None, defaults: tuple[str, ...], option: str) -> str:
    for name in (wanted,) if wanted is not None else defaults:
        if name in names:
            return name
    missing = _listed((wanted,) if wanted is not None else defaults)
    raise ConfigurationError(
        f"There is no column {missing}. Name one of {_listed(tuple(names))} with {option}."
    )


def _id_column(names: list[str], fields: Fields) -> int | None:
    if fields.id is not None:
        return names.index(_column(names, fields.id, (), "--id-field"))
    return names.index(ID_FIELD) if ID_FIELD in names else None


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
