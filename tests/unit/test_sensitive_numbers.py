"""Phone numbers, cards, IBANs and personal numbers: what the detector finds and what it leaves alone.

The numbers are published test numbers or made up.
"""

from __future__ import annotations

import pytest

from k9_broker.sensitive import Category, Detector

DETECTOR = Detector()

PHONES = [
    "+49 151 23456789",
    "+1 (415) 555-2671",
    "+44 20 7946 0958.",
    "＋４９ １５１ ２３４５６７８９",
    "tel:+4915123456789",
    "+49\u00a0151\u200923456789",
    "+91-98765-43210 2024",
    "(555) 123-4567",
    "415-555-2671",
    "phone=415-555-2671",
    "415.555.2671",
    "1-800-356-9377",
    "06 12 34 56 78",
    "(020) 7946 0958",
    "07700 900123",
    "0151 23456789",
    "(11) 98765-4321",
    "03-1234-5678",
    "010-1234-5678",
    "8 (495) 123-45-67",
    "138 1234 5678",
    "call me at 5551234567",
    "my phone: 415 555 2671",
    "Telefon 030 901820",
    "手机13812345678",
    "рабочий телефон: 8 912 345 67 89",
    "هاتف: ٠٥٠١٢٣٤٥٦٧",
]
NO_PHONES = [
    "1234567890",
    "what is 4155552671 * 2?",
    "+1 +2 +3 +4 +5 +6 +7",
    "x = +1234567",
    "2+4915123456789",
    "2024-01-15 10:30:00",
    "192.168.100.200",
    "3.14159265358979",
    "version 10.15.7-20240115",
    "(123) 456",
    "1,234,567,890",
    "order 100-200-3000",
    "12 34 56 78 90 12 34",
    "1000000000000",
    "ISBN 978-3-16-148410-0",
    "f(555) = 123 - 4567",
]
CARDS = [
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "4111.1111.1111.1111",
    "4111111111111111",
    "4111\u00a01111\u20091111\u202f1111",
    "４１１１１１１１１１１１１１１１",
    "4111\u200b1111\u200b1111\u200b1111",
    "4111  1111  1111  1111",
    "4111 1111 1111 1112 4111 1111 1111 1111 Visa",
    "5555 5555 5555 4444 12/27 123",
    "2223003122003222",
    "3782 822463 10005",
    "378282246310005",
    "3056 930902 5904",
    "6011111111111117",
    "3530111333300000",
    "6200000000000005",
    "my card 4222222222222",
    "card:4111111111111111.",
    "card=4111111111111111&cvv=123",
]
NO_CARDS = [
    "4111 1111 1111 1112",
    "4111111111111112",
    "1111 1111 1111 1117",
    "4222222222222",
    "0.4111111111111111",
    "4.111111111111111",
    "x4111111111111111",
    "4111111111111111a",
    "41111111111111111111",
    "4111 1111 1111 1111 1111 2222",
    "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
    "1700000000000",
    "9780143126560",
]
IBANS = [
    "DE89370400440532013000",
    "DE89 3704 0044 0532 0130 00",
    "de89 3704 0044 0532 0130 00 BIC COBADEFF",
    "GB29-NWBK-6016-1331-9268-19",
    "FR14 2004 1010 0505 0001 3M02 606",
    "NL91ABNA0417164300.",
    "MT84MALT011000012345MTLCAST001S",
    "NO9386011117947",
    "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000",
    "IBAN:CH9300762011623852957",
]
NO_IBANS = [
    "DE88370400440532013000",
    "DE8937040044053201300",
    "DE893704004405320130001",
    "XX89370400440532013000",
    "ADE89370400440532013000",
    "AT11 is the postcode of nobody here today",
    "utf8 base64 sha256 md5",
]
NATIONAL_IDS = [
    "536-90-4399",
    "ssn=536-90-4399",
    '{"ssn":"536-90-4399"}',
    "my SSN is 536904399",
    "ssn: 536 90 4399",
    "AB 12 34 56 C",
    "AB123456C",
    "NHS number 943 476 5919",
    "36 574 261 809",
    "Steuer-ID 36574261809",
    "Personalausweis L01X00T471",
    "756.9217.0769.85",
    "2 95 10 99 126 111 93",
    "numéro de sécu 295109912611193",
    "85.07.30-033.28",
    "BSN 111222333",
    "12345678Z",
    "X-2482300-W",
    "X2482300W",
    "RCCMNL83S18D969H",
    "880320-0016",
    "131052-308T",
    "131052+308T",
    "131052A308T",
    "身分證 A123456789",
    "passport number 123456789",
    "151086 95088",
    "CPR 211062-5629",
    "PESEL 44051401359",
    "710319/2745",
    "390.533.447-05",
    "CPF: 39053344705",
    "BOXW310820HNERXN09",
    "12.531.909-2",
    "20-05536168-2",
    "SIN 123-456-782",
    "11010519491231002X",
    "身份证号码11010519491231002X",
    "Aadhaar 2341 2341 2346",
    "S1234567D",
    "112-233-445 95",
    "TFN 123 456 782",
    "passport number X1234567",
    "national id: 8842 1093 77",
    "５３６－９０－４３９９",
    "536\u201190\u20114399",
]
NO_NATIONAL_IDS = [
    "000-12-3456",
    "666-12-3456",
    "536904399",
    "943 476 5919",
    "36574261809",
    "44051401359",
    "111222333",
    "12345678A",
    "123456789",
    "390.533.447-06",
    "880320-0017",
    "11010519491231002Y",
    "110105194912310021",
    "2341 2341 2346",
    "QQ123456Z",
    "RCCMNL83S18D969I",
    "0536-90-43991",
    "using 123456782 as a seed",
    "running 12345678-5 steps",
    "the id is 42",
    "ABCDE12345 is our part number",
]

FOUND = {
    Category.PHONE: PHONES,
    Category.PAYMENT_CARD: CARDS,
    Category.IBAN: IBANS,
    Category.NATIONAL_ID: NATIONAL_IDS,
}
LEFT = {
    Category.PHONE: NO_PHONES,
    Category.PAYMENT_CARD: NO_CARDS,
    Category.IBAN: NO_IBANS,
    Category.NATIONAL_ID: NO_NATIONAL_IDS,
}


def cases(table: dict[Category, list[str]]) -> list[tuple[Category, str]]:
    return [(category, text) for category, texts in table.items() for text in texts]


@pytest.mark.parametrize(("category", "text"), cases(FOUND))
def test_found(category: Category, text: str) -> None:
    assert category in DETECTOR.find([text])
    assert category in DETECTOR.find([f"Hello,\nplease have a look: {text}\nThank you!"])


@pytest.mark.parametrize(("category", "text"), cases(LEFT))
def test_left_alone(category: Category, text: str) -> None:
    assert category not in DETECTOR.find([text])
    assert category not in DETECTOR.find([f"Hello,\nplease have a look: {text}\nThank you!"])
