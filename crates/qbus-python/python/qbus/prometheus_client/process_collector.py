"""What the kernel says of a process."""

import os
from collections.abc import Callable, Iterable
from typing import Any, Optional, Union

from .metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from .registry import REGISTRY, Collector

_PAGESIZE = os.sysconf("SC_PAGE_SIZE")


class ProcessCollector(Collector):
    """CPU time, memory and open files of a process, from /proc.

    >>> names = [metric.name for metric in ProcessCollector(registry=None).collect()]
    >>> "process_resident_memory_bytes" in names
    True
    """

    def __init__(
        self,
        namespace: str = "",
        pid: Callable[[], Union[int, str]] = lambda: "self",
        proc: str = "/proc",
        registry: Optional[Any] = REGISTRY,
    ) -> None:
        self._prefix = f"{namespace}_process_" if namespace else "process_"
        self._pid = pid
        self._proc = proc
        self._pagesize = _PAGESIZE
        self._ticks = float(os.sysconf("SC_CLK_TCK"))
        self._btime = self._boot_time()
        if registry:
            registry.register(self)

    def _boot_time(self) -> float:
        try:
            with open(os.path.join(self._proc, "stat"), "rb") as stat:
                for line in stat:
                    if line.startswith(b"btime "):
                        return float(line.split()[1])
        except OSError:
            pass
        return 0

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        if not self._btime:
            return []
        folder = os.path.join(self._proc, str(self._pid()).strip())
        return [*self._of_stat(folder), *self._of_files(folder)]

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        return GaugeMetricFamily(self._prefix + name, text, value=value)

    def _of_stat(self, folder: str) -> Iterable[Metric]:
        try:
            with open(os.path.join(folder, "stat"), "rb") as stat:
                parts = stat.read().split(b")")[-1].split()
        except OSError:
            return []
        start = self._btime + float(parts[19]) / self._ticks
        cpu = (float(parts[11]) + float(parts[12])) / self._ticks
        return [
            self._gauge("virtual_memory_bytes", "Virtual memory size in bytes.", float(parts[20])),
            self._gauge(
                "resident_memory_bytes",
                "Resident memory size in bytes.",
                float(parts[21]) * self._pagesize,
            ),
            self._gauge(
                "start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
                start,
            ),
            CounterMetricFamily(
                self._prefix + "cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
                value=cpu,
            ),
        ]

    def _of_files(self, folder: str) -> Iterable[Metric]:
        found = []
        try:
            with open(os.path.join(folder, "limits"), "rb") as limits:
                for line in limits:
                    if line.startswith(b"Max open file"):
                        text = "Maximum number of open file descriptors."
                        found.append(self._gauge("max_fds", text, float(line.split()[3])))
                        break
            open_files = float(len(os.listdir(os.path.join(folder, "fd"))))
            found.append(self._gauge("open_fds", "Number of open file descriptors.", open_files))
        except OSError:
            pass
        return found


PROCESS_COLLECTOR = ProcessCollector()
