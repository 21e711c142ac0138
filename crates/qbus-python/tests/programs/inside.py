"""What programs reach for inside of metrics: values, children, private names, errors."""

from threading import Lock

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
    metrics,
    values,
)
from prometheus_client.registry import Collector

registry = CollectorRegistry()
counter = Counter("c", "A counter.", ["a"], registry=registry)
child = counter.labels("x")
child.inc(2)


def show(what, call):
    try:
        print(what, repr(call()))
    except Exception as error:
        # The beginning of the message: what is told beyond it may help.
        kind = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
        print(what, kind.__name__, str(error)[:24] if kind is ValueError else "")


def samples(metric):
    return [
        (*sample[:2], float(sample[2])) for sample in metric._samples() if sample[0] != "_created"
    ]


def write(value, number):
    value._value = number
    return float(value.get()), float(value._value)


show("read", lambda: child._value._value)
show("write", lambda: write(child._value, 7.0))
show("set", lambda: (child._value.set(11), float(child._value.get())))
show("lock", lambda: isinstance(child._value._lock, type(Lock())))
show("children", lambda: sorted(counter._metrics))
show("labels", lambda: (child._labelvalues, child._labelnames, counter._labelvalues))
show("arguments", lambda: (counter._kwargs, counter._original_name, counter._documentation))
show("samples", lambda: (samples(counter), samples(child), type(child._created).__name__))
gauge = Gauge("g", "A gauge.", registry=registry)
show("gauge", lambda: (gauge.set(5), gauge._value._value, gauge._multiprocess_mode))
show("text", lambda: (gauge.set("7.5"), gauge.set(" 8 "), gauge._value.get()))
show("bool", lambda: (gauge.set(True), gauge._value.get()))
show("no number", lambda: gauge.set("warm"))
show("none", lambda: gauge.set(None))
show("added text", lambda: gauge.inc("1"))
histogram = Histogram("h", "A histogram.", registry=registry, buckets=[1, 2])
show("bounds", lambda: (histogram._upper_bounds, histogram._kwargs, len(histogram._buckets)))
show("observe", lambda: (histogram.observe(1.5), samples(histogram), histogram._sum._value))
show("parts", lambda: [bucket._value for bucket in histogram._buckets])
show("reset", lambda: (histogram._sum.set(0), [b.set(0) for b in histogram._buckets][:0]))
show("after", lambda: samples(histogram))
summary = Summary("s", "A summary.", registry=registry)
show("summary", lambda: (summary.observe(3), summary._count._value, summary._sum.get()))
show("reset", lambda: (summary._count.set(0), summary._sum.set(0), samples(summary)))
info = Info("i", "Facts.", registry=registry)
show("info", lambda: (info.info({"a": "b"}), info._value, isinstance(info._lock, type(Lock()))))
show("info none", lambda: info.info({"a": None}))
enum = Enum("e", "A state.", states=["a", "b"], registry=registry)
show("enum", lambda: (enum.state("b"), enum._value, enum._states))
show("enum unknown", lambda: enum.state("z"))
show("registry", lambda: [one._name for one in registry._collector_to_names])
show("names", lambda: sorted(registry._names_to_collectors))
show("get", lambda: (registry.get_sample_value("g"), registry.get_sample_value("none")))
show("target", lambda: (registry.set_target_info({"a": "b"}), registry.get_target_info()))
show("buckets", lambda: metrics.Histogram.DEFAULT_BUCKETS)
show("text of", lambda: (str(counter), repr(counter), repr(child), Counter.__module__))
show("twice", lambda: Counter("c", "Again.", registry=registry))
show("not there", lambda: registry.unregister(Counter("z", "Other.", registry=None)))
show("negative", lambda: child.inc(-1))
show("without labels", lambda: counter.inc())
show("observed text", lambda: histogram.observe("x"))
show("too many", lambda: child.inc(1, 2, 3))
show("unsorted", lambda: Histogram("u", "U.", buckets=[2, 1], registry=None))
show("no buckets", lambda: Histogram("u", "U.", buckets=[], registry=None))
show("no name", lambda: Counter("", "U."))
show("reserved", lambda: Histogram("u", "U.", ["__le"], registry=None))
show("chained", lambda: child.labels("y"))
show("count", lambda: counter.labels("a", "b"))
show("names", lambda: counter.labels(b="b"))
show("both", lambda: counter.labels("a", a="b"))
show("none", lambda: counter.labels(None)._labelvalues)
show("no labels", lambda: gauge.labels("a"))
show("remove", lambda: (counter.remove("nothing"), counter.remove("nothing", "more")))
show("clear", lambda: (counter.clear(), counter._metrics, gauge.clear(), gauge._value.get()))
show("classes", lambda: (isinstance(counter, Collector), issubclass(Counter, Collector)))
show("base", lambda: isinstance(counter, metrics.MetricWrapperBase))
show("values", lambda: (values.ValueClass is values.MutexValue, values.ValueClass.__name__))
show("no states", lambda: Enum("n", "N.", registry=None))
show("mode", lambda: Gauge("n", "N.", multiprocess_mode="none", registry=None))
recent = Gauge("r", "R.", multiprocess_mode="mostrecent", registry=None)
show("recent", recent.inc)


class Verb(str):
    def __str__(self):
        return f"verb {super().__str__()}"


counter.labels("get").inc()
counter.labels(Verb("get")).inc(5)
show("shown as", lambda: sorted((*key, one._value.get()) for key, one in counter._metrics.items()))

of_process = Gauge("memory", "Memory of other processes.", ["pid"], registry=registry)
of_process.labels("77").set(3)
most = Gauge("most", "The most of others.", ["pid"], registry=registry, multiprocess_mode="max")
most.labels("78").set(4)
show("pid", lambda: registry.get_sample_value("memory", {"pid": "77"}))
show("pid of most", lambda: registry.get_sample_value("most", {"pid": "78"}))

Counter("long", 700 * "help é", registry=registry).inc(2)
show("long help", lambda: registry.get_sample_value("long_total"))


class Counting(values.MutexValue):
    """A class of values of the program's own."""

    calls = []

    def inc(self, amount):
        self.calls.append(amount)
        super().inc(amount)


plain = Counter("plain", "A counter.", registry=registry)
plain.inc(3)
plain._metric_init()
plain.inc()
show("made anew", lambda: plain._value.get())
values.ValueClass = Counting
own = Counter("own", "A counter.", registry=registry)
own_histogram = Histogram("own_seconds", "A histogram.", registry=registry, buckets=[1])
own.inc(2)
own_histogram.observe(0.5)
show("own values", lambda: (Counting.calls, own._value.get(), samples(own_histogram)))
gauge._value = Counting("gauge", "g", "g", (), (), "A gauge.")
gauge.inc(5)
histogram._sum = Counting("histogram", "h", "h_sum", (), (), "A histogram.")
histogram.observe(1.5)
show("replaced", lambda: (Counting.calls, gauge._value.get(), samples(histogram)))
