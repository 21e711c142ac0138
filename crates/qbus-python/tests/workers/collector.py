"""A process with a collector, and nothing else."""

import stage

import qbus

stage.show(bus=qbus.get_metrics_collector().bus)
stage.pause()
