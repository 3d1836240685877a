"""Text to token ids, on a vocabulary small enough to see through."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_broker.errors import ConfigurationError
from k9_broker.minilm.wordpiece import MARKERS, MAX_WORD, WordPiece

WORDS = "the cat run ##ning ##s cafe a b c ##b ##c strasse οδοσ ! . - _ $ ’ … 東 京 ᄒ ##ᅡ ##ᆫ 🚀 i"
VOCABULARY = [*MARKERS, *WORDS.split()]


def tokens(text: str, limit: int = 256) -> list[str]:
    ids = WordPiece(VOCABULARY, limit).encode(text)
    assert (VOCABULARY[ids[0]], VOCABULARY[ids[-1]]) == ("[CLS]", "[SEP]")
    return [VOCABULARY[number] for number in ids[1:-1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\r\n ", []),
        ("The CAT", ["the", "cat"]),
        ("running runs", ["run", "##ning", "run", "##s"]),
        ("café CAFÉ cafe\u0301", ["cafe", "cafe", "cafe"]),
        ("ΟΔΟΣ", ["οδοσ"]),
        ("İ", ["i"]),
        ("cat!run...$_-’…", ["cat", "!", "run", ".", ".", ".", "$", "_", "-", "’", "…"]),
        ("東京cat", ["東", "京", "cat"]),
        ("한", ["ᄒ", "##ᅡ", "##ᆫ"]),
        ("🚀", ["🚀"]),
        ("🚀🚀", ["[UNK]"]),
        ("dog", ["[UNK]"]),
        ("catdog cat", ["[UNK]", "cat"]),
        ("c\x00a\u200bt\ufffd\x0b", ["cat"]),
        ("c\ud800at", ["cat"]),
        ("a\u00a0b\u2028c\u3000a", ["a", "b", "c", "a"]),
        ("cat [SEP]run[MASK] [sep]", ["cat", "[SEP]", "run", "[MASK]", "[UNK]", "[UNK]", "[UNK]"]),
        ("a" * MAX_WORD, ["[UNK]"]),
        ("abc" + "b" * (MAX_WORD - 3), ["a", "##b", "##c"] + ["##b"] * (MAX_WORD - 3)),
        ("abc" + "b" * (MAX_WORD - 2), ["[UNK]"]),
    ],
)
def test_a_text_becomes_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_the_longest_piece_wins() -> None:
    vocabulary = [*MARKERS, "a", "ab", "##c", "##cd", "##d", "abcde"]
    ids = WordPiece(vocabulary).encode("abcd")
    assert [vocabulary[number] for number in ids] == ["[CLS]", "ab", "##cd", "[SEP]"]


@pytest.mark.parametrize("text", ["cat " * 300, "running " * 300, "!" * 300, "東" * 300, "cat\t" * 9000])
def test_a_long_text_is_cut_at_the_limit(text: str) -> None:
    assert len(WordPiece(VOCABULARY).encode(text)) == 256
    assert len(tokens(text, limit=9)) == 7


def test_a_long_text_is_the_same_however_it_is_read() -> None:
    """Reading goes piece by piece; no word is broken where one piece ends."""
    lengths = range(4090, 4100)
    assert all(tokens("\x00" * length + "running cat") == ["run", "##ning", "cat"] for length in lengths)


@given(st.lists(st.text("abc !東éDOG\n"), max_size=5))
def test_what_was_read_before_changes_nothing(texts: list[str]) -> None:
    shared = WordPiece(VOCABULARY)
    assert [shared.encode(text) for text in texts * 2] == [
        WordPiece(VOCABULARY).encode(text) for text in texts * 2
    ]


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    assert 2 <= len(WordPiece(VOCABULARY, limit=16).encode(text)) <= 16


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", "\n".join(VOCABULARY[1:]).encode(), "\n".join([*VOCABULARY, "more"]).encode()],
    ids=["empty", "not text", "no padding marker", "too many"],
)
def test_a_wrong_vocabulary_is_refused_with_the_next_step(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(ConfigurationError, match="k9 model fetch minilm"):
        WordPiece.load(tmp_path / "vocab.txt", len(VOCABULARY))


def test_a_vocabulary_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    assert WordPiece.load(path, len(VOCABULARY)).encode("cat") == [2, VOCABULARY.index("cat"), 3]
    with pytest.raises(ConfigurationError, match="FileNotFoundError"):
        WordPiece.load(tmp_path / "nowhere.txt", 1)
