"""`python -m k9_workers.doctor`: examines the backend in `K9_BACKEND`, one line of JSON for each check.

Lines are findings (`k9_broker.findings`) or `{"progress": …}`. Exit codes: 0 all is well, 1 something is
wrong, 2 it could not begin.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from k9_broker.errors import ConfigurationError
from k9_broker.findings import Finding
from k9_broker.settings import load_settings
from k9_workers.environment import backend_from_environment
from k9_workers.examining import Examination


def main() -> int:
    parser = argparse.ArgumentParser(prog="k9_workers.doctor", description=__doc__)
    parser.add_argument("--no-calls", action="store_true", help="ask for no inference")
    parser.add_argument("--patience", type=float, help="seconds an answer may take")
    chosen = parser.parse_args()

    def write(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        settings = load_settings()
        backend, _ = backend_from_environment(settings)
    except (ConfigurationError, KeyError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    wrong: list[Finding] = []

    def tell(finding: Finding) -> None:
        wrong.extend([finding] if finding.is_wrong else [])
        write(finding.line())

    examination = Examination(
        backend,
        settings,
        tell,
        lambda said: write(json.dumps({"progress": said})),
        calls=not chosen.no_calls,
        patience=chosen.patience,
    )
    asyncio.run(examination.run())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
