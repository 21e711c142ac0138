"""StatsD: qbus beside the daemon that gave the protocol its name.

    benches/peers/statsd.py QBUS STATSD.JS [SECONDS]

QBUS is the command, as released; STATSD.JS the file stats.js of the npm package statsd. Each server
gets the same datagrams at the same pace, slow enough that the kernel drops none; what it took of a
core is what /proc says of its process: all of `qbus agg`, the draining of the bus among it.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RATE = 60_000  # values a second
NAMES = [f"page.views.{at:02}" for at in range(16)]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def send(port: int, lines: int, seconds: float) -> int:
    """Sends that long, at the pace; how many values."""
    packed = [
        "\n".join(f"{NAMES[(at + line) % 16]}:1|c" for line in range(lines)).encode()
        for at in range(16)
    ]
    sent, start = 0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect(("127.0.0.1", port))
        while (passed := time.monotonic() - start) < seconds:
            while sent < passed * RATE:
                out.send(packed[sent // lines % 16])
                sent += lines
            time.sleep(0.001)
    return sent


def measure(
    name: str, lines: int, seconds: float, pid: int, port: int, taken: Callable[[], int]
) -> None:
    before, had = cpu_seconds(pid), taken()
    sent = send(port, lines, seconds)
    end = time.monotonic() + 15
    while (got := taken() - had) < sent and time.monotonic() < end:
        time.sleep(0.2)
    used = cpu_seconds(pid) - before
    print(
        f"{name:<24} {lines:>3} a datagram  {got / used / 1e3:>8.0f} k values a CPU second"
        f"  {sent - got} of {sent} lost"
    )


def of_qbus(qbus: str, lines: int, seconds: float) -> None:
    port, bus = free_port(socket.SOCK_DGRAM), f"bench-statsd-{os.getpid()}"
    agg = subprocess.Popen(
        [qbus, "agg", "--bus", bus, "--no-host", "--no-gpu", "--statsd", f"127.0.0.1:{port}"],
        stderr=subprocess.DEVNULL,
    )

    def taken() -> int:
        page = subprocess.run(
            [qbus, "dump", "--bus", bus, "--match", "page_*"], capture_output=True, text=True
        ).stdout
        return sum(
            int(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith("page_")
        )

    try:
        time.sleep(1)
        measure("qbus agg", lines, seconds, agg.pid, port, taken)
    finally:
        agg.terminate()
        agg.wait()
        subprocess.run([qbus, "rm", "--force", "--bus", bus], capture_output=True)


def of_statsd(script: str, lines: int, seconds: float) -> None:
    port, manage = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
    with tempfile.NamedTemporaryFile("w", suffix=".js") as config:
        told = {
            "address": "127.0.0.1", "port": port, "mgmt_address": "127.0.0.1", "mgmt_port": manage,
            "flushInterval": 3_600_000, "backends": ["./backends/repeater"], "repeater": [],
        }  # fmt: skip
        config.write(json.dumps(told))
        config.flush()
        daemon = subprocess.Popen(
            ["node", script, config.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

        def asked_of(tries: int = 100) -> socket.socket:
            try:
                return socket.create_connection(("127.0.0.1", manage))
            except ConnectionRefusedError:
                if tries == 0 or daemon.poll() is not None:
                    raise
                time.sleep(0.1)
                return asked_of(tries - 1)

        def taken() -> int:
            with asked_of() as asked:
                asked.sendall(b"counters\n")
                said = b""
                while b"END" not in said:
                    said += asked.recv(65536)
            found = said.decode().replace("\n", " ").split("page.views.")[1:]
            return sum(int(one.split(":")[1].strip(" ,}'END")) for one in found)

        try:
            time.sleep(1)
            measure("statsd (Etsy's, Node.js)", lines, seconds, daemon.pid, port, taken)
        finally:
            daemon.terminate()
            daemon.wait()


def main() -> None:
    qbus, script = sys.argv[1:3]
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 5.0
    for lines in (1, 20):
        of_qbus(qbus, lines, seconds)
        of_statsd(script, lines, seconds)


main()
