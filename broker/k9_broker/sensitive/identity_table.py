"""Which personal numbers of which states are looked for: how each is written, checked, and called.

A number whose written form is unmistakable (separators in its own places, letters, a date and a check
digit) stands alone; any other needs one of its names nearby. Checks are python-stdnum's modules.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Form:
    """One way of writing one state's number.

    `shape` is a regular expression without word edges; `check` a python-stdnum module, or a rule of
    `identity_checks`, or empty when the shape says all; `names` (see `Names`) one of
    which must stand nearby, or empty. `needles` are pieces of the text's outline (`Reading.shape`:
    digits `0`, letters `A`, dots, dashes and slashes as spaces); every match holds one of them, which
    begins in its first word. A form without needles has names, and holds eight digits.
    """

    shape: str
    check: str = ""
    names: str = ""
    needles: tuple[str, ...] = ()


ANY_NAME = (
    "national id*|national insurance|identity card|identity n*|identity document|identification n*|id card"
    "|id no|id nr|id number|personal id*|personal n*|social security|social insurance|tax id*|taxpayer n*"
    "|citizen id|ssn|身份证|身分証|주민등록|کد ملی|رقم الهوية"
)
"""What people call such a number when they do not say which one it is."""
PASSPORT = "passport n*|passport id|passport is|passport:|护照|паспорт*"

FORMS: tuple[Form, ...] = (
    # United States: social security, taxpayer
    Form(r"[0-9]{3}-[0-9]{2}-[0-9]{4}", "us.ssn", needles=("000 00 0000",)),
    Form(r"9[0-9]{2}-[0-9]{2}-[0-9]{4}", "us.itin", needles=("000 00 0000",)),
    Form(r"[0-9]{3}[ .]?[0-9]{2}[ .]?[0-9]{4}", "us.ssn", "ssn|social security|itin|taxpayer id*"),
    # United Kingdom: national insurance (not all letters are given out), health service
    Form(
        r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?: ?[0-9]{2}){3} ?[A-D]",
        needles=("AA000000", "AA 000000", "AA 00 00 00"),
    ),
    Form(r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}", "gb.nhs", "nhs|national health|health service"),
    # Germany, Austria, Switzerland
    Form(r"[0-9]{2} [0-9]{3} [0-9]{3} [0-9]{3}", "de.idnr", needles=("00 000 000 000",)),
    Form(r"[0-9]{11}", "de.idnr", "steuer*|idnr|tin|tax id*"),
    Form(
        r"[CFGHJKLMNPRTVWXYZ][CFGHJKLMNPRTVWXYZ0-9]{8}[0-9]",
        "german_card",
        "*ausweis*|reisepass*",
        ("A0", "AA"),
    ),
    Form(r"[0-9]{2} ?[0-9]{6} ?[A-Z] ?[0-9]{3}", "", "*versicherungs*|svnr|rvnr"),
    Form(r"[0-9]{4} ?[0-9]{6}", "at.vnr", "*versicherungs*|svnr"),
    Form(r"756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}", "ch.ssn", needles=("000 0000 0000 00",)),
    Form(r"756[0-9]{10}", "ch.ssn", "ahv*|avs|oasi"),
    # France, Belgium, Netherlands
    Form(
        r"[12] [0-9]{2} [0-9]{2} (?:[0-9]{2}|2[AB]) [0-9]{3} [0-9]{3} [0-9]{2}",
        "fr.nir",
        needles=("0 00 00 00 000 000 00", "0 00 00 0A 000 000 00"),
    ),
    Form(
        r"[12] ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}",
        "fr.nir",
        "nir|insee|sécu|sécurité sociale|securite sociale",
    ),
    Form(r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}\.[0-9]{2}", "be.nn", needles=("00 00 00 000 00",)),
    Form(r"[0-9]{11}", "be.nn", "rijksregister*|registre national|nationaal nummer|niss|insz"),
    Form(r"[0-9]{4}[ .]?[0-9]{2}[ .]?[0-9]{3}", "nl.bsn", "bsn|burgerservicenummer|sofinummer"),
    # Spain, Portugal, Italy
    Form(r"[0-9]{8}-?[TRWAGMYFPDXBNJZSQVHLCKE]", "es.dni", needles=("00000000A", "00000000 A")),
    Form(
        r"[XYZ]-?[0-9]{7}-?[TRWAGMYFPDXBNJZSQVHLCKE]",
        "es.nie",
        needles=("A0000000", "A 0000000"),
    ),
    Form(r"[0-9]{8}[- ]?[a-zA-Z]", "es.dni", "dni|nif|documento nacional"),
    Form(r"[0-9]{3} ?[0-9]{3} ?[0-9]{3}", "pt.nif", "nif|contribuinte|identificação fiscal"),
    Form(r"[0-9]{8} ?[0-9] ?[A-Z0-9]{2}[0-9]", "pt.cc", "cartão de cidadão|bilhete de identidade"),
    Form(
        r"(?i:[A-Z]{6}[0-9]{2}[ABCDEHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z])",
        "it.codicefiscale",
        needles=("AAAAAA00A00A000",),
    ),
    # the North: birthday, then a number
    Form(r"(?:[0-9]{2})?[0-9]{6}[-+][0-9]{4}", "se.personnummer", needles=("000000 0000", "000000+0000")),
    Form(r"(?:[0-9]{2})?[0-9]{6}[0-9]{4}", "se.personnummer", "person*|samordningsnummer"),
    Form(
        r"[0-3][0-9][01][0-9]{3}[-+A-FU-Y][0-9]{3}[0-9A-FHJ-NPR-Y]",
        "fi.hetu",
        needles=("000000 000", "000000A000", "000000+000"),
    ),
    Form(r"[0-9]{6} [0-9]{5}", "no.fodselsnummer", needles=("000000 00000",)),
    Form(r"[0-9]{11}", "no.fodselsnummer", "fødselsnummer|fodselsnummer|personnummer|d-nummer"),
    Form(r"[0-9]{6}[- ]?[0-9]{4}", "dk.cpr", "cpr*|personnummer"),
    # the East
    Form(r"[0-9]{11}", "pl.pesel", "pesel*"),
    Form(r"[0-9]{6}/[0-9]{3,4}", "cz.rc", needles=("000000 000",)),
    Form(r"[0-9]{13}", "ro.cnp", "cnp|numeric personal"),
    Form(r"[0-9]{10}", "bg.egn", "егн|egn"),
    Form(r"[0-9]{11}", "hr.oib", "oib"),
    Form(r"[0-9]{11}", "gr.amka", "αμκα|amka"),
    Form(r"[0-9]{11}", "ee.ik", "isikukood*|asmens kod*|personal code"),
    Form(r"[0-9]{10}", "ua.rntrc", "іпн|рнокпп"),
    Form(r"[0-9]{3}-[0-9]{3}-[0-9]{3}[ -][0-9]{2}", "snils", needles=("000 000 000 00",)),
    Form(r"[0-9]{12}", "inn", "инн"),
    Form(r"[0-9]{11}", "tr.tckimlik", "kimlik*|tc no|t.c. no"),
    Form(r"[0-9]{9}", "il.idnr", "תעודת זהות|מספר זהות|teudat zehut"),
    # Ireland
    Form(r"[0-9]{7}[A-W][A-IW]?", "ie.pps", "pps*", ("0000000A",)),
    # the Americas
    Form(r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", "br.cpf", needles=("000 000 000 00",)),
    Form(r"[0-9]{11}", "br.cpf", "cpf"),
    Form(r"(?i:[A-Z]{4}[0-9]{6}[HMX][A-Z]{5}[A-Z0-9][0-9])", "mx.curp", needles=("AAAA000000",)),
    Form(r"[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}-[0-9kK]", "cl.rut", needles=("0 000 000 0", "0 000 000 A")),
    Form(r"[0-9]{7,8}-[0-9kK]", "cl.rut", "rut|run"),
    Form(r"(?:20|23|24|27)-[0-9]{8}-[0-9]", "ar.cuit", needles=("00 00000000 0",)),
    Form(r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}", "ca.sin", "sin|social insurance|nas"),
    # Asia, Australia, Africa
    Form(r"[1-9][0-9]{5}(?:19|20)[0-9]{2}[01][0-9][0-3][0-9][0-9]{3}[0-9Xx]", "chinese", needles=("0" * 17,)),
    Form(r"[0-9]{2}[01][0-9][0-3][0-9]-[1-8][0-9]{6}", "kr.rrn", needles=("000000 0000000",)),
    Form(r"[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}", "jp.in_", "マイナンバー|個人番号|my number|mynumber"),
    Form(r"[A-Z][12][0-9]{8}", "taiwan", "身分證|身份證|身份证|taiwan*", ("A00000000",)),
    Form(r"[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}", "in_.aadhaar", "aadhaar*|aadhar*|uidai|आधार"),
    Form(r"[A-Z]{3}P[A-Z][0-9]{4}[A-Z]", "in_.pan", needles=("AAAAA0000",)),
    Form(r"[1-8]-[0-9]{4}-[0-9]{5}-[0-9]{2}-[0-9]", "th.pin", needles=("0 0000 00000 00 0",)),
    Form(r"[0-9]{2}[01][0-9][0-3][0-9]-[0-9]{2}-[0-9]{4}", "my.nric", needles=("000000 00 0000",)),
    Form(r"[STFGM][0-9]{7}[A-Z]", "singapore", needles=("A0000000",)),
    Form(r"[0-9]{16}", "id.nik", "nik|ktp"),
    Form(r"[0-9]{3} ?[0-9]{3} ?[0-9]{3}", "au.tfn", "tfn|tax file"),
    Form(r"[0-9]{13}", "za.idnr", "south african id|sa id|rsa id|id number|identity number"),
    # passports, and whatever somebody calls a national id
    Form(r"[A-Z]{1,2}[0-9]{6,8}", "", PASSPORT, ("A000000",)),
    Form(r"[0-9]{9}", "", PASSPORT),
    Form(r"[0-9]{3,6}(?:[ -]?[0-9]{2,7}){1,4}", "any_length", ANY_NAME),
)

_NEEDLES = frozenset(needle for form in FORMS for needle in form.needles)
LONG_NEEDLES = tuple(
    needle for needle in _NEEDLES if needle.count("0") >= 8 and set(needle.strip("A")) <= {"0", " "}
)
"""Pieces of the outline that are an island of digits, with a letter at most at its edge."""
SHORT_NEEDLES = tuple(_NEEDLES.difference(LONG_NEEDLES))
