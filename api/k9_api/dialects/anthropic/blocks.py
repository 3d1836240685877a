"""Anthropic's blocks of text, images and documents as parts of OpenAI's messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from k9_api.dialects.anthropic.shapes import BLOCKS, SOURCES
from k9_api.dialects.decoding import Path, dotted, valid
from k9_broker.errors import UnsupportedParameter

Part = dict[str, Any]

_PDF = "application/pdf"


def checked(block: Mapping[str, Any], at: Path) -> str:
    """The block's type, once its fields are known to be right. Raises `BadRequest` naming what is not."""
    kind = block["type"]
    if kind not in BLOCKS:
        raise refused((*at, "type"), f"blocks of the type {kind[:64]!r}")
    valid(BLOCKS[kind], block, at)
    return str(kind)


def refused(at: Path, what: str) -> UnsupportedParameter:
    """K-9 cannot do this for any backend, and dropping it would change the answer."""
    name = dotted(at)
    return UnsupportedParameter(f"`{name}`: K-9 does not support {what}. Remove it.", param=name)


def parts_of(blocks: Iterable[Mapping[str, Any]], at: Path, allowed: Iterable[str]) -> list[Part]:
    """The parts that blocks of the `allowed` types stand for."""
    return [
        part for index, block in enumerate(blocks) for part in parts_of_block(block, (*at, index), allowed)
    ]


def parts_of_block(block: Mapping[str, Any], at: Path, allowed: Iterable[str]) -> list[Part]:
    """The parts of one block; a document may have several."""
    kind = checked(block, at)
    if kind not in allowed:
        raise refused((*at, "type"), f"{kind} blocks in this place")
    if kind == "text":
        parts: list[Part] = [{"type": "text", "text": block["text"]}]
    elif kind == "image":
        parts = [_image(block, at)]
    else:
        parts = _document(block, at)
    if parts:
        mark(parts[-1], block)
    return parts


def mark(target: Part, source: Mapping[str, Any]) -> None:
    """Carry a `cache_control` over."""
    if source.get("cache_control") is not None:
        target["cache_control"] = source["cache_control"]


def content_of(parts: list[Part]) -> str | list[Part]:
    """A single text as a string, which every backend takes; anything else as it is."""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        return str(parts[0]["text"])
    return parts


def _image(block: Mapping[str, Any], at: Path) -> Part:
    if block.get("transformations"):
        raise refused((*at, "transformations"), "transformations of images")
    source, kind = _source(block, at, ("base64", "url"))
    url = _data_url(source) if kind == "base64" else source["url"]
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: Mapping[str, Any], at: Path) -> list[Part]:
    if (block.get("citations") or {}).get("enabled"):
        raise refused((*at, "citations"), "citations")
    source, kind = _source(block, at, ("base64", "text", "content"))
    if kind == "base64":
        if source["media_type"] != _PDF:
            raise refused((*at, "source", "media_type"), f"documents other than {_PDF} and text")
        name = block.get("title") or "document.pdf"
        file: Part = {"type": "file", "file": {"file_data": _data_url(source), "filename": name}}
        said = block.get("context")
        return [{"type": "text", "text": said}, file] if said else [file]
    head = [text for text in (block.get("title"), block.get("context")) if text]
    given = source["data"] if kind == "text" else source["content"]
    if isinstance(given, str):
        return [{"type": "text", "text": "\n\n".join([*head, given])}]
    inner = parts_of(given, (*at, "source", "content"), ("text", "image"))
    return [*({"type": "text", "text": text} for text in head), *inner]


def _source(block: Mapping[str, Any], at: Path, allowed: Iterable[str]) -> tuple[Mapping[str, Any], str]:
    source, at = block["source"], (*at, "source")
    kind = source["type"]
    if kind not in allowed:
        raise refused((*at, "type"), f"{block['type']} sources of the type {kind[:64]!r}")
    valid(SOURCES[kind], source, at)
    return source, kind


def _data_url(source: Mapping[str, Any]) -> str:
    return f"data:{source['media_type']};base64,{source['data']}"
