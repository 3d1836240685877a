"""What `needs_strong` learns from: rows with a target in 0..1 and a weight, from outcomes and from grades.

`choice` rows are questions with lettered options, `open` rows everything else. Outcome rows carry the gain
of a real pair of models. Grades (low, medium, high) become a target by the table `GRADED`: our judgement
of how often a small model falls short at such a task, to order ordinary prompts, not a measurement.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from needs_strong_authored import EASY, HARD


class Row(NamedTuple):
    """One prompt to learn from."""

    text: str
    target: float
    weight: float
    source: str
    domain: str = ""
    """Subject of an outcome row."""
    task: str = ""
    grade: str = ""
    natural: bool = False
    """Written by a real user for an assistant."""


# Small models differ from large ones most in derivation and code, least in talk and in free writing.
GRADED: dict[str, tuple[float, float, float]] = {
    "reasoning": (0.20, 0.45, 0.75),
    "code_generation": (0.15, 0.40, 0.75),
    "code_refactor_review": (0.20, 0.40, 0.70),
    "code_completion": (0.15, 0.35, 0.60),
    "qa": (0.06, 0.30, 0.60),
    "extraction_classification": (0.10, 0.25, 0.50),
    "summarization": (0.08, 0.20, 0.40),
    "translation": (0.10, 0.20, 0.40),
    "creative_writing": (0.08, 0.20, 0.50),
    "chat": (0.02, 0.10, 0.30),
}
GRADES = ("low", "medium", "high")
STEPS = {"low": 0.15, "medium": 0.31, "high": 0.55}
"""Word problems by their number of solution steps, around the share the pair shows on such problems."""

SAMPLE = 350
"""Rows a task type and grade gives at most when a rule graded them."""

CUES: tuple[tuple[str, ...], ...] = (
    # Words that ask for a derivation or a design.
    ("prove", "proof", "theorem", "lemma", "derive", "rigorous", "induction", "convergence",
     "asymptotic", "architecture", "distributed", "scalable", "fault", "concurrency", "deadlock",
     "consensus", "optimize", "optimise", "optimal", "complexity", "algorithm", "eigenvalue",
     "integral", "differential", "topology", "compiler", "kernel", "cryptography", "formal",
     "invariant", "tradeoffs", "trade-offs", "migration", "beweise", "beweis", "zeige", "leite",
     "herleitung", "architektur", "verteilte", "entwirf", "optimiere", "satz", "demuestra",
     "demostrar", "deduce", "teorema", "arquitectura", "diseña", "distribuido", "optimiza",
     "démontre", "démontrer", "montrez", "montrer", "théorème", "conçois", "concevez", "distribuée",
     "optimiser", "dimostra", "architettura", "progetta", "demonstre", "arquitetura", "projete",
     "bewijs", "ontwerp", "докажи", "докажите", "выведи", "теорема", "архитектура", "спроектируй",
     "оптимизируй", "распределенная", "udowodnij", "zaprojektuj", "kanıtla", "tasarla",
     "chứng minh", "buktikan", "证明", "定理", "推导", "架构", "分布式", "优化", "設計", "设计", "証明",
     "導出", "분산", "증명", "설계", "أثبت", "برهن", "صمم", "सिद्ध", "הוכח"),
    # Words that set limits the answer must keep.
    ("must", "exactly", "constraint", "constraints", "requirements", "ensure", "without", "except",
     "at least", "at most", "only if", "subject to", "step by", "each", "every", "compare",
     "justify", "analyze", "analyse", "evaluate", "detailed", "comprehensive", "edge cases", "muss",
     "genau", "mindestens", "höchstens", "ohne", "begründe", "debe", "exactamente", "sin usar",
     "doit", "exactement", "sans", "chaque", "deve", "должен", "ровно", "каждый", "без", "必须", "要求",
     "至少", "不能", "分析", "详细", "必ず", "条件", "반드시", "يجب"),
    # Words of greetings, thanks and quick look-ups.
    ("hi", "hello", "hey", "thanks", "thank", "bye", "joke", "capital", "weather", "synonym",
     "spell", "translate", "hallo", "danke", "hola", "gracias", "bonjour", "merci", "salut", "ciao",
     "grazie", "olá", "obrigado", "привет", "спасибо", "hauptstadt", "capitale", "столица", "cześć",
     "merhaba", "你好", "谢谢", "翻译", "首都",
     "こんにちは", "ありがとう", "안녕", "감사", "مرحبا", "شكرا", "नमस्ते"),
)  # fmt: skip


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file."""
    with path.open(encoding="utf-8") as source:
        yield from map(json.loads, source)


def calibration(folder: Path) -> list[dict[str, Any]]:
    """The outcome rows of the pair: `text`, `weak_score`, `strong_score`, `benchmark`, `domain`."""
    return list(lines(folder / "calibration.jsonl"))


def panel(folder: Path) -> Iterator[Row]:
    """Questions with ten options, target: the share of small models that fail. Shown with four options."""
    names = json.loads((folder / "mmlu_pro_models.index.json").read_text("utf-8"))["models"]
    small = [i for i, name in enumerate(names) if re.search(r"[678]b|mixtral", name, re.IGNORECASE)]
    small = [i for i in small if not re.search(r"math|phi", names[i], re.IGNORECASE)]
    for row in lines(folder / "mmlu_pro_models.jsonl"):
        marks = [row["correct"][i] == "1" for i in small if row["correct"][i] != "-"]
        options = "".join(f"\n{letter}. {text}" for letter, text in zip("ABCD", row["options"], strict=False))
        yield Row(
            f"{row['text']}{options}\nAnswer:", 1 - float(np.mean(marks)), 1.0, "panel", row["category"]
        )


def graded(rows: Iterable[dict[str, Any]], seed: int) -> list[Row]:
    """Open prompts with a grade; those of real users and graded by hand weigh most."""
    found: list[Row] = []
    ruled: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        grade, by, task = row["complexity"], row["complexity_by"], row["task_type"]
        if grade is None:
            continue
        natural = row["origin"] == "natural"
        plain = Row(row["text"], GRADED[task][GRADES.index(grade)], 0.5, "rule", "", task, grade, natural)
        if by == "hand":
            found.append(plain._replace(weight=4.0, source="hand"))
        elif by.startswith("outcome-free"):
            bare = re.sub(r"^(Question: |Solve this problem step by step\.\s+)|\nAnswer:$", "", plain.text)
            found.append(plain._replace(text=bare, target=STEPS[grade], weight=1.0, source="steps"))
        elif by == "per-model correctness":
            found.append(plain._replace(source="correctness"))
        elif natural:
            found.append(plain._replace(weight=1.0))
        else:
            ruled[task, grade].append(plain)
    draw = random.Random(seed)
    for key in sorted(ruled):
        found += draw.sample(ruled[key], min(SAMPLE, len(ruled[key])))
    found += [Row(text, 0.02, 3.0, "authored") for text in EASY]
    found += [Row(text, 0.85, 5.0, "authored") for text in HARD]
    return found
