"""A bus that is removed, runs out of room or lets nobody in, under a running program: it is
noticed, said and counted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes_scene import aggregator, qbus_command, until

import qbus


@pytest.mark.parametrize("how", ["removed", "unlinked"])
def test_a_bus_that_is_made_anew_is_joined(bus: str, how: str) -> None:
    def take_away() -> None:
        if how == "removed":
            subprocess.run(qbus_command("rm", "--force", "-b", bus), check=True, timeout=60)
        else:
            for file in Path("/dev/shm").glob(f"qbus.{bus}*"):
                file.unlink()

    def line(worker: "subprocess.Popen[str]") -> str:
        assert worker.stdout is not None
        return worker.stdout.readline().strip()

    worker = Path(__file__).parent / "workers" / "rejoining.py"
    with aggregator(bus):
        running = subprocess.Popen(
            [sys.executable, str(worker), bus],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert running.stdin is not None
        try:
            assert line(running) == "shown"
            take_away()
            # It says so once, and counts.
            assert line(running) == "told"
            with aggregator(bus):
                assert line(running) == "joined"
                # Every increment from now on.
                before = total(bus)
                running.stdin.write("\n")
                running.stdin.flush()
                assert line(running) == "done"
                until("none is lost", lambda: total(bus) == before + 1000)
                running.stdin.close()
                assert running.wait(60) == 0
        finally:
            running.kill()
            running.wait()
            assert running.stdout is not None
            running.stdout.close()


def total(bus: str) -> float:
    found = qbus.snapshot(bus).get("c_total", {"kind": "x"})
    return found.value if found is not None else 0.0


#: Fills what is left of /dev/shm, has the snapshot need more of it, and makes room again.
FULL = """
import os, time, warnings
import qbus
warnings.simplefilter("ignore")
collector = qbus.get_metrics_collector()
counter = qbus.Counter("c", "A counter.", ["n"])
depth = qbus.Gauge("g", "A gauge.", ["n"])
histogram = qbus.Histogram("h", "A histogram.", ["n"], buckets=range(1, 100))
with open("/dev/shm/fill", "wb", buffering=0) as fill:
    try:
        while fill.write(bytes(4096)):
            pass
    except OSError:
        pass
end = time.monotonic() + 60
emitted = 0
while collector.get_statistics()["unplaced"] < 10:
    assert time.monotonic() < end, collector.get_statistics()
    for n in range(100):
        counter.labels(f"{emitted}-{n}").inc()
        histogram.labels(f"{emitted}-{n}").observe(n)
        depth.labels(f"{emitted}-{n}").set(1)
    emitted += 100
statistics = collector.get_statistics()
assert "no room for" in statistics["last_background_error"], statistics
assert "series are left out" in statistics["last_background_error"], statistics
# What stands in cells is not lost: there is room again. What came as an event is counted.
os.unlink("/dev/shm/fill")
while True:
    metrics = collector.snapshot()
    shown = sum(metric.count if metric.name == "h" else metric.value for metric in metrics)
    statistics = collector.get_statistics()
    if shown + statistics["unplaced"] == 3 * emitted:
        break
    assert time.monotonic() < end, (shown, emitted, statistics)
    counter.labels("0-0").inc(0)
"""


def in_a_shm_of(size: str, program: str) -> None:
    """Runs a program with a /dev/shm of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a /dev/shm of its own needs root, and the command unshare")
    environment = {name: value for name, value in os.environ.items() if name != "QBUS"}
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_full_shm_is_in_the_ledger() -> None:
    in_a_shm_of("44m", FULL)


def test_workers_go_on_where_there_is_no_room_for_all_of_their_buses() -> None:
    """Eight private buses where two have room, as gunicorn's workers have them in a container."""
    in_a_shm_of(
        "64m",
        """
import os, sys, time, warnings
start, go = os.pipe()
workers = []
for _ in range(8):
    told, say = os.pipe()
    if os.fork() == 0:
        os.close(go)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import qbus
            counter = qbus.Counter("c")
            counter.inc()
        refused = qbus.get_metrics_collector().get_statistics()["refused"]
        assert len(caught) == refused, (caught, refused)
        os.write(say, b"%d" % refused)
        # All are there at once.
        os.read(start, 1)
        counter.inc()
        sys.exit(0)
    workers.append(told)
refused = [int(os.read(told, 1)) for told in workers]
assert 1 <= refused.count(0) < 8, refused
os.close(go)
for _ in range(8):
    assert os.wait()[1] == 0
left = os.listdir("/dev/shm")
assert left == [], left
""",
    )


def test_who_drops_its_privileges_learns_why_it_cannot_join() -> None:
    if os.geteuid() != 0:
        pytest.skip("another user needs root")
    program = """
import os
import qbus
counter = qbus.Counter("c")
qbus.get_metrics_collector()
if os.fork() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    for _ in range(100):
        counter.inc()
    assert qbus.get_metrics_collector().get_statistics()["dropped"] >= 0
    os._exit(0)
assert os.wait()[1] == 0
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("RefusedWarning") == 1, ran.stderr
    for part in (
        "belongs to uid 0",
        "runs as uid 65534",
        "import qbus after privileges are dropped",
    ):
        assert part in ran.stderr, ran.stderr
