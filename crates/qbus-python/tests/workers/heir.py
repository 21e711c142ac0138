"""A process that ends before its forked child, which does nothing from then on and ends too."""

import os
import time

import stage

import qbus

calls = qbus.Counter("calls", "Calls.")
calls.inc()
parent = os.getpid()
from_child, to_parent = os.pipe()
if os.fork() == 0:
    calls.inc()
    os.write(to_parent, b"x")
    while os.getppid() == parent:
        time.sleep(0.01)
else:
    os.read(from_child, 1)
    stage.show(bus=qbus.get_metrics_collector().bus)
    stage.pause()
