"""What the routing demo asks: everyday prompts of every kind, easy and hard, in several languages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from k9_broker.requests import Operation


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request; `more` goes into its body beside the text."""

    text: str = field(repr=False)
    operation: Operation = Operation.CHAT
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return {
            Operation.CHAT: "/v1/chat/completions",
            Operation.COMPLETIONS: "/v1/completions",
            Operation.EMBEDDINGS: "/v1/embeddings",
        }[self.operation]

    def body(self, model: str) -> dict[str, Any]:
        match self.operation:
            case Operation.CHAT:
                messages = [{"role": "user", "content": self.text}]
                said: dict[str, Any] = {"messages": messages, "stream": True}
            case Operation.COMPLETIONS:
                said = {"prompt": self.text}
            case Operation.EMBEDDINGS:
                said = {"input": self.text}
        return {"model": model, **said, **self.more}


def _code(text: str) -> Prompt:
    """Code to be continued, as an editor sends it."""
    return Prompt(text, Operation.COMPLETIONS, {"max_tokens": 24})


def _short(text: str) -> Prompt:
    """Something with a short answer."""
    return Prompt(text, more={"max_tokens": 12})


_CARD = "4916 2508 3174 6058"
"""Made up; its check digit is right."""

_MINUTES = " ".join(
    f"The working group then came to section {number}, heard two objections to it, asked the harbour "
    "office for "
    "its opinion, and put the matter off to the meeting after the next one."
    for number in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten") * 13
)
"""The story of a meeting, longer than a small window."""

_DISCOUNT = """def discount(prices, rate):
    result = []
    for i in range(len(prices)):
        if prices[i] > 100:
            result.append(prices[i] - prices[i] * rate)
        else:
            result.append(prices[i])
    return result"""

_CACHE = """class Cache:
    def __init__(self): self.d = {}
    def get(self, k, make):
        if k not in self.d:
            self.d[k] = make()
        return self.d[k]"""

