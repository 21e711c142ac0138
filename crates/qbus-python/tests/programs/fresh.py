"""The package taken out of sys.modules and imported anew, and a module of it loaded again."""

import importlib
import os
import sys
import tempfile

import prometheus_client
from prometheus_client import REGISTRY, Counter

counter = Counter("c", "A counter.")
counter.inc(2)
# In part: what is left is what it was.
del sys.modules["prometheus_client"]
import prometheus_client as again  # noqa: E402

print(again.REGISTRY is REGISTRY, again.Counter is Counter)
for name in list(sys.modules):
    if name.split(".")[0] == "prometheus_client":
        del sys.modules[name]
import prometheus_client as fresh  # noqa: E402

print(fresh.REGISTRY is REGISTRY, fresh.Counter is Counter, fresh.Counter.__module__)
made = fresh.Counter("c", "A counter, made without a complaint.")
made.inc()
print(made._value.get(), counter._value.get(), isinstance(made, Counter))
print(sorted(fresh.REGISTRY._names_to_collectors)[:3])
# What the environment says is read again.
with tempfile.TemporaryDirectory() as folder:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    values = importlib.reload(importlib.import_module("prometheus_client.values"))
    print(values.ValueClass._multiprocess)
    del os.environ["PROMETHEUS_MULTIPROC_DIR"]
    print(importlib.reload(values).ValueClass._multiprocess)
print(prometheus_client.Counter is Counter)
