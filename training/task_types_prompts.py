"""Prompts of our own for the task-type corpus: instructions in eleven languages around texts of the corpus.

`prompts/LANGUAGE.txt` holds one instruction a line under `== label`, and what fills its slots under
`== slot NAME`. Slots that need a text (`{passage}`, `{code}`, …) are filled from the rows given, so that a
held-out source stays held out. Sentences and slot values in `prompts/` were written for this project.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from k9_broker.classify.reading import dense

HERE = Path(__file__).parent
Row = Mapping[str, Any]

QUESTIONS = [
    "who is mentioned?",
    "when did this happen?",
    "where does it take place?",
    "what is the main reason given?",
    "how many people were involved?",
    "what did the author say about it?",
    "who was responsible?",
    "what happened next?",
    "what is the name of the person?",
    "why did they do it?",
    "in what year was it founded?",
    "which country is named?",
    "what are the three main parts?",
    "who won?",
    "what position did he hold?",
    "what is it known for?",
]
HOLES = ("# TODO", "// TODO: implement", "...", "    # your code here", "<CURSOR>", "____", "    pass")
BEFORE = [
    "please ",
    "Please ",
    "Can you ",
    "could you ",
    "I want you to ",
    "I need you to ",
    "hey, ",
    "Hi! ",
    "Hello, ",
    "ok now ",
    "As an expert, ",
    "You are a helpful assistant. ",
    "Help me: ",
]
AFTER = [
    " please",
    " thanks!",
    "\n\nThanks in advance.",
    " Be concise.",
    " Keep it short.",
    " Answer in English.",
    " in detail",
    " step by step",
    " I'm in a hurry.",
    "\n\n",
    "!!",
    " .",
]
ENGLISH = re.compile(" (the|and|of|that) ")
ASKED_IN_ENGLISH = re.compile("(what|how|can|could|give|please|i |translat|convert|you|as a|say|in )", re.I)


class Language(NamedTuple):
    instructions: dict[str, list[str]]
    """Label to its instructions."""
    slots: dict[str, list[str]]


@cache
def languages() -> dict[str, Language]:
    found = {}
    for path in sorted((HERE / "prompts").glob("*.txt")):
        instructions, slots = defaultdict(list), defaultdict(list)
        into: list[str] = []
        for line in path.read_text().splitlines():
            if line.startswith("== slot "):
                into = slots[line[8:]]
            elif line.startswith("== "):
                into = instructions[line[3:]]
            elif line:
                into.append(line.replace("\\n", "\n").replace("\\t", "\t"))
        found[path.stem] = Language(dict(instructions), dict(slots))
    return found


@cache
def lexicon() -> dict[str, str]:
    """Word of any language to the English word whose row it shares."""
    shared: dict[str, str] = {}
    for line in (HERE / "lexicon.txt").read_text().splitlines():
        english, colon, words = line.partition(": ")
        if colon and not line.startswith("#"):
            for word in words.split():
                # Scripts without spaces are read two characters at a time.
                shared.setdefault(word[:2] if dense(word) else word, english)
    return shared


def material(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Passages, sentences, code, questions, … found in the rows."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        text, group = row["text"], row["group"]
        longest = max(text.split("\n"), key=len)
        if group.startswith("p3-") and 250 < len(longest) < 4000:
            found["passage"].append(longest)
            sentences = re.split(r"(?<=[.!?]) +", longest)
            found["sentence"] += [sentence for sentence in sentences if 30 < len(sentence) < 220][:2]
        if group in ("p3-amazon", "p3-app") and len(longest) > 60:
            found["review"].append(longest[:600])
        if "NTREX" in group:
            line = longest.split(": ", 1)[-1].strip('\r "')
            if ASKED_IN_ENGLISH.match(line) and not ENGLISH.search(line):
                line = line.split("? ", 1)[1] if "? " in line[:60] else ""
            if len(line) >= 40:
                if ENGLISH.search(line):
                    found["sentence"].append(line[:300])
                elif not line.isascii():
                    found["foreign"].append(line)
        if row["task_type"] == "code_refactor_review" and row["origin"] != "natural":
            fenced = re.search(r"```\w*\n(.*?)```", text, re.S)
            if fenced and 30 < len(fenced[1]) < 2500:
                found["code"].append(fenced[1].strip("\n"))
        if group == "google-research-datasets/natural-questions":
            found["question"].append(text)
        if group in ("clinc/oos-eval", "PolyAI-LDN/task-specific-datasets") and len(text) < 120:
            found["utterance"].append(text)
    return found


class Filler:
    """Fills the slots of instructions, by one random generator."""

    def __init__(self, rows: Iterable[Row], random: Random) -> None:
        self._found = material(rows)
        self._random = random
        self._makers: dict[str, Callable[[str], str]] = {
            "passage": self._passage,
            "sentence": lambda language: self._sentence(language),
            "english": lambda _: self._sentence("en"),
            "lower": lambda _: re.sub("[,.]", "", self._sentence("en")).lower(),
            "foreign": lambda _: self._one("foreign", "Guten Morgen")[: random.randint(20, 400)],
            "review": lambda _: self._one("review", "Not bad, but it broke after a week."),
            "utterance": lambda _: self._one("utterance", "where is my parcel"),
            "question": lambda _: self._one("question", "who wrote faust"),
            "code": lambda _: self._code(),
            "pquestion": lambda _: random.choice(QUESTIONS),
            "code_cut": lambda _: self._cut(),
            "code_head": lambda _: "\n".join(self._code().split("\n")[: random.randint(1, 3)]) + "\n",
            "code_hole": lambda _: self._hole(),
            "code_fim": lambda _: self._between("<fim_suffix>"),
            "code_fimq": lambda _: self._between("<|fim_suffix|>"),
        }

    def fill(self, instruction: str, language: str) -> str:
        slots, english = languages()[language].slots, languages()["en"].slots

        def value(slot: re.Match[str]) -> str:
            name = slot[1]
            if name in self._makers:
                return self._makers[name](language)
            choices = slots.get(name) or english.get(name)
            return self._random.choice(choices) if choices else slot[0]

        return re.sub(r"\{(\w+)\}", value, instruction)

    def _one(self, kind: str, otherwise: str) -> str:
        return self._random.choice(self._found[kind]) if self._found[kind] else otherwise

    def _code(self) -> str:
        return self._one("code", "def double(x):\n    y = 2 * x\n    return y")

    def _sentence(self, language: str) -> str:
        if language != "en":
            return self._random.choice(languages()[language].slots["sentence"])
        sentence = self._one("sentence", "The bridge was opened in 1932.")
        return sentence if len(sentence) <= 200 else sentence[: self._random.randint(60, 200)]

    def _passage(self, language: str) -> str:
        if language != "en":
            return " ".join(self._sentence(language) for _ in range(self._random.randint(1, 5)))
        passage = self._one("passage", "The bridge was opened in 1932. It is 200 metres long.")
        if self._random.random() < 0.6:
            return passage
        return passage[: self._random.randint(150, 700)].rsplit(" ", 1)[0]

    def _cut(self) -> str:
        code = self._code()
        end = int(len(code) * self._random.uniform(0.25, 0.9))
        if self._random.random() < 0.5:
            line_end = code.rfind("\n", 0, end)
            end = line_end + 1 if line_end > 14 else end
        return code[: max(end, 12)]

    def _hole(self) -> str:
        lines = self._code().split("\n")
        start = self._random.randrange(len(lines))
        lines[start : start + self._random.randint(1, 4)] = [self._random.choice(HOLES)]
        return "\n".join(lines)

    def _between(self, mark: str) -> str:
        code = self._code()
        start, end = sorted((self._random.randrange(len(code)), self._random.randrange(len(code))))
        return code[:start] + mark + code[end:]


def roughen(text: str, random: Random, english: bool) -> str:
    """As people type: lower case, no full stop, a slip, a word before or after."""
    if english and text[:1].isupper() and random.random() < 0.12:
        text = random.choice(BEFORE) + text[:1].lower() + text[1:]
    if random.random() < 0.08:
        text += random.choice(AFTER)
    kind = random.random()
    if kind < 0.12 and len(text) < 200:
        return text.lower()
    if kind < 0.17:
        return text.rstrip(".?!。？")
    if kind < 0.19 and len(text) < 150:
        return text.upper()
    if kind < 0.22 and 6 < len(text) < 300:
        at = random.randrange(len(text) - 1)
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind < 0.25:
        return f'"{text}"'
    return f" {text}\n" if kind < 0.27 else text


def prompts(rows: Sequence[Row], seed: int, english: int = 7, others: int = 4) -> list[dict[str, str]]:
    """Every instruction filled `english` or `others` times (twice if it has no slot), without repeats."""
    random = Random(seed)
    filler = Filler(rows, random)
    made = {}
    for name, language in languages().items():
        for label, instructions in language.instructions.items():
            for instruction in instructions:
                times = (english if name == "en" else others) if "{" in instruction else 2
                for _ in range(times):
                    text = roughen(filler.fill(instruction, name), random, name == "en")[:6000]
                    made[text] = {"text": text, "task_type": label, "group": f"own-{name}", "origin": "own"}
    return list(made.values())
