"""The exit status is the program's own, whatever other threads do at that time."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import qbus

WORKERS = Path(__file__).parent / "workers"
WORKER = WORKERS / "exiting.py"
USES = [
    "timers",
    "labels",
    "values",
    "added",
    "queued",
    "read",
    "exported",
    "made",
    "decorated",
    "ruled",
    "tracked",
    "mistaken",
    "collectors",
]
#: Each of these took part in an abort in at least one of six runs, before they were mended.
RUNS = 4


def interpreters() -> Iterator[str]:
    """This one, and the other ones of the machine that the wheel is for."""
    yield sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(10, 20):
        if minor != sys.version_info.minor:
            # A launcher of that name on the path may be for a version that is not there.
            installed = [str(path) for path in pyenv.glob(f"3.{minor}.*/bin/python")]
            found = shutil.which(f"python3.{minor}")
            candidates = [*installed, *([found] if found else [])]
            yield from [python for python in candidates if can_import(python)][:1]


def run(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    package = str(Path(qbus.__file__).parent.parent)
    return subprocess.run(
        [python, *arguments],
        env={"PYTHONPATH": package, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def can_import(python: str) -> bool:
    try:
        return run(python, "-c", "import qbus").returncode == 0
    except OSError:
        return False


def work(python: str, use: str) -> None:
    """Python 3.10 may crash by itself where a daemon thread waits for the interpreter until that
    is gone (CPython's issue 110052): on a busy machine one exit in forty of a program that imports
    nothing but `threading`. Such an exit says nothing of this package, and is tried again. Four in
    a row are not such.
    """
    for _ in range(4):
        ended = run(python, str(WORKER), use)
        if ended.returncode != -signal.SIGSEGV or not crashes_by_itself(python):
            break
    assert (ended.returncode, ended.stderr) == (7, ""), (python, use)


def crashes_by_itself(python: str) -> bool:
    asked = run(python, "-c", "import sys; print(sys.version_info < (3, 11))")
    return asked.stdout == "True\n"


@pytest.mark.parametrize("use", USES)
def test_daemon_threads_do_not_change_it(use: str) -> None:
    for _ in range(RUNS):
        work(sys.executable, use)


def test_nor_on_other_interpreters() -> None:
    others = list(interpreters())[1:]
    if not others:
        pytest.skip("there is no other Python that the wheel is for")
    for python in others:
        for use in ("timers", "labels", "ruled", "read"):
            work(python, use)


def test_nor_do_values_that_sleep() -> None:
    """All kinds of Python code that runs within a call, on each interpreter."""
    pythons = list(interpreters())
    with ThreadPoolExecutor(len(pythons)) as pool:
        for ended in pool.map(lambda python: run(python, str(WORKERS / "asleep.py")), pythons):
            assert (ended.returncode, ended.stderr) == (7, ""), ended.args


@pytest.mark.parametrize("before", ["import multiprocessing.util", "import threading"])
@pytest.mark.parametrize("after", ["import multiprocessing.util", "import threading"])
def test_what_runs_at_exit_can_use_metrics(before: str, after: str) -> None:
    """Also what was registered before there was a collector."""
    program = f"""
import atexit, sys
{before}
import qbus
def report():
    counter.inc()
    print(qbus.generate_latest().decode(), qbus.get_metrics_collector().bus)
atexit.register(report)
counter = qbus.Counter("c")
{after}
counter.inc()
sys.exit(7)
"""
    ended = run(sys.executable, "-c", program)
    assert (ended.returncode, ended.stderr) == (7, "")
    assert "\nc_total 2\n" in ended.stdout
    bus = ended.stdout.split()[-1]
    assert not Path(f"/dev/shm/qbus.{bus}").exists()


def test_what_is_emitted_at_the_end_is_no_news() -> None:
    """By then the bus of the process is gone, which it is not told of."""
    program = """
import sys, gc, weakref
import qbus
counter, histogram = qbus.Counter("c", "A counter.", ["label"]), qbus.Histogram("h")
class Last:
    def __del__(self):
        with histogram.time():
            counter.labels("x").inc()
        qbus.get_metrics_collector().queue_metric("q", 1, "gauge")
        counter.labels("x").inc(float("nan"))
gc.callbacks.append(lambda *_: counter.labels("gc").inc())
sys.last, last = Last(), Last()
sys.setprofile(lambda *_: counter.labels("profile").inc())
weakref.finalize(last, counter.labels("finalizer").inc)
sys.exit(7)
"""
    for python in interpreters():
        ended = run(python, "-c", program)
        assert (ended.returncode, ended.stderr) == (7, ""), python


def test_a_sub_interpreter_says_no_and_the_program_ends() -> None:
    module = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    program = f"""
import {module} as interpreters
sub = interpreters.create()
interpreters.run_string(sub, '''
try:
    import qbus
except ImportError as error:
    assert "cannot be imported in a sub-interpreter" in str(error), error
else:
    raise AssertionError("imported")
''')
interpreters.destroy(sub)
import qbus
qbus.Counter("c").inc()
assert qbus.snapshot().get("c_total").value == 1
"""
    ended = run(sys.executable, "-c", program)
    assert (ended.returncode, ended.stderr) == (0, "")
