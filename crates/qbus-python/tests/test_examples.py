"""The programs in the folder examples do what they say."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from processes_scene import PATIENCE, kill_if_alive, qbus_command, until

EXAMPLES = Path(__file__).parents[3] / "examples"

pytestmark = pytest.mark.skipif(
    not EXAMPLES.is_dir(), reason="the examples lie beside the sources, and not in the package"
)


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "QBUS"} | more


def run(*command: str, **more: str) -> str:
    finished = subprocess.run(
        command,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, ""), finished
    return finished.stdout


@pytest.fixture
def bus(tmp_path: Path) -> Any:
    """A bus in a folder of its own, with an aggregator."""
    path = str(tmp_path / "bus")
    typed = ["agg", "-b", path, "--no-host", "--no-gpu", "--no-self"]
    aggregator = subprocess.Popen(qbus_command(*typed), stderr=subprocess.DEVNULL)
    try:
        until("the aggregator", lambda: Path(path + ".snapshot").exists())
        yield path
    finally:
        aggregator.terminate()
        assert aggregator.wait(PATIENCE) == 0


def totals(bus: str) -> dict[str, float]:
    page = json.loads(run(*qbus_command("dump", "-b", bus, "-f", "json")))
    return {metric["name"]: metric["value"] for metric in page["metrics"]}


def test_workers_add_up(bus: str) -> None:
    for _ in range(2):
        assert run(sys.executable, str(EXAMPLES / "worker.py"), "50", QBUS=bus) == ""
    until("all of them are on the page", lambda: totals(bus)["requests_total"] == 100)
    assert totals(bus)["requests_in_flight"] == 0


def test_a_worker_without_a_bus_prints_its_own_page() -> None:
    page = run(sys.executable, str(EXAMPLES / "worker.py"), "20")
    assert 'requests_total{endpoint="/predict"} 20\n' in page
    assert "request_seconds_count 20\n" in page


def test_any_worker_of_a_server_shows_the_page_of_all(bus: str) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--workers", "2"]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--log-level", "critical"],
        env=environment(QBUS=bus, PYTHONPATH=str(EXAMPLES)),
        start_new_session=True,
    )

    def get(path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            return answer.read()

    def is_up() -> bool:
        try:
            # Its page is empty until something is counted.
            get("/metrics")
            return True
        except OSError:
            return False

    try:
        until("the server", is_up)
        for _ in range(20):
            assert json.loads(get("/predict?prompt=one+two+three")) == {"tokens": 3}
        shown = b'requests_total{endpoint="/predict"} 20'
        until("all workers' requests", lambda: shown in get("/metrics"))
        assert b"tokens_total 60" in get("/metrics")
    finally:
        server.terminate()
        try:
            server.wait(PATIENCE)
        finally:
            kill_if_alive(server.pid)
