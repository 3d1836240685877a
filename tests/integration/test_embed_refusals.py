"""What `k9 embed` refuses before it touches anything, and what a full disk leaves behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from embed_runs import lines, plan, until
from jobs_stand_in import StandIn, Submission
from k9_api.batch.checkpoint import SECONDS, Outputs
from k9_api.batch.run import Plan, embed_file
from k9_broker.errors import ConfigurationError


async def test_ids_of_earlier_vectors_are_not_replaced_in_silence(server: StandIn, tmp_path: Path) -> None:
    ids = tmp_path / "out.npy.ids.jsonl"
    ids.write_text("precious\n")
    with pytest.raises(ConfigurationError, match=r"out\.npy\.ids\.jsonl exists"):
        await embed_file(plan(server, lines(tmp_path, 3), tmp_path / "out.npy"))
    assert ids.read_text() == "precious\n"
    await embed_file(plan(server, lines(tmp_path, 3), tmp_path / "out.npy", overwrite=True))
    assert len(ids.read_text().splitlines()) == 3


async def test_the_ids_may_not_be_the_input(server: StandIn, tmp_path: Path) -> None:
    given = tmp_path / "out.npy.ids.jsonl"
    given.write_text('{"text": "one"}\n')
    with pytest.raises(ConfigurationError, match="is the input"):
        await embed_file(plan(server, given, tmp_path / "out.npy", overwrite=True))
    assert given.read_text() == '{"text": "one"}\n'


@pytest.mark.parametrize(
    ("errors", "said"),
    [("out.npy", "is an output too"), ("out.npy.ids.jsonl", "is an output too"), ("no/e", "does not exist")],
)
async def test_an_error_file_that_cannot_be(server: StandIn, tmp_path: Path, errors: str, said: str) -> None:
    outputs = Outputs(out=tmp_path / "out.npy", errors=tmp_path / errors)
    given = lines(tmp_path, 3)
    with pytest.raises(ConfigurationError, match=said):
        await embed_file(Plan(str(given), outputs, server.url))
    assert list(tmp_path.iterdir()) == [given]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
async def test_a_disk_without_room_for_a_checkpoint_leaves_no_job_behind(
    server: StandIn, tmp_path: Path
) -> None:
    def seconds(submission: Submission) -> float:
        return 2 * SECONDS if submission.texts[0] == "line number 0" else 30.0  # late enough for a checkpoint

    def fill() -> None:
        until(lambda: len(server.submissions) > 3)
        (tmp_path / "out.jsonl.progress.part").symlink_to("/dev/full")

    server.seconds = seconds
    filler = threading.Thread(target=fill)
    filler.start()
    with pytest.raises(OSError, match="No space left"):
        await embed_file(plan(server, lines(tmp_path, 100), tmp_path / "out.jsonl"))
    filler.join()
    begun = {one.id for one in server.submissions if one.texts[0] != "line number 0"}
    assert set(server.cancelled) == begun
