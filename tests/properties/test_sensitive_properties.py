"""What holds for every text: no errors, no text given back, no category not asked for, linear time."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k9_broker.sensitive import Category, Detector, banking, phones
from k9_broker.sensitive.identities import _check
from k9_broker.sensitive.identity_table import FORMS, Form
from k9_broker.sensitive.names import Names
from k9_broker.sensitive.reading import Reading

EVERY = Detector(words=["falcon", "银河"])
SAMPLES = {
    Category.API_KEY: "gh" + "p_" + "aB3dE5gH7jK9mN1pQ2sT4vW6yZ8bC0dFx7Rq",
    Category.PRIVATE_KEY: "-----BEG" + "IN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj",
    Category.EMAIL: "maria.lopez@uni-hamburg.de",
    Category.PHONE: "+49 151 23456789",
    Category.PAYMENT_CARD: "4111 1111 1111 1111",
    Category.IBAN: "DE89370400440532013000",
    Category.NATIONAL_ID: "390.533.447-05",
    Category.WORD: "Falcon",
}
PIECES = st.sampled_from(
    [*"0123456789 -+.()/:=@\n\"'", "sk-", "key-", "eyJ", "AKIA", "DE89", "http://", "password", "ssn"]
)
HARMLESS = st.lists(
    st.sampled_from(
        ["the", "a river", "walks,", "slowly.", "(42)", "7 x = f(y);", "evening:", "Fluß", "山", "C"]
    ),
    max_size=40,
).map(" ".join)
CATEGORIES = st.sets(st.sampled_from(Category))


@given(st.lists(st.text() | st.lists(PIECES, max_size=60).map("".join), max_size=4))
@settings(max_examples=400, deadline=None)
def test_any_text_is_taken(texts: list[str]) -> None:
    present = EVERY.find(texts)
    assert present == tuple(sorted(set(present)))
    assert all(type(category) is Category for category in present)


@given(
    st.lists(
        st.sampled_from(sorted(SAMPLES.values())) | HARMLESS | st.lists(PIECES, max_size=20).map("".join),
        max_size=12,
    )
)
@settings(max_examples=400, deadline=None)
def test_texts_are_read_together_as_one_by_one(texts: list[str]) -> None:
    alone = {category for text in texts for category in EVERY.find([text])}
    assert EVERY.find(texts) == tuple(sorted(alone))


@given(st.text(st.characters(), max_size=200))
@settings(max_examples=200, deadline=None)
def test_lone_surrogates_and_controls_are_taken(text: str) -> None:
    EVERY.find([text, text + "\ud800", "\udfff" + text])


@given(st.sampled_from(Category), HARMLESS, HARMLESS)
@settings(deadline=None)
def test_harmless_surroundings_hide_nothing_and_add_nothing(
    category: Category, before: str, after: str
) -> None:
    assert EVERY.find([before, after]) == ()
    assert EVERY.find([f"{before}\n{SAMPLES[category]}\n{after}"]) == (category,)
    assert EVERY.find([before, SAMPLES[category], after]) == (category,)


@given(CATEGORIES, st.lists(st.sampled_from(sorted(SAMPLES.values()))))
@settings(deadline=None)
def test_only_what_is_asked_for_is_reported(asked: set[Category], texts: list[str]) -> None:
    present = Detector(asked, ["falcon"]).find(texts)
    assert present == tuple(sorted(asked.intersection(EVERY.find(texts))))


@given(st.sampled_from(["falcon", "Project Falcon", "straße", "Ångström"]), st.data())
@settings(deadline=None)
def test_the_casing_of_words_does_not_matter(word: str, data: st.DataObject) -> None:
    flips = data.draw(st.lists(st.booleans(), min_size=len(word), max_size=len(word)))
    written = "".join(
        letter.upper() if flip else letter.lower() for letter, flip in zip(word, flips, strict=True)
    )
    assert Detector([Category.WORD], [word]).find([f"a {written}."]) == (Category.WORD,)


@given(st.lists(PIECES, max_size=60).map("".join))
@settings(deadline=None)
def test_what_is_given_back_holds_nothing_of_the_text(text: str) -> None:
    present = EVERY.find([text, *SAMPLES.values()])
    assert set(present) == set(Category)
    assert repr(EVERY) == object.__repr__(EVERY)


REPEATED = [
    *["1", "-", "a", "(((", "_a", "1 ", "12 ", "4111 ", "4111111111111112 ", "123-45-6789x", "0 12 34 56 "],
    *["a@", "@a.", "[at]", "://", "://a:b@", "+1 ", "+1111111 ", "(555) ", "phone 1234567 ", "id number 123"],
    *[
        "sk-",
        "sk-ant-",
        "xoxb-",
        "eyJ",
        "eyJa.",
        "AKIA",
        "password=",
        "token: ",
        "secret is ",
        "密码:",
        "bearer ",
    ],
    *["DE00 ", "AA00", "-----BEGIN ", "PRIVATE KEY-----\n", "-----BEG" + "IN PRIVATE KEY-----", '"kty" "d":'],
    *[
        "0000 000 0000 ",
        "12345678Z ",
        "tel 00000001 ",
        "4111 1111 1111 1112 ",
        "cpf 12345678901 pesel ",
        "\ufdfb",
    ],
    *["".join(map(chr, range(0x660, 0x1100))), "\u3316", "\u337f", "\u0130tel 1"],
    *["\u200b", "\u0316\u0301", "１", "٣", "\ufdfa", "\ud800", "falcon ", "银"],
]

MOST_SECONDS = 2
"""For a quarter of a million characters; they take a quarter of a second at most on a core of its own."""


@pytest.mark.parametrize("piece", REPEATED, ids=lambda piece: ascii(piece[:24]))
def test_repetitive_texts_take_linear_time(piece: str) -> None:
    """A quarter of a million characters: well under a second where rules are linear, minutes where not."""
    text = piece * (250_000 // len(piece))
    started = time.process_time()
    EVERY.find([text])
    assert time.process_time() - started < MOST_SECONDS


@pytest.mark.parametrize(
    "text",
    [
        "token = '" + "abcdefgijk" * 24 + "1!2'",
        "token = " + "abCdefGijk_" * 22 + "1!2",
        "id number " + "1234567 " * 30_000,
        "id number " + "1" * 250_000,
        "phone " + "12-" * 80_000,
        "password " + "is " * 80_000,
        "a@" + "a-" * 100_000,
        "a@" + "a." * 100_000,
        "://" + "a:" * 100_000 + "@",
        "-----BEG" + "IN PRIVATE KEY-----" + "abc:" * 60_000,
        "-----BEG" + "IN PRIVATE KEY-----" + "'\\n" * 60_000,
        "DE89 " + "1 " * 100_000,
        "+" + "1 " * 100_000,
        "+" + "(" * 200_000,
        "x" * 250_000 + ".eyJ",
        "eyJ" + "x" * 250_000 + ".eyJ" + "x" * 250_000,
        "sk-proj-" * 30_000,
        "1:" * 100_000,
        "\u0301" * 200_000 + "a",
    ],
    ids=lambda text: ascii(text[:14]),
)
def test_long_beginnings_of_matches_take_linear_time(text: str) -> None:
    started = time.process_time()
    EVERY.find([text])
    assert time.process_time() - started < MOST_SECONDS


def test_tables_of_numbers_are_read_quickly() -> None:
    """Over a million characters. Every row differs: remembering one would not help with the next."""
    chance = random.Random(3)
    rows = [
        ",".join([f"{chance.uniform(-100, 100):.6f}", f"{chance.random()}", str(chance.randrange(10**9))])
        for _ in range(28_000)
    ]
    text = "\n".join(rows)
    EVERY.find([text[:1_000]])
    started = time.process_time()
    assert EVERY.find([text]) == ()
    assert time.process_time() - started < 0.7


@pytest.mark.parametrize("form", [form for form in FORMS if form.needles], ids=lambda form: form.check)
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_the_outline_of_every_form_is_found(form: Form, data: st.DataObject) -> None:
    shape = re.compile(form.shape)
    number = data.draw(st.from_regex(re.compile(form.shape, re.ASCII), fullmatch=True))
    reading = Reading(f"a {number}, b")
    # A form may be written in more ways than are looked for, but none of its needles may be at another place.
    for needle in form.needles:
        if needle in reading.shape:
            assert [match[0] for match in reading.begin_with(needle, shape)]
            return
    assert form.check in ("", "german_card") or " " in number


@pytest.mark.parametrize("form", [form for form in FORMS if form.check], ids=lambda form: form.check)
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_check_stumbles(form: Form, data: st.DataObject) -> None:
    number = data.draw(st.from_regex(re.compile(form.shape, re.ASCII), fullmatch=True))
    assert isinstance(_check(form.check)(number), bool)


def test_chinese_numbers_of_places_without_counties_are_checked() -> None:
    numbers = [f"{place}19800101123{last}" for place in range(110000, 660000, 100) for last in "0123456789X"]
    right = sum(map(_check("chinese"), numbers))
    assert 0 < right < len(numbers) / 10


@given(st.from_regex(phones._NATIONAL, fullmatch=True))
@settings(deadline=None)
def test_every_shape_of_a_phone_number_is_found(number: str) -> None:
    assert Detector([Category.PHONE]).find([f"so: {number}\n"]) == (Category.PHONE,)


@given(st.from_regex(banking._CARD, fullmatch=True))
@settings(deadline=None)
def test_every_way_of_writing_a_card_is_looked_at(number: str) -> None:
    reading = Reading(f"so: {number}\n")
    assert any(list(reading.begin_with(needle, banking._CARD)) for needle in banking._NEEDLES)


@given(
    st.lists(
        st.sampled_from(["12345678", "tel", " ", "x", "hotel", "İ", "1 2 3", ", " * 20, "é"]), max_size=30
    )
)
@settings(deadline=None)
def test_names_are_found_beside_islands_only(pieces: list[str]) -> None:
    reading = Reading("".join(pieces))
    near = [
        (start, end) for start, end in reading.islands if Names("tel").stand_in(reading.beside(start, end))
    ]
    named = Names("tel").islands(reading)
    # A word that the margin cuts in two is whole to `islands`.
    assert set(named) <= set(near)
    assert named == near or "hotel" in pieces or "x" in pieces or "é" in pieces
