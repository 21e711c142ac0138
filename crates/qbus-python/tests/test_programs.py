"""Programs that use prometheus_client in all the ways that there are: what they print with it they
print over the shim as well, alone, and under `qbus run`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes_scene import qbus_command

from qbus import shim

PROGRAMS = Path(__file__).parent / "programs"


def environment(**more: str) -> dict[str, str]:
    left_out = ("QBUS", "PYTHONPATH", "PROMETHEUS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**kept, **more}


def printed(command: list[str], **more: str) -> str:
    ended = subprocess.run(
        command, env=environment(**more), capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.parametrize("program", sorted(path.name for path in PROGRAMS.glob("*.py")))
def test_a_program_prints_the_same(program: str, bus: str) -> None:
    pytest.importorskip("prometheus_client")
    command = [sys.executable, str(PROGRAMS / program)]
    expected = printed(command)
    assert expected
    assert printed(command, PYTHONPATH=shim.FOLDER) == expected
    assert printed(qbus_command("run", "-b", bus, "--", *command)) == expected


def test_another_worker_counts_in_what_one_shows(bus: str) -> None:
    """Pages that are asked for by name, and gauges of each process."""
    program = """
import os
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest
counter = Counter("c", "A counter.", ["a"])
gauge = Gauge("g", "Of each process.", ["a"])
own = CollectorRegistry()
beside = Counter("b", "In a registry of all workers.", registry=own)
if os.fork() == 0:
    counter.labels("x").inc(3)
    beside.inc(2)
    gauge.labels("y").set(7)
    Counter("late", "Made by this worker alone.").inc()
    os._exit(0)
assert os.wait()[1] == 0
page = generate_latest(REGISTRY.restricted_registry(["c_total", "late_total"])).decode()
assert 'c_total{a="x"} 3.0' in page and "late_total 1.0" in page and "g{" not in page, page
assert own.get_sample_value("b_total") == 2
# A gauge of each process is of this one, with children and without.
page = generate_latest().decode()
assert "g{" not in page, page
gauge.labels("z").set(1)
page = generate_latest().decode()
assert 'g{a="z"} 1.0' in page and 'a="y"' not in page, page
"""
    printed(qbus_command("run", "-b", bus, "--", sys.executable, "-c", program))


def test_a_program_of_another_environment(bus: str, tmp_path: Path) -> None:
    """Where qbus is not installed, `qbus run` takes its own along, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    program = """
import importlib.util, sys
assert importlib.util.find_spec("pytest") is None
from prometheus_client import Counter, generate_latest
Counter("c", "A counter.").inc()
assert b"c_total 1.0" in generate_latest()
print(sys.prefix)
"""
    command = qbus_command("run", "-b", bus, "--", str(python), "-c", program)
    assert printed(command).strip() == str(tmp_path / "venv")


def test_a_sitecustomize_that_comes_before_runs_once(tmp_path: Path) -> None:
    """As tracers put their own before what is there, and go on to the next."""
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    (tmp_path / "before" / "sitecustomize.py").write_text(
        """
import os, sys
print("before")
here = os.path.dirname(__file__)
sys.path.remove(here)
del sys.modules["sitecustomize"]
import sitecustomize
sys.path.insert(0, here)
"""
    )
    (tmp_path / "after" / "sitecustomize.py").write_text("print('after')\n")
    path = os.pathsep.join([str(tmp_path / "before"), shim.FOLDER, str(tmp_path / "after")])
    program = "import prometheus_client; print(prometheus_client.__name__)"
    shown = printed([sys.executable, "-c", program], PYTHONPATH=path)
    assert shown.split() == ["before", "after", "qbus.prometheus_client"]


@pytest.mark.parametrize("is_long", [False, True])
def test_a_command_runs_with_the_interpreter_of_its_first_line(
    bus: str, tmp_path: Path, is_long: bool
) -> None:
    """Whatever PATH has: a command of an environment is started by its path as a rule."""
    script = tmp_path / "serve"
    first = f"#!{sys.executable}"
    if is_long:
        first = f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''"
    script.write_text(f"{first}\nimport prometheus_client\nprint(prometheus_client.__name__)\n")
    script.chmod(0o755)
    # As the command does that no package of Python brought.
    command = "import sys; from qbus._qbus import run_command; run_command('qbus', sys.argv)"
    shown = printed(
        [sys.executable, "-c", command, "run", "-b", bus, "--", script.name],
        PATH=str(tmp_path),
    )
    assert shown == "qbus.prometheus_client\n"


def test_workers_that_come_one_after_another_count_on(tmp_path: Path) -> None:
    """Their parent has imported the package and no more, as a pool's, or a server's for its
    hooks."""
    program = """
import os, subprocess, sys
from prometheus_client import CollectorRegistry, multiprocess
count = "from prometheus_client import Counter; Counter('c', 'A counter.').inc()"
for _ in range(2):
    subprocess.run([sys.executable, "-c", count], check=True)
    if os.fork() == 0:
        exec(count)
        os._exit(0)
    assert os.wait()[1] == 0
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
assert registry.get_sample_value("c_total") == 4, registry.get_sample_value("c_total")
"""
    printed(
        [sys.executable, "-c", program],
        PYTHONPATH=shim.FOLDER,
        PROMETHEUS_MULTIPROC_DIR=str(tmp_path),
        # The threads that aggregate a private bus count as well.
        PYTHONWARNINGS="ignore:This process:DeprecationWarning",
    )


def test_what_the_bus_cannot_have_stays_in_the_process(bus: str) -> None:
    """No warning is an error to who only counts, and each says where the program made it."""
    program = """
from prometheus_client import Counter, Histogram, generate_latest
twice = Counter("twice", "A label that is given twice.", ["a", "a"])
twice.labels("1", "2").inc()
equal = Histogram("equal", "Bounds that are equal.", buckets=[1, 1])
equal.observe(1)
page = generate_latest().decode()
assert 'twice_total{a="2"} 1.0' in page and "equal_count 1.0" in page, page
"""
    for options in ([], ["-W", "error"]):
        ended = subprocess.run(
            qbus_command("run", "-b", bus, "--", sys.executable, *options, "-c", program),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count("RefusedWarning: metric twice stays in this process") == 1
        assert ended.stderr.count("RefusedWarning: metric equal stays in this process") == 1
        assert options or ended.stderr.count("<string>:") == 2, ended.stderr


def test_a_page_of_a_bus_that_nobody_aggregates(bus: str) -> None:
    """It is the process's own, and a warning says what to start."""
    program = """
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess
counter = Counter("c", "A counter.")
Histogram("h", "A histogram.", buckets=[1]).observe(0.5)
for count in (1, 2):
    counter.inc()
    page = generate_latest().decode()
    assert f"c_total {count}.0" in page and "h_count 1.0" in page, page
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
assert generate_latest(registry) == b""
"""
    for name, told in ((bus, f"start one: qbus agg -b {bus}"), ("/proc/no/bus", "no bus for")):
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(QBUS=name, PYTHONPATH=shim.FOLDER),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count(told) == 1, ended.stderr
        assert ended.stderr.count("RefusedWarning") == 1, ended.stderr
