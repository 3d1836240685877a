"""What kind of task a text asks for, in several languages, and for any text at all."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k9_broker import classify
from k9_broker.classify import reading, text, weights
from k9_broker.requests import TaskType

CODE = "def total(xs):\n    s = 0\n    for x in xs:\n        s += x\n    return s"
PASSAGE = (
    "The harbour bridge was opened in March 1932 after nine years of work. Its engineer, Ralph Bradley, had "
    "planned it for six lanes, but the council wanted eight. Today some 160,000 cars cross it every day, and "
    "the toll is paid in one direction only."
)
MINUTES = (
    "1. Opening, two members excused.\n2. Last minutes approved.\n3. Fence: offer of 2,300 accepted, Ms Dale "
    "to order it.\n4. Insurance: Mr Poole asks for a second offer by 1 May.\n5. Summer party on 20 June."
)

CLEAR = {
    TaskType.QA: [
        "What is the capital of Mongolia?",
        "how do i get grass stains out of jeans",
        "Was ist die Hauptstadt von Norwegen?",
        "Wie lange muss Reis kochen?",
        "中国最长的河流是哪一条？",
        "Quelle est la différence entre un lac et un étang ?",
        "¿Por qué el mar es salado?",
        "富士山の高さは何メートルですか？",
        "Почему трава зелёная?",
        "ما هي عاصمة اليابان؟",
        "How does autoscaling work in Kubernetes?",
        "What is the difference between a thread pool and an event loop?",
        "Compare radix trees and hash tables.",
        "Best way to season a wooden chopping board?",
        "explain idempotency to me",
    ],
    TaskType.CODE_GENERATION: [
        "Write a Python function that returns the second largest number of a list.",
        "sql query to count orders per month",
        "Schreibe eine Python-Funktion, die zwei Listen vergleicht.",
        "写一个 Python 函数，计算两个数的最大公约数",
        "Écris une fonction JavaScript qui inverse une chaîne.",
        "Escribe un programa en Java que lea un archivo.",
        "Pythonで素数を判定する関数を書いてください",
        "Напиши функцию на Python, которая считает слова в файле",
        "اكتب دالة بلغة بايثون Python تحسب المتوسط",
    ],
    TaskType.CODE_COMPLETION: [
        "def median(values):\n    values = sorted(values)\n    middle =",
        "<fim_prefix>def add(a, b):\n    return <fim_suffix>\n\nprint(add(1, 2))<fim_middle>",
        'def area(radius: float) -> float:\n    """Area of a circle.\n\n    >>> area(1)\n    3.14\n    """\n',
    ],
    TaskType.CODE_REFACTOR_REVIEW: [
        f"Why does this code return the wrong result?\n\n```\n{CODE}\n```",
        f"Please review this code:\n\n{CODE}",
        f"Was macht dieser Code?\n\n```\n{CODE}\n```",
        f"优化这段代码：\n```\n{CODE}\n```",
        f"Explique ce code :\n```\n{CODE}\n```",
        f"Please review this code: {CODE}",
        f"Исправь ошибку в этом коде:\n```\n{CODE}\n```",
    ],
    TaskType.REASONING: [
        "Solve for x: 5x + 3 = 2x + 18",
        "Prove that the product of two odd numbers is odd.",
        "Peter has 12 marbles, gives a third to Jan and buys 5 more. How many marbles does he have now?",
        "Berechne die Ableitung von f(x) = x^3 * cos(x).",
        "解方程 4x - 9 = 15",
        "Résous l'équation x^2 - 4x + 3 = 0.",
        "Resuelve la ecuación 2x + 8 = 20.",
        "Реши уравнение 6x - 5 = 13.",
        "A judge, a smith and a baker sit at a table. Only one of them ever lies. The smith says the judge "
        "lies, the judge says the baker lies. Who is the liar?",
    ],
    TaskType.CREATIVE_WRITING: [
        "Write a poem about an old lighthouse keeper.",
        "Draft a cover letter for a job as a nurse.",
        "Schreibe ein Gedicht über den ersten Schnee.",
        "写一首关于月亮的诗",
        "Écris une histoire courte sur un chat qui parle.",
        "Escribe un poema sobre la lluvia.",
        "Напиши стихотворение про зиму.",
        "اكتب قصيدة عن القمر",
        "Invent six names for a little tea shop",
        "You're a ghost in an old theatre. I open the door with a torch in my hand.",
    ],
    TaskType.SUMMARIZATION: [
        f"Summarize the following text:\n\n{PASSAGE}",
        f"{PASSAGE}\n\ntl;dr",
        f"Fasse den folgenden Text zusammen:\n\n{PASSAGE}",
        f"总结以下内容：\n\n{PASSAGE}",
        f"Résume le texte suivant :\n\n{PASSAGE}",
        f"Resume el siguiente texto:\n\n{PASSAGE}",
        f"{MINUTES}\n\nPlease summarise these minutes.",
        f"whats the gist: {PASSAGE}",
        "make this sound friendlier: You forgot to pay the invoice again.",
    ],
    TaskType.EXTRACTION_CLASSIFICATION: [
        f"{PASSAGE}\n\nQuestion: Who planned the bridge?",
        f"Extract all dates and names from this text:\n\n{PASSAGE}",
        'Classify the sentiment as positive or negative: "The room was dirty and nobody answered the phone."',
        f"Extrahiere alle Namen: {PASSAGE}",
        f"{MINUTES}\n\nwhat are the action items?",
        'is this positive or negative? "The soup was salty and the waiter rolled his eyes."',
        "give me this as JSON: Rosa Klein, 52, Bremen, plumber",
    ],
    TaskType.TRANSLATION: [
        "Translate into German: The bus leaves at nine.",
        "how do you say good night in Portuguese",
        "Übersetze ins Englische: Der Bus fährt um neun Uhr ab.",
        "翻译成英文：公共汽车九点出发。",
        "Traduis en anglais : Le bus part à neuf heures.",
        "Traduce al inglés: El autobús sale a las nueve.",
        "英語に翻訳して：バスは九時に出発します。",
        "Переведи на английский: Автобус отходит в девять.",
        "ترجم إلى الإنجليزية: تغادر الحافلة في التاسعة.",
        'how do you say "the bill, please" in Italian?',
        "in English please: Der Aufzug ist seit gestern kaputt.",
        "what does 'Fernweh' mean in English?",
    ],
    TaskType.CHAT: [
        "hi there!",
        "thanks, you are great",
        "I had such a bad day, everything went wrong",
        "Hallo, wie geht es dir?",
        "Danke, bis morgen!",
        "你好！",
        "Salut, ça va ?",
        "¡Hola! ¿Cómo estás?",
        "こんにちは、元気ですか？",
        "Привет, как дела?",
        "مرحبا، كيف حالك؟",
        "thx",
        "ok cool",
        "你好",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "prompt"), [(kind, prompt) for kind, prompts in CLEAR.items() for prompt in prompts]
)
def test_clear_cases_are_recognised(wanted: TaskType, prompt: str) -> None:
    assert classify.task_type(prompt) == wanted


def test_the_table_knows_every_label() -> None:
    assert set(CLEAR) == set(TaskType) - {TaskType.EMBEDDINGS} == set(text.probabilities("x"))


ANY_TEXT = st.one_of(
    st.text(max_size=3000),
    st.text(st.characters(), max_size=400),
    st.text("\ud800\udfff\x00\x1c\n \t_'’`İß", max_size=200),
    st.text("翻译写诗コード번역한국ไทย", max_size=2000),
    st.builds(lambda part, times: part * times, st.text(min_size=1, max_size=30), st.integers(1, 400)),
)


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
def test_any_text_has_a_label_and_probabilities(prompt: str) -> None:
    found = text.probabilities(prompt)
    assert sum(found.values()) == pytest.approx(1)
    assert all(0 <= value <= 1 for value in found.values())
    label, confidence = classify.recognise_text(prompt)
    assert confidence == max(found.values()) == found[label]
    assert classify.task_type(prompt) == label.value != "embeddings"


@settings(max_examples=100, deadline=None)
@given(ANY_TEXT)
def test_the_reading_is_bounded(prompt: str) -> None:
    read = reading.read(prompt * 50)
    assert len(read.tokens) <= reading.FIRST + reading.LAST
    assert len(read.structure) == reading.QUESTIONS
    assert all(0 <= answer < reading.LEVELS for answer in read.structure)


@settings(max_examples=100, deadline=None)
@given(ANY_TEXT)
def test_adding_whole_rows_is_the_same_as_adding_weights(prompt: str) -> None:
    """No lane of a row runs over into its neighbour."""
    network, table = text.shipped(), _table()
    parts = reading.place(reading.read(prompt, network.phrases), network.words, network.pairs, network.width)
    every, edge, fixed = reading.factors(parts)
    expected = list(network.bias)
    for rows, numbers, factor in zip(table, parts, (every, every, *[edge] * 4, fixed), strict=True):
        for number in numbers:
            for unit, weight in enumerate(rows(number)):
                expected[unit] += network.scales[unit] * factor * (weight - weights.ZERO)
    assert network.hidden(parts) == pytest.approx([max(unit, 0.0) for unit in expected], abs=1e-6)


def _table() -> list[Callable[[int], bytes]]:
    loaded = weights.load(_raw())
    found: list[Callable[[int], bytes]] = []
    start = 0
    for size in loaded.sizes():
        part = loaded.table[start * loaded.hidden : (start + size) * loaded.hidden]
        found.append(lambda row, part=part: part[row * loaded.hidden : (row + 1) * loaded.hidden])  # type: ignore[misc]
        start += size
    assert start * loaded.hidden == len(loaded.table)
    return found


def _raw() -> bytes:
    return files("k9_broker.classify").joinpath(text.FILE).read_bytes()


def test_the_most_rows_ever_added_fit_a_lane() -> None:
    most = max(reading.FIRST + reading.LAST, 4 * reading.EDGE, reading.QUESTIONS + 2 * reading.PLACES)
    assert most * 255 < 256**weights.LANE


def test_a_megabyte_takes_no_longer_than_what_is_read_of_it() -> None:
    long = f"Summarize this:\n\n{PASSAGE * 5000}"
    short = long[:3000]

    def fastest(prompt: str) -> float:
        times = []
        for _ in range(30):
            began = time.perf_counter()
            classify.task_type(prompt)
            times.append(time.perf_counter() - began)
        return min(times)

    assert len(long) > 1_000_000
    assert fastest(long) < 3 * fastest(short)


def test_the_weights_are_small_and_plain() -> None:
    raw = _raw()
    assert len(raw) <= 2_400_000
    head = json.loads(raw.partition(b"\n")[0])
    assert set(head["labels"]) == set(TaskType) - {TaskType.EMBEDDINGS}
    assert raw == weights.dump(weights.load(raw))


def test_weights_cut_short_are_refused() -> None:
    with pytest.raises(ValueError, match="cut short"):
        weights.load(_raw()[:-1])


def test_it_runs_without_numpy_and_costs_nothing_until_used() -> None:
    script = """
import sys
sys.modules["numpy"] = None
from k9_broker import classify
assert "k9_broker.classify.text" not in sys.modules
assert classify.task_type("Translate into French: good morning") == "translation"
assert not {"pickle", "scipy", "torch", "sklearn"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
