"""Several processes at once: totals are exact, and nothing is left behind, however they came to
be."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Optional

import pytest
from processes_scene import PATIENCE, SHM, WORKERS, Actor, Scene, living_processes, until

import qbus

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=["private", "named"])
def either(request: pytest.FixtureRequest, scene: Scene) -> Scene:
    """A scene on a private bus, and one on a bus that all name."""
    if request.param == "named":
        scene.name_bus()
    return scene


def end(scene: Scene, actor: Actor, server: Optional[int] = None) -> None:
    """The program ends without a word, and takes its private bus with it; or the fork server does,
    which notices somewhat later that the program is gone."""
    actor.end()
    if server is not None:
        until("nothing is left behind", lambda: scene.left_behind() == [])
    assert scene.left_behind() == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["process", "nested", "pool", "executor"])
def test_workers_of_multiprocessing(either: Scene, kind: str, method: str) -> None:
    actor = either.run("multi.py", kind, method)
    shown = actor.hear()
    expected = shown["expected"]
    assert shown["totals"] == dict.fromkeys(["module", "argument", "queued"], expected)
    # The parent itself emitted nothing. A worker is one owner, however many handles it was sent.
    # Python 3.12.9 and 3.13.2 have the fork server really import what is to be preloaded: it is a
    # process of the private bus then.
    server = shown["server"]
    found = either.settled(shown["bus"], alive=set(), delivered=3 * expected, maybe=server)
    owners = len([owner for owner in found["owners"] if owner["pid"] != server])
    # On a private bus so is a worker that waits for a task: it keeps the bus in use.
    waiting = shown["workers"] if kind in ("pool", "executor") else 0
    assert 0 <= owners - shown["emitters"] <= waiting
    end(either, actor, server)


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("os._exit", 7),
        ("sys.exit", 7),
        ("exception", 1),
        ("return", 0),
        ("uses all", 7),
    ],
)
def test_os_fork(either: Scene, ending: str, code: int) -> None:
    actor = either.run("forks.py", ending)
    shown = actor.hear()
    assert shown["codes"] == [code] * 3
    totals = shown["totals"]
    assert totals['calls_total{who="child"}'] == 3 * 300
    assert totals['calls_total{who="parent"}'] == 2
    assert totals["queued_total"] == 3 * 300
    if ending == "uses all":
        assert totals['calls_total{who="thread of a child"}'] == 3 * 4
    either.settled(shown["bus"], alive={shown["pid"]})
    end(either, actor)


def test_os_fork_with_a_collector_of_the_childs_own(scene: Scene) -> None:
    actor = scene.run("forks.py", "own collector")
    shown = actor.hear()
    assert shown["codes"] == [7] * 3
    assert shown["totals"]["queued_total"] == 3 * 300
    scene.settled(shown["bus"], alive={shown["pid"]})
    end(scene, actor)


def test_fork_while_other_threads_emit(either: Scene) -> None:
    actor = either.run("fork_and_threads.py")
    shown = actor.hear()
    assert shown["codes"] == [0]
    assert shown["emitted"] == shown["expected"]
    assert shown["of_children"] == shown["expected_of_children"]
    either.settled(shown["bus"], alive={shown["pid"]})
    end(either, actor)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("workers", ["persistent", "epochs"])
def test_workers_of_a_data_loader(either: Scene, workers: str, method: str) -> None:
    actor = either.run("loader.py", method, workers)
    shown = actor.hear()
    assert shown["totals"] == [shown["expected"]] * 3
    assert shown["observed"] == shown["expected"]
    assert len(shown["workers"]) == (3 if workers == "persistent" else 0)
    # A worker is one owner, however many handles it was sent; with one lane for its one thread.
    found = either.settled(shown["bus"], alive=set(shown["workers"]))
    assert {owner["lanes"] for owner in found["owners"] if owner["alive"]} <= {1}
    assert found["ledger"]["delivered"] == 4 * shown["expected"]
    end(either, actor)


def test_threads_and_tasks(either: Scene) -> None:
    actor = either.run("threads.py")
    shown = actor.hear()
    assert shown["calls"] == shown["expected"]
    assert shown["queued"] == shown["expected"]
    assert shown["timed"] == dict.fromkeys(["task", "decorated"], shown["expected_timed"])
    assert shown["active"] == 0
    found = either.settled(shown["bus"], alive={shown["pid"]})
    # The threads' lanes were given back: what is left is the main thread's.
    assert [owner["lanes"] for owner in found["owners"] if owner["alive"]] == [1]
    end(either, actor)


@pytest.mark.parametrize("how", ["prefork", "preload", "preload, private"])
def test_workers_of_gunicorn(scene: Scene, how: str) -> None:
    pytest.importorskip("gunicorn")
    # A private bus is that of the arbiter, which makes it before it forks, if it loads the
    # application.
    bus = None if how == "preload, private" else scene.name_bus()
    options = [] if how == "prefork" else ["--preload"]
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        where = ["--bind", f"fd://{listener.fileno()}", "--chdir", str(WORKERS)]
        configuration = ["--config", str(WORKERS / "gunicorn_conf.py"), *where, *options]
        # The log lies in the scene's folder, and not in that of the application.
        configuration += ["--error-logfile", str(scene.folder / "gunicorn.log")]
        actor = Actor(
            scene, [sys.executable, "-m", "gunicorn", *configuration], (listener.fileno(),)
        )
        port = listener.getsockname()[1]
        with ThreadPoolExecutor(4) as clients:
            served = list(clients.map(partial(ask, port), ["/"] * 100))
            assert None not in served
            assert ask(port, "/total")["total"] == 100

            # One that waits for requests.
            os.kill(served[-1]["pid"], signal.SIGKILL)
            until("it is replaced", lambda: is_replaced(actor, served[-1]["pid"]))
            more = list(clients.map(partial(ask, port), ["/"] * 100))
            assert None not in more
            assert ask(port, "/total")["total"] == 200

            # One in the midst of them: what it answered is counted, what it had counted may be not
            # answered.
            answers = clients.map(partial(ask, port), ["/"] * 200)
            first = next(answers)
            os.kill(first["pid"], signal.SIGKILL)
            answers = [first, *answers]
        answered = 200 + sum(answer is not None for answer in answers)
        total = ask(port, "/total")["total"]
        assert answered <= total <= 400
    actor.process.terminate()
    end(scene, actor)
    if bus is not None:
        scene.settled(bus, alive=set())
        assert qbus.snapshot(bus).get("requests_total", {"path": "/"}).value == total


def ask(port: int, path: str) -> Optional[Any]:
    """What the application answers, or None if the worker that was to do so was killed."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    except (ConnectionError, HTTPException):
        return None
    finally:
        connection.close()


