"""What the tests share: collectors of their own, and nothing left behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before qbus is asked for a collector: these tests need the default, whatever the shell has.
os.environ.pop("QBUS", None)

import qbus


@pytest.fixture
def collector() -> Iterator[qbus.MetricsCollector]:
    """A private collector of this test alone."""
    with qbus.MetricsCollector() as made:
        yield made


@pytest.fixture
def bus(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a bus that goes away with the test."""
    name = f"test-py-{os.getpid()}-{abs(hash(request.node.nodeid)):x}"
    yield name
    for left in Path("/dev/shm").glob(f"qbus.{name}*"):
        left.unlink()
