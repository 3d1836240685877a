"""The detector as a whole: its words, what it gives back, and that it is cheap to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from k9_broker.sensitive import Category, Detector

EVERYTHING = (
    "maria.lopez@uni-hamburg.de",
    "+49 151 23456789",
    "4111 1111 1111 1111",
    "DE89370400440532013000",
    "536-90-4399",
)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("Falcon", "the FALCON flies"),
        ("falcon", "(Falcon)"),
        ("Project Falcon", "project\n\t  falcon"),
        ("Project Falcon", "Project\u00a0Falcon's"),
        ("falcon", "我们的Falcon项目"),
        ("银河计划", "关于银河计划的预算"),
        ("プロジェクト鷹", "新プロジェクト鷹です"),
        ("프로젝트", "그 프로젝트를"),
        ("STRASSE", "straße"),
        ("Straße", "STRASSE"),
        ("café", "cafe\u0301"),
        ("ﬁnance", "Finance"),
        ("falcon", "fal\u200bcon"),
        ("falcon", "ｆａｌｃｏｎ"),
        ("C++", "we use c++ here"),
        ("AT&T", "at&t."),
        ("X-15", "the x‑15"),
        ("***", "a***b"),
        ("4711", "number 4711"),
    ],
)
def test_words_are_found(word: str, text: str) -> None:
    assert Detector([Category.WORD], [word]).find([text]) == (Category.WORD,)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("falcon", "falcons"),
        ("falcon", "a_falconer"),
        ("Project Falcon", "project-falcon"),
        ("Project Falcon", "falcon project"),
        ("Project Falcon", "a project, then a falcon"),
        ("银河计划", "银河 计划"),
        ("4711", "47110"),
        ("", "anything"),
        ("  \t ", "anything  else"),
        ("C++", "c+"),
    ],
)
def test_words_are_left_alone(word: str, text: str) -> None:
    assert Detector([Category.WORD], [word]).find([text]) == ()


def test_words_count_only_when_asked_for() -> None:
    assert Detector([Category.EMAIL], ["falcon"]).find(["falcon"]) == ()
    assert Detector(words=["falcon"]).find(["falcon"]) == (Category.WORD,)


def test_many_words_are_found_like_one() -> None:
    many = Detector([Category.WORD], [f"name{number} of it" for number in range(2_000)])
    assert many.find(["it is name1999 of IT"]) == (Category.WORD,)
    assert many.find(["it is name2000 of it"]) == ()


def test_categories_come_sorted_and_once() -> None:
    every = Detector().find([*EVERYTHING, *EVERYTHING])
    assert every == tuple(sorted(every))
    assert set(every) == {
        Category.EMAIL,
        Category.PHONE,
        Category.PAYMENT_CARD,
        Category.IBAN,
        Category.NATIONAL_ID,
    }
    assert Detector().find([" ".join(EVERYTHING)]) == every


def test_nothing_is_found_in_nothing() -> None:
    assert Detector().find([]) == ()
    assert Detector().find(["", " ", "\x00"]) == ()
    assert Detector([]).find(EVERYTHING) == ()


def test_each_text_stands_by_itself() -> None:
    assert Detector().find(["4111 1111", " 1111 1111"]) == ()


def test_categories_may_be_given_by_name() -> None:
    assert Detector([Category("email"), Category.EMAIL]).find(EVERYTHING) == (Category.EMAIL,)
    with pytest.raises(ValueError, match="smell"):
        Detector(["smell"])  # type: ignore[list-item]


def test_a_detector_does_not_change() -> None:
    detector = Detector()
    assert len({detector, detector, Detector()}) == 2
    with pytest.raises(AttributeError):
        detector.more = 1  # type: ignore[attr-defined]


def test_libraries_wait_for_a_candidate() -> None:
    program = (
        "import sys; from k9_broker.sensitive import Detector; "
        "Detector().find(['hello 1 2 3', 'def f(): pass']); "
        "sys.exit(any(name.partition('.')[0] in ('stdnum', 'phonenumbers') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