def is_replaced(actor: Actor, pid: int) -> bool:
    workers = {*living_processes(actor.pid)} - {actor.pid}
    return pid not in workers and len(workers) == 3


@pytest.mark.parametrize("method", METHODS)
def test_handles_that_come_one_by_one(scene: Scene, method: str) -> None:
    scene.environment["OTHER_BUS"] = scene.name_bus()
    del scene.environment["QBUS"]
    actor = scene.run("sent.py", method)
    shown = actor.hear()
    assert shown["totals"] == [shown["expected"]] * 2
    for bus in shown["buses"]:
        assert len(scene.settled(bus, alive=set())["owners"]) == 1
    end(scene, actor)


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_outlives_the_main_thread(either: Scene, method: str) -> None:
    actor = either.run("unjoined.py", method)
    bus = actor.hear()["bus"]
    assert actor.hear() == {"bus": bus, "added": [True] * 10, "total": 10}
    end(either, actor)


@pytest.mark.parametrize("method", METHODS)
def test_workers_of_a_parent_without_a_collector(scene: Scene, method: str) -> None:
    actor = scene.run("alone.py", method)
    shown = actor.hear()
    assert shown["totals"] == [1, 1]
    assert len(set(shown["buses"])) == 2
    actor.process.stdin.close()
    assert actor.process.wait(PATIENCE) == 0
    warnings = actor.errors.read_text()
    assert warnings.count("RefusedWarning: this worker has a collector of its own") == 2
    assert "Traceback" not in warnings
    assert scene.left_behind() == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("means", ["inc", "queue", "add"])
def test_a_killed_worker_loses_nothing(either: Scene, means: str, method: str) -> None:
    actor = either.run("killed.py", method, means)
    shown = actor.hear()
    for target, returned, total in zip(shown["targets"], shown["returned"], shown["totals"]):
        # The last call was accepted, and killed before it could be noted.
        assert target <= returned <= total <= returned + 1
    found = either.settled(shown["bus"], alive=set(), may_drop=True)
    workers = len(shown["targets"])
    # An increment reaches its cell before the call is counted: who is killed in between has one
    # call fewer in the ledger than in the total.
    uncounted = sum(shown["totals"]) - found["ledger"]["delivered"]
    assert 0 <= uncounted <= (workers if means == "inc" else 0)
    assert shown["refused"] <= found["ledger"]["dropped"] <= shown["refused"] + workers
    end(either, actor)


@pytest.mark.parametrize("method", METHODS)
def test_what_finds_no_room_is_counted(either: Scene, method: str) -> None:
    actor = either.run("burst.py", method)
    shown = actor.hear()
    ledger = either.settled(shown["bus"], alive=set(), may_drop=True)["ledger"]
    assert ledger["delivered"] == shown["total"]
    assert ledger["delivered"] + ledger["dropped"] == shown["emitted"]
    end(either, actor)


def test_the_last_process_takes_the_private_bus_with_it(scene: Scene) -> None:
    """Whoever made it, and also if it did nothing since that ended."""
    actor = scene.run("heir.py")
    bus = actor.hear()["bus"]
    assert (SHM / f"qbus.{bus}").exists()
    actor.end()
    assert scene.left_behind() == []


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_a_killed_parent_leaves_goes_with_its_child_or_is_swept(
    scene: Scene, is_killed: bool
) -> None:
    actor = scene.run("orphan.py")
    shown = actor.hear()
    files = [SHM / f"qbus.{shown['bus']}", SHM / f"qbus.{shown['bus']}.snapshot"]
    actor.kill()
    sweep_later(scene, files)
    assert [file.exists() for file in files] == [True, True], "its child has it open"
    if is_killed:
        os.kill(shown["pid"], signal.SIGKILL)
        actor.check_end()
        sweep_later(scene, files)
    else:
        actor.go_on()
        assert actor.hear() == {"added": True}
        actor.check_end()
    assert [file.exists() for file in files] == [False, False]


def sweep_later(scene: Scene, files: list[Path]) -> None:
    """Has another process make a collector when the files are older than a bus that is just
    made."""
    long_ago = time.time() - 3600
    for file in files:
        os.utime(file, (long_ago, long_ago))
    other = scene.run("collector.py")
    other.hear()
    other.end()
