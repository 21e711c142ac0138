"""Which Python this is."""

import platform as pf
from collections.abc import Iterable
from typing import Any, Optional

from .metrics_core import GaugeMetricFamily, Metric
from .registry import REGISTRY, Collector


class PlatformCollector(Collector):
    """The interpreter's version, as labels.

    >>> [metric.name for metric in PlatformCollector(registry=None).collect()]
    ['python_info']
    """

    def __init__(self, registry: Optional[Any] = REGISTRY, platform: Optional[Any] = None) -> None:
        self._platform = pf if platform is None else platform
        facts = self._info()
        if self._platform.system() == "Java":
            facts.update(self._java())
        metric = GaugeMetricFamily("python_info", "Python platform information", labels=list(facts))
        metric.add_metric(list(facts.values()), 1)
        self._metrics = [metric]
        if registry:
            registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The metric."""
        return self._metrics

    def _info(self) -> dict[str, str]:
        major, minor, patchlevel = self._platform.python_version_tuple()
        return {
            "version": self._platform.python_version(),
            "implementation": self._platform.python_implementation(),
            "major": major,
            "minor": minor,
            "patchlevel": patchlevel,
        }

    def _java(self) -> dict[str, str]:
        version, _, machine, _ = self._platform.java_ver()
        name, release, vendor = machine
        return {
            "jvm_version": version,
            "jvm_release": release,
            "jvm_vendor": vendor,
            "jvm_name": name,
        }


PLATFORM_COLLECTOR = PlatformCollector()
