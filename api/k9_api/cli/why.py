"""`k9 why`: where a job went, why, and what has become of it."""

from __future__ import annotations

from collections.abc import Iterator

from k9_api.cli.decided import Said, show, usd
from k9_api.cli.jobs import Id
from k9_api.cli.where import AsJson, Url, http_get


def why(id: Id, url: Url = None, as_json: AsJson = False) -> None:
    """Show why a job went where it went, and what has become of it."""
    show(http_get(url, f"/v1/jobs/{id}/route"), _became, as_json=as_json)


def _became(said: Said) -> Iterator[tuple[str, str]]:
    choice, usage = said["choice"], said["usage"]
    yield "went to", f"{choice['backend']} ({choice['kind']}), {choice['model']}"
    yield "because", choice["reason"]
    yield "state", said["state"]
    if said["queue_seconds"] is not None:
        yield "waited", f"{said['queue_seconds']:.3f} s"
    if said["run_seconds"] is not None:
        yield "ran", f"{said['run_seconds']:.3f} s"
        yield "tokens", f"{usage['prompt_tokens']:,} in, {usage['completion_tokens']:,} out"
    yield "cost" if said["run_seconds"] is not None else "reserved", usd(said["cost_usd"])
    if (cloud := said["cloud_cost_usd"]) is not None:
        saved = "" if said["cost_usd"] is None else f"; saved: {usd(cloud - said['cost_usd'])}"
        yield "in the cloud", f"{usd(cloud)} at {said.get('compared_with')}{saved}"
    if error := said["error"]:
        yield "error", f"{error['message']} ({error['code']})"
