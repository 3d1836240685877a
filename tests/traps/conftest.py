"""One K-9 over every wire, for all the traps that a caller would fall into."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from menagerie import Menagerie, menagerie

Broken = Callable[..., None]


@pytest.fixture(scope="session")
def every_wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Menagerie]:
    running = menagerie(tmp_path_factory.mktemp("menagerie"))
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def k9(every_wire: Menagerie) -> Menagerie:
    """All backends are well. A test makes one ill by `breaks`, which mends it again."""
    return every_wire


@pytest.fixture
def breaks(k9: Menagerie) -> Iterator[Broken]:
    """`breaks("vllm", error_status=503, …)`: the fake counts from now on, and behaves so in this test."""
    broken: dict[str, None] = {}

    def change(name: str, **behaviour: object) -> None:
        if name not in broken:
            k9.fakes[name].reset()
        broken[name] = None
        k9.fakes[name].behave(**behaviour)

    yield change
    if broken:
        k9.mend(*broken)