PROMPTS: tuple[Prompt, ...] = (
    # questions
    Prompt("What is the capital of Portugal?"),
    Prompt("How many days does February have in a leap year?"),
    Prompt("How do I remove a coffee stain from a cotton shirt?"),
    Prompt("Wie lange muss ein Ei kochen, damit es hart wird?"),
    Prompt("¿Por qué el cielo se ve azul durante el día?"),
    Prompt("法国大革命是哪一年开始的？"),
    Prompt(
        "Explain how snapshot isolation differs from serializable isolation in a distributed database, which "
        "anomalies remain possible under each, and how serializable snapshot isolation detects dangerous "
        "structures."
    ),
    Prompt(
        "Why does the Higgs mechanism give mass to the W and Z bosons but leave the photon massless? "
        "Relate your "
        "answer to the unbroken generator of the electroweak gauge group."
    ),
    # reasoning
    Prompt(
        "A shop sells pens at 3 for 2 euros. Anna buys 12 pens and pays with a 20 euro note. How much change?"
    ),
    Prompt(
        "Prove that for every prime p greater than 3 the number p^2 - 1 is divisible by 24, and "
        "determine for which "
        "composite numbers the statement also holds."
    ),
    Prompt(
        "Five people sit in a row. Mara is not at an end, Otto sits left of Ines, Kai is next to Mara, "
        "and Ruth is "
        "not beside Otto. Derive every possible seating order step by step."
    ),
    Prompt(
        "Let f be continuous on [0,1] with f(0) = f(1). Show that for every positive integer n there is "
        "an x such "
        "that f(x) = f(x + 1/n), and construct a counterexample when 1/n is replaced by 2/5."
    ),
    # code: words in, code out
    Prompt("Write a Python function that returns the longest word in a sentence."),
    Prompt("Write a SQL query that lists the ten customers with the highest total of orders in 2024."),
    Prompt("Give me a bash one-liner that deletes all files older than 30 days in /var/tmp/reports."),
    Prompt("Schreibe eine JavaScript-Funktion, die ein Array von Zahlen absteigend sortiert."),
    Prompt(
        "Implement a lock-free multi-producer multi-consumer queue in C++20 with hazard pointers, and "
        "argue for the "
        "memory ordering of each atomic operation."
    ),
    # code to be continued
    _code('def fibonacci(n: int) -> int:\n    """Return the n-th Fibonacci number."""\n    '),
    _code("import csv\n\ndef read_rows(path):\n    with open(path, newline='') as handle:\n        "),
    Prompt(
        "function area(radius) {\n  return ", Operation.COMPLETIONS, {"suffix": ";\n}\n", "max_tokens": 12}
    ),
    _code(
        "public class Stack<T> {\n    private final List<T> items = new ArrayList<>();\n\n    public "
        "void push(T "
    ),
    # code that must change
    Prompt(f"Refactor this function to be more readable and faster:\n\n```python\n{_DISCOUNT}\n```"),
    Prompt(f"Review this class for thread safety and fix what you find:\n\n```python\n{_CACHE}\n```"),
    Prompt(
        "Explain what is wrong here and fix it:\n\n```\nTypeError: unsupported operand type(s) for +: "
        "'int' and 'str'\n"
        "  File \"total.py\", line 4, in total\n    return sum + line['price']\n```"
    ),
    # new texts
    Prompt("Write a short poem about a lighthouse in winter."),
    Prompt("Write a friendly invitation to our summer party in the garden on Saturday."),
    Prompt("Schreibe eine kurze Geschichte über einen Drachen, der Angst vor Feuer hat."),
    Prompt("Write a haiku about rye bread."),
    # shorter texts
    Prompt(
        "Summarize the following text in one sentence: The ferry company said on Monday that it would "
        "withdraw its "
        "oldest ship in spring. The ship needs new engines, and a refit would cost more than it is "
        "worth. Two "
        "smaller vessels will take over the route until a new ferry is delivered in three years."
    ),
    Prompt(
        "Fasse den folgenden Text in zwei Sätzen zusammen: Der Stadtrat hat gestern beschlossen, die "
        "alte Markthalle "
        "zu sanieren. Die Arbeiten beginnen im Mai und sollen anderthalb Jahre dauern. Die Händler "
        "ziehen so lange "
        "in ein Zelt auf dem Bahnhofsplatz um."
    ),
    Prompt(f"Summarize the following text in three sentences: {_MINUTES}"),
    # fields and labels
    _short(
        "Classify the sentiment of this review as positive or negative: The room was cold and the staff "
        "were rude."
    ),
    _short(
        "Extract the name, the date and the amount from this text as JSON: Invoice to Hanna Berg of 3 "
        "May 2024 over "
        "480 euros for two chairs."
    ),
    _short(
        "Which of these labels fits the message best: billing, delivery, returns, other? Message: My "
        "parcel has been "
        "stuck at the depot for a week."
    ),
    # translation
    Prompt("Translate into French: The library is closed on public holidays."),
    Prompt("Übersetze ins Englische: Der Zug nach Hamburg fährt heute von Gleis sieben ab."),
    Prompt("Переведи на английский: Завтра мы поедем к бабушке в деревню."),
    Prompt("Translate this sentence to Japanese: Please leave your shoes at the entrance."),
    # small talk
    Prompt("Hi there! How are you today?"),
    Prompt("Thanks a lot, that was really helpful!"),
    Prompt("Ciao! Come va oggi?"),
    # what must stay here
    Prompt(
        "Write a polite reminder to Jonas Lindqvist, jonas.lindqvist@nordhamn-varv.se, that we could not "
        "charge his "
        f"card {_CARD} for the July invoice."
    ),
    Prompt("Write an essay that explains Project Larkspur to our new colleagues."),
    # vectors
    Prompt("The quick ferry to the island leaves at noon.", Operation.EMBEDDINGS),
    Prompt("Der Leuchtturm steht am Ende der Mole.", Operation.EMBEDDINGS),
)
