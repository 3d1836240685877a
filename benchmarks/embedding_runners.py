"""The two runners of the embedded model, side by side: texts per second and their ratio.

    python benchmarks/embedding_runners.py            # needs 'k9-broker[onnx]' and a fetched model

One core first, at batches of 1, 8, 32 and 128 short sentences (about 17 tokens each) and with
docstrings of the standard library (about 70 tokens, up to 256), then docstrings on as many cores
as the embedded backend uses. The runners take turns in every round and the best round of each
counts; texts per second of CPU time stand beside it, for a machine that is busy with other things.
`MiniLM.load(runner="auto")` prefers the runner that wins here.
"""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time

from k9_broker.minilm import BLAS_ENVIRONMENT

os.environ.update(BLAS_ENVIRONMENT)  # NumPy reads it when it is first imported: by what comes next

from k9_broker.dialects.embedded import default_threads
from k9_broker.minilm.model import MiniLM
from k9_broker.settings import load_settings

ROUNDS = 3
SENTENCES = [f"Request number {n}: how do I reset my password and log in again?" for n in range(128)]


def docstrings(count: int) -> list[str]:
    """Docstrings spread over the standard library."""
    return sorted(islice(_docstrings(), 8 * count))[::8]


def _docstrings() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                yield text


def in_batches(size: int) -> Callable[[MiniLM], int]:
    """The sentences, `size` in a call, as many calls as make a fair measure."""
    texts = SENTENCES[: max(size, 32)]

    def run(model: MiniLM) -> int:
        for start in range(0, len(texts), size):
            model.encode(texts[start : start + size])
        return len(texts)

    return run


def on_threads(texts: Sequence[str], threads: int) -> Callable[[MiniLM], int]:
    """All texts in one call, its batches shared by `threads`."""

    def run(model: MiniLM) -> int:
        encoding = model.begin(texts)

        def drive(_: int) -> None:
            while encoding.step():
                pass

        with ThreadPoolExecutor(threads) as executor:
            list(executor.map(drive, range(threads)))
        return len(texts)

    return run


def main() -> None:
    """Print one line for each measure."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else load_settings().model_folder
    models: dict[str, MiniLM] = {}
    for name in ("numpy", "onnx"):
        began = perf_counter()
        models[name] = MiniLM.load(folder, name)  # type: ignore[arg-type]
        models[name].encode(SENTENCES[:4])
        print(f"{name}: loaded and warm after {perf_counter() - began:.2f} s")
    texts, cores = docstrings(128), default_threads()
    measures = {f"batch of {size}": in_batches(size) for size in (1, 8, 32, 128)}
    measures["128 docstrings"] = on_threads(texts, 1)
    if cores > 1:
        measures[f"128 docstrings on {cores} cores"] = on_threads(texts, cores)
    print(
        f"\n{'texts per second':<26}{'numpy':>7}{'onnx':>7}{'ratio':>7}{'numpy/CPU s':>14}{'onnx/CPU s':>12}"
    )
    for name, run in measures.items():
        wall, cpu = dict.fromkeys(models, 0.0), dict.fromkeys(models, 0.0)
        for _ in range(ROUNDS):
            for runner, model in models.items():
                by_clock, by_cpu = _timed(run, model)
                wall[runner], cpu[runner] = max(wall[runner], by_clock), max(cpu[runner], by_cpu)
        ratio = wall["onnx"] / wall["numpy"]
        speeds = f"{wall['numpy']:>7.0f}{wall['onnx']:>7.0f}{ratio:>7.2f}"
        print(f"{name:<26}{speeds}{cpu['numpy']:>14.0f}{cpu['onnx']:>12.0f}")


def _timed(run: Callable[[MiniLM], int], model: MiniLM) -> tuple[float, float]:
    """Texts per second of the clock, and per second of CPU time of all threads."""
    began, worked = perf_counter(), process_time()
    done = run(model)
    return done / (perf_counter() - began), done / (process_time() - worked)


if __name__ == "__main__":
    main()
