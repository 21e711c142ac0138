"""Workers of multiprocessing and concurrent.futures: multi.py KIND METHOD."""

import concurrent.futures
import multiprocessing
import os
import sys
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import stage

import qbus
from qbus import MetricType

WORKERS = 3
EACH = 400
TASKS = 120

#: Made by whoever imports this module: with spawn by each worker again, with forkserver by its
#: server.
calls = qbus.Counter("calls", "Calls by a handle of the module.", ["kind"])


def work(given: qbus.Counter, kind: str, times: int) -> None:
    """What each worker does: once by each means."""
    collector = qbus.get_metrics_collector()
    of_kind = calls.labels(kind)
    for _ in range(times):
        of_kind.inc()
        given.inc()
        assert collector.queue_metric("queued_total", 1, MetricType.COUNTER, {"kind": kind})


def task(given: qbus.Counter, kind: str, _number: int) -> int:
    work(given, kind, 1)
    return os.getpid()


def work_with_memory(given: qbus.Counter, name: str) -> None:
    work(given, "process", EACH)
    # What the resource tracker looks after, and what it must leave alone, in one process.
    block = SharedMemory(name)
    block.buf[0] = 1
    block.close()


def process(context: Any, given: qbus.Counter) -> tuple[int, int]:
    block = SharedMemory(create=True, size=8)
    arguments = (given, block.name)
    workers = [context.Process(target=work_with_memory, args=arguments) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * WORKERS
    assert block.buf[0] == 1
    block.close()
    block.unlink()
    return WORKERS * EACH, WORKERS


def parent_of_one(context_name: str, given: qbus.Counter) -> None:
    work(given, "nested", EACH)
    context = multiprocessing.get_context(context_name)
    child = context.Process(target=work, args=(given, "nested", EACH))
    child.start()
    child.join()
    assert child.exitcode == 0


def nested(context: Any, given: qbus.Counter) -> tuple[int, int]:
    name = context.get_start_method()
    workers = [context.Process(target=parent_of_one, args=(name, given)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    return 2 * 2 * EACH, 2 * 2


def pool(context: Any, given: qbus.Counter) -> tuple[int, int]:
    # The handle travels with each chunk; leaving the block kills the workers with SIGTERM.
    with context.Pool(WORKERS, maxtasksperchild=20) as workers:
        pids = workers.map(partial(task, given, "pool"), range(TASKS), chunksize=2)
    return TASKS, len(set(pids))


def executor(context: Any, given: qbus.Counter) -> tuple[int, int]:
    with concurrent.futures.ProcessPoolExecutor(WORKERS, mp_context=context) as workers:
        pids = list(workers.map(partial(task, given, "executor"), range(TASKS), chunksize=3))
    return TASKS, len(set(pids))


KINDS = {"process": process, "nested": nested, "pool": pool, "executor": executor}


def main() -> None:
    kind, method = sys.argv[1:]
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        # As a newer Python does by itself with the main module.
        context.set_forkserver_preload(["multi"])
    given = qbus.Counter("given", "Calls by a handle that was an argument.")
    expected, emitters = KINDS[kind](context, given)
    collector = qbus.get_metrics_collector()
    totals = {
        "module": collector.get_metric("calls_total", {"kind": kind}),
        "argument": collector.get_metric("given_total"),
        "queued": collector.get_metric("queued_total", {"kind": kind}),
    }
    server = None
    if method == "forkserver":
        from multiprocessing import forkserver

        server = forkserver._forkserver._forkserver_pid
    stage.show(
        bus=collector.bus,
        server=server,
        expected=expected,
        emitters=emitters,
        workers=WORKERS,
        totals={means: total and total.value for means, total in totals.items()},
    )
    stage.pause()


if __name__ == "__main__":
    main()
