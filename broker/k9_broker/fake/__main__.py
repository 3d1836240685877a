"""`python -m k9_broker.fake`: the fake for programs. Its first line of output is JSON: `url` and `port`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading

from k9_broker.errors import K9Error
from k9_broker.fake.faults import Behaviour, changed
from k9_broker.fake.server import serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m k9_broker.fake", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--behaviour", default="{}", help="JSON of behaviour fields")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input is closed")
    arguments = parser.parse_args()
    try:
        behaviour = changed(Behaviour(), json.loads(arguments.behaviour))
        if arguments.until_eof:
            threading.Thread(target=_end_with_input, daemon=True).start()
        serve(arguments.host, arguments.port, behaviour, _announce)
    except (K9Error, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _announce(url: str) -> None:
    sys.stdout.write(json.dumps({"url": url, "port": int(url.rpartition(":")[2])}) + "\n")
    sys.stdout.flush()


def _end_with_input() -> None:
    """A parent that dies, however it dies, closes the pipe; so no fake outlives its test."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
