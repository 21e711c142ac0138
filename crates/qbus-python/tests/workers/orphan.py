"""A process that is killed, and its forked child, which goes on."""

import os
import signal

import stage

import qbus
from qbus import MetricType

collector = qbus.get_metrics_collector()
assert collector.add_metric("calls_total", 1, MetricType.COUNTER)
if os.fork() != 0:
    signal.pause()
assert collector.add_metric("calls_total", 1, MetricType.COUNTER)
stage.show(bus=collector.bus, pid=os.getpid())
stage.pause()
stage.show(added=collector.queue_metric("calls_total", 1, MetricType.COUNTER))
