"""`python -m k9_api.cli`: the command `k9` without its script."""

from k9_api.cli.main import app

app(prog_name="k9")
