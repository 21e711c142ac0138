"""Classes and methods that programs and their tests put in the place of what is there."""

from unittest import mock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

registry = CollectorRegistry()
counter = Counter("c", "A counter.", registry=registry)
labelled = Counter("l", "A counter.", ["a"], registry=registry)
gauge = Gauge("g", "A gauge.", registry=registry)
histogram = Histogram("h", "A histogram.", registry=registry)
summary = Summary("s", "A summary.", registry=registry)
labelled.labels("before")

with mock.patch.object(Counter, "inc") as put:
    counter.inc()
    labelled.labels("before").inc(3)
    labelled.labels("made meanwhile").inc(4)
    print(put.call_args_list)
with mock.patch("prometheus_client.Gauge.set") as put:
    gauge.set(4)
    print(put.call_args_list)
with mock.patch("prometheus_client.metrics.Histogram.observe", autospec=True) as put:
    histogram.observe(4)
    with histogram.time():
        pass
    print(put.call_count)
with mock.patch("prometheus_client.Summary.observe") as put:
    summary.observe(4)
    print(put.call_args_list)
with mock.patch.object(counter, "inc") as put:
    counter.inc()
    print(put.call_count)
with mock.patch("prometheus_client.Counter.labels") as put:
    labelled.labels("q").inc()
    print(put.call_args_list)
counter.inc()
gauge.set(2)
histogram.observe(1)
summary.observe(2)
labelled.labels("made meanwhile").inc()
print(counter._value.get(), gauge._value.get(), histogram._sum.get(), summary._sum.get())
print(labelled.labels("made meanwhile")._value.get())
observe = Histogram.observe


def wrapped(self, amount, exemplar=None):
    print("observed", self._name)
    return observe(self, amount, exemplar)


Histogram.observe = wrapped
with histogram.time():
    pass
histogram.observe(2)
Histogram.observe = observe
histogram.observe(2)
print(mock.create_autospec(Histogram).observe(1) is not None)


class Loud(Counter):
    def inc(self, amount=1, exemplar=None):
        print("loud")
        super().inc(amount, exemplar)


class Double(Summary):
    def observe(self, amount):
        super().observe(2 * amount)


class Doubled(Histogram):
    DEFAULT_BUCKETS = (1, 10)

    def __init__(self, *args, buckets=DEFAULT_BUCKETS, **kwargs):
        super().__init__(*args, buckets=buckets, **kwargs)

    def observe(self, amount, exemplar=None):
        super().observe(2 * amount, exemplar)

    def _child_samples(self):
        yield from super()._child_samples()


loud = Loud("loud", "Loud.", ["x"], registry=registry)
loud.labels("1").inc()
double = Double("double", "Double.", registry=registry)
doubled = Doubled("doubled", "Doubled.", ["x"], registry=registry)
for amount in (3, 4):
    double.observe(amount)
    doubled.labels("y").observe(amount)
print(type(loud.labels("1")).__name__)
for metric in registry.collect():
    if "d" in metric.name:
        print([sample[:3] for sample in metric.samples if not sample.name.endswith("_created")])


class Single(type):
    """The one instance of a class."""

    def __call__(cls, *args, **kwargs):
        if "made" not in cls.__dict__:
            cls.made = super().__call__(*args, **kwargs)
        return cls.made


class Only(CollectorRegistry, metaclass=Single):
    def collect(self):
        yield from super().collect()


Counter("only", "In the one registry.", registry=Only()).inc(2)
print(Only() is Only(), isinstance(Only(), CollectorRegistry))
print(Only().get_sample_value("only_total"))
