"""A scene: a program of tests/workers and all processes that come of it, watched from outside."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

WORKERS = Path(__file__).parent / "workers"
SHM = Path("/dev/shm")
#: Longer than anything takes on a busy machine; nothing waits for its end when all is well.
PATIENCE = 60.0


def until(what: str, found: Callable[[], Any]) -> Any:
    """Waits until something is true, and gives it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"still not so after {PATIENCE:.0f} s: {what}")


def qbus_command(*typed: str) -> list[str]:
    return [sys.executable, "-m", "qbus._command", *typed]


@contextmanager
def aggregator(bus: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Somebody who aggregates a bus, and is killed in the end."""
    running = subprocess.Popen(
        qbus_command("agg", "-b", bus, "--no-host", "--no-gpu"), stderr=subprocess.PIPE
    )
    try:
        assert running.stderr is not None
        assert b"aggregating" in running.stderr.readline()
        yield running
    finally:
        running.kill()
        running.communicate()


def stat(bus: str) -> Any:
    """What `qbus stat --json` says of a bus."""
    shown = subprocess.run(
        qbus_command("stat", "--json", "-b", bus),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def living_processes(session: int) -> list[int]:
    """The living processes of a session. A zombie is over; who is to reap it is not our matter."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(after_name[3]) == session and after_name[0] not in "ZX":
                found.append(int(entry.name))
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def kill_if_alive(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Actor:
    """A process in a session of its own, with what it prints."""

    def __init__(self, scene: "Scene", command: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        self.errors = scene.folder / f"stderr-{len(scene.actors)}"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=scene.environment,
                cwd=scene.folder,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        scene.actors.append(self)

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self) -> Any:
        """The next line that it shows."""
        deadline = time.monotonic() + PATIENCE
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(left, 0))
            byte = os.read(self.process.stdout.fileno(), 1) if ready else b""
            assert byte, f"it showed no more than {line!r}: {self.errors.read_text()}"
            line += byte
        return json.loads(line)

    def go_on(self) -> None:
        """Ends its pause."""
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def end(self, errors: str = "", returncode: int = 0) -> None:
        """Lets it end: all of its processes end with it, and none had anything to complain of."""
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == returncode, self.errors.read_text()
        self.check_end(errors)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def check_end(self, errors: str = "") -> None:
        until("its processes have ended", lambda: not living_processes(self.pid))
        text = self.errors.read_text()
        assert text == errors, text

    def clear(self) -> None:
        """Ends what a failed test left."""
        until("its processes have ended", lambda: not self._kill_all())
        self.process.wait(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass

    def _kill_all(self) -> list[int]:
        """Kills what there is; one of them may have started another just now."""
        living = living_processes(self.pid)
        for pid in living:
            # Python's resource tracker ends by itself after all others, and tidies up after them.
            if "resource_tracker" not in command_line(pid):
                kill_if_alive(pid)
        return living


class Scene:
    """Where the programs of one test run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.actors: list[Actor] = []
        self.buses: list[str] = []
        self.pids_file = folder / "pids"
        self.pids_file.touch()
        self.environment = {
            **os.environ,
            "STAGE_PIDS": str(self.pids_file),
            # Newer Pythons warn of every fork in a process with threads, as one with a private bus
            # is.
            "PYTHONWARNINGS": "ignore:This process:DeprecationWarning",
            # Not beside the sources; the scripts find each other by their own folder.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for name in ("QBUS", "QBUS_EMBEDDED"):
            self.environment.pop(name, None)

    def name_bus(self) -> str:
        """Has the programs of this scene name a bus that an aggregator of its own folds."""
        bus = f"test-py-{os.getpid()}-{time.monotonic_ns()}"
        self.buses.append(bus)
        self.environment["QBUS"] = bus
        self.aggregate(bus)
        return bus

    def aggregate(self, bus: str) -> Actor:
        command = qbus_command("agg", "-b", bus, "--no-host", "--no-gpu", "--no-self")
        aggregator = Actor(self, command)
        until("there is an aggregator", lambda: self._is_aggregated(bus, aggregator))
        return aggregator

    def _is_aggregated(self, bus: str, aggregator: Actor) -> bool:
        assert aggregator.process.poll() is None, aggregator.errors.read_text()
        return (SHM / f"qbus.{bus}").exists() and stat(bus)["aggregator"]["alive"]

    def run(self, script: str, *typed: str) -> Actor:
        """Starts a program of tests/workers."""
        return Actor(self, [sys.executable, str(WORKERS / script), *typed])

    def settled(
        self,
        bus: str,
        alive: set[int],
        delivered: Optional[int] = None,
        may_drop: bool = False,
        maybe: Optional[int] = None,
    ) -> Any:
        """Waits until those processes alone are owners and hold lanes, or one more that may be;
        the bus then. Nothing was lost."""

        def is_so() -> Any:
            found = stat(bus)
            living = {owner["id"]: owner["pid"] for owner in found["owners"] if owner["alive"]}
            lessees = {lane["owner"] for lane in found["lanes"]} - {None}
            unread = any(lane["fill"] for lane in found["lanes"])
            so = set(living.values()) - {maybe} == alive and lessees <= set(living) and not unread
            return found if so and len(living) == len(set(living.values())) else None

        found = until(f"the owners of {bus} are {alive}", is_so)
        ledger = found["ledger"]
        expected = {"delivered", "dropped", "dropped_full"} if may_drop else {"delivered"}
        assert {
            kind: count for kind, count in ledger.items() if kind not in expected and count
        } == {}
        if delivered is not None:
            assert ledger["delivered"] == delivered
        return found

    def left_behind(self) -> list[str]:
        """Private buses of the processes of this scene."""
        pids = {*self.pids_file.read_text().split(), *(str(actor.pid) for actor in self.actors)}
        names = [path.name for path in SHM.glob("qbus.embedded-*")]
        return [name for name in names if name.split("-")[1] in pids]

    def close(self) -> None:
        """Leaves nothing, also when the test failed; an aggregator that ended unasked fails it."""
        unasked = [
            actor
            for actor in self.actors
            if actor.process.returncode is None and actor.process.poll() is not None
        ]
        for actor in self.actors:
            actor.clear()
        private = self.left_behind()
        named = [path.name for bus in self.buses for path in SHM.glob(f"qbus.{bus}*")]
        for name in {*private, *named}:
            (SHM / name).unlink(missing_ok=True)
        for actor in self.actors:
            errors = actor.errors.read_text()
            assert actor not in unasked and "panicked" not in errors, errors
