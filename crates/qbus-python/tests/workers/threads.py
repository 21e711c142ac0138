"""Threads and tasks of one process."""

import asyncio
import concurrent.futures
import os
import threading

import stage

import qbus
from qbus import MetricType

collector = qbus.get_metrics_collector()
calls = qbus.Counter("calls", "Calls.", ["by"])
seconds = qbus.Histogram("call_seconds", "How long they took.", ["by"])
active = qbus.Gauge("active", "Calls under way.")

WAVES = 20
AT_ONCE = 8
EACH = 50
#: More than a bus has lanes: the last ones share.
CROWD = 100
TASKS = 500


def work(by: str, times: int) -> None:
    for _ in range(times):
        calls.labels(by).inc()
        assert collector.queue_metric("queued_total", 1, MetricType.COUNTER, {"by": by})


def together(count: int, *arguments: object, target: object = work) -> None:
    threads = [threading.Thread(target=target, args=arguments) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def waves() -> None:
    for _ in range(WAVES):
        together(AT_ONCE, "wave", EACH)


def crowd() -> None:
    barrier = threading.Barrier(CROWD)

    def one_of_many() -> None:
        # All have their lanes at the same time.
        calls.labels("crowd").inc(0)
        barrier.wait(stage.PATIENCE)
        work("crowd", 10)
        barrier.wait(stage.PATIENCE)

    together(CROWD, target=one_of_many)


def pool() -> None:
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as executor:
        list(executor.map(lambda _: work("pool", 1), range(TASKS)))


async def tasks() -> None:
    async def once(number: int) -> None:
        with active.track_inprogress(), seconds.labels("task").time():
            await asyncio.sleep(number % 5 / 1000)
            work("task", 1)

    @seconds.labels("decorated").time()
    async def decorated() -> None:
        await asyncio.sleep(0)

    await asyncio.gather(*(once(number) for number in range(TASKS)))
    await asyncio.gather(*(decorated() for _ in range(TASKS)))
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as executor:
        jobs = [loop.run_in_executor(executor, work, "executor", 1) for _ in range(TASKS)]
        await asyncio.gather(*jobs)
    await asyncio.gather(*(asyncio.to_thread(work, "to_thread", 1) for _ in range(TASKS)))


def main() -> None:
    waves()
    crowd()
    pool()
    asyncio.run(tasks())
    expected = {
        "wave": WAVES * AT_ONCE * EACH,
        "crowd": CROWD * 10,
        **dict.fromkeys(["pool", "task", "executor", "to_thread"], TASKS),
    }
    shown = qbus.snapshot()
    stage.show(
        bus=collector.bus,
        pid=os.getpid(),
        expected=expected,
        calls={by: shown.get("calls_total", {"by": by}).value for by in expected},
        queued={by: shown.get("queued_total", {"by": by}).value for by in expected},
        timed={by: shown.get("call_seconds", {"by": by}).count for by in ("task", "decorated")},
        expected_timed=TASKS,
        active=shown.get("active").value,
    )
    stage.pause()


if __name__ == "__main__":
    main()
