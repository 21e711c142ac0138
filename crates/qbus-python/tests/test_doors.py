"""Metrics sent on from a Python process, and metrics taken of StatsD clients."""

import gzip
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import qbus
from qbus import BusError, Counter, MetricError, MetricsCollector


class Receiver(http.server.ThreadingHTTPServer):
    """Takes whatever is posted, and keeps it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(
            gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
        )
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def test_a_private_bus_is_sent_on(collector: MetricsCollector, receiver: Receiver) -> None:
    steps = Counter("steps", "Steps.", registry=collector)
    with qbus.start_pushing(
        otlp=receiver.url, labels={"job": "training"}, interval=3600, registry=collector
    ) as pusher:
        steps.inc(3)
        assert pusher.close()
    assert b"steps_total" in receiver.bodies[-1]
    assert b"training" in receiver.bodies[-1]
    assert socket.gethostname().encode() in receiver.bodies[-1]
    # It has ended already.
    assert pusher.close()


def test_what_a_program_counts_last_is_sent_at_its_end(receiver: Receiver) -> None:
    program = (
        f"import qbus; qbus.start_pushing(otlp={receiver.url!r}, interval=3600)\n"
        "qbus.Counter('steps', 'Steps.').inc(); print('done')"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "done\n", "")
    assert b"steps_total" in receiver.bodies[-1]


def test_a_forked_child_sends_nothing_and_waits_for_nothing(
    collector: MetricsCollector, receiver: Receiver
) -> None:
    pusher = qbus.start_pushing(otlp=receiver.url, interval=3600, registry=collector)
    server = qbus.start_statsd_server("127.0.0.1:0", registry=collector)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        pusher.close()
        server.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    server.close()
    assert pusher.close()


def test_statsd_is_taken(collector: MetricsCollector, tmp_path: Path) -> None:
    path = tmp_path / "statsd"
    with qbus.start_statsd_server(["127.0.0.1:0", f"unix:{path}"], registry=collector) as server:
        host, port = server.addresses[0].split(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"page.views:2|c|#region:east", (host, int(port)))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
            unix.sendto(b"page.views:3|c|#region:east", str(path))
    # What the kernel has is taken before it ends.
    found = collector.snapshot().get("page_views", {"region": "east"})
    assert found is not None and found.value == 5
    assert not path.exists()


def test_what_cannot_be_says_so(collector: MetricsCollector, tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="expected a URL"):
        qbus.start_pushing("localhost:9090", registry=collector)
    with pytest.raises(MetricError, match="interval"):
        qbus.start_pushing("http://localhost/", interval=0, registry=collector)
    with pytest.raises(BusError, match="token"):
        qbus.start_pushing(f"http://localhost/,bearer={tmp_path}/token", registry=collector)
    with pytest.raises(BusError, match="private"):
        qbus.start_pushing("http://localhost/", queue=tmp_path, registry=collector)
    with pytest.raises(MetricError, match="8125"):
        qbus.start_statsd_server("nowhere", registry=collector)
    with qbus.start_statsd_server("127.0.0.1:0", registry=collector) as server:
        with pytest.raises(BusError, match=server.addresses[0]):
            qbus.start_statsd_server(server.addresses[0], registry=collector)
