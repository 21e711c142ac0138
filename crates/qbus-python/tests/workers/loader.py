"""A loader in the shape of PyTorch's: long-lived workers, each with a queue of indexes, and one
queue of results: loader.py METHOD persistent|epochs.
"""

import multiprocessing
import os
import queue
import sys
from collections.abc import Iterator
from typing import Any

import stage

import qbus
from qbus import MetricType

WORKERS = 3
EPOCHS = 3
SAMPLES = 150
BATCH = 5

samples = qbus.Counter("samples", "Samples read, by a handle of the module.")


class Dataset:
    """It holds handles, as datasets hold what they need: it travels to the workers with them."""

    def __init__(self) -> None:
        self.read = qbus.Counter("read", "Samples read, by a handle of the data set.")
        self.seconds = qbus.Histogram("read_seconds", "How long it took.")

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> int:
        with self.seconds.time():
            self.read.inc()
            samples.inc()
            collector = qbus.get_metrics_collector()
            assert collector.queue_metric("queued_total", 1, MetricType.COUNTER)
            return index * index


def worker_loop(dataset: Dataset, indexes: Any, results: Any, done: Any) -> None:
    while True:
        try:
            task = indexes.get(timeout=stage.PATIENCE)
        except queue.Empty:
            return
        if task is None:
            break
        number, batch = task
        results.put((number, [dataset[index] for index in batch]))
    done.wait(stage.PATIENCE)
    results.cancel_join_thread()
    results.close()


class Loader:
    def __init__(self, context: Any, dataset: Dataset, is_persistent: bool) -> None:
        self.context = context
        self.dataset = dataset
        self.is_persistent = is_persistent
        self.workers: list[Any] = []

    def __iter__(self) -> Iterator[list[int]]:
        if not self.workers:
            self.start()
        starts = range(0, len(self.dataset), BATCH)
        for number, start in enumerate(starts):
            batch = list(range(start, start + BATCH))
            self.indexes[number % WORKERS].put((number, batch))
        ready = {}
        for number in range(len(starts)):
            while number not in ready:
                got, data = self.results.get(timeout=stage.PATIENCE)
                ready[got] = data
            yield ready.pop(number)
        if not self.is_persistent:
            self.stop()

    def start(self) -> None:
        self.results, self.done = self.context.Queue(), self.context.Event()
        self.indexes = [self.context.Queue() for _ in range(WORKERS)]
        for indexes in self.indexes:
            arguments = (self.dataset, indexes, self.results, self.done)
            worker = self.context.Process(target=worker_loop, args=arguments, daemon=True)
            worker.start()
            self.workers.append(worker)

    def stop(self) -> None:
        self.done.set()
        for indexes in self.indexes:
            indexes.put(None)
        for worker in self.workers:
            worker.join(stage.PATIENCE)
            assert worker.exitcode == 0
        self.workers.clear()


def main() -> None:
    method, how_long = sys.argv[1:]
    loader = Loader(multiprocessing.get_context(method), Dataset(), how_long == "persistent")
    for _ in range(EPOCHS):
        assert sum(map(sum, loader)) == sum(index * index for index in range(SAMPLES))
    collector = qbus.get_metrics_collector()
    # Persistent workers still live: what they returned is read all the same.
    names = ["read_total", "samples_total", "queued_total"]
    totals = [collector.get_metric(name).value for name in names]
    stage.show(
        bus=collector.bus,
        pid=os.getpid(),
        workers=[worker.pid for worker in loader.workers],
        expected=EPOCHS * SAMPLES,
        totals=totals,
        observed=qbus.snapshot().get("read_seconds").count,
    )
    stage.pause()


if __name__ == "__main__":
    main()
