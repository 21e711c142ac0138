"""The bus over HTTP, from a Python process."""

import gzip
import os
import signal
import urllib.request
import warnings

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import qbus
from qbus import BusError, Counter, Histogram, MetricError, MetricsCollector


def get(url: str, **headers: str) -> bytes:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


def page(server: qbus.MetricsServer) -> str:
    accept = "application/openmetrics-text;version=1.0.0"
    return gzip.decompress(
        get(server.url + "metrics", Accept=accept, **{"Accept-Encoding": "gzip"})
    ).decode()


def test_a_page_and_a_dashboard(collector: MetricsCollector) -> None:
    requests = Counter("requests", "Requests.", ["path"], registry=collector)
    requests.labels("/").inc(3)
    wait = Histogram("wait_seconds", registry=collector, buckets=(0.1, 1))
    wait.observe(0.5, {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"})
    collector.get_all_current_metrics()
    with qbus.start_http_server(0, registry=collector) as server:
        families = {family.name: family for family in text_string_to_metric_families(page(server))}
        (sample,) = [one for one in families["requests"].samples if one.name == "requests_total"]
        assert (sample.labels, sample.value) == ({"path": "/"}, 3)
        traced = [one.exemplar for one in families["wait_seconds"].samples if one.exemplar]
        assert [one.labels["trace_id"] for one in traced] == ["4bf92f3577b34da6a3ce929d0e0e4736"]
        assert b"<title>qbus</title>" in get(server.url)
        # It serves what comes from now on as well.
        requests.labels("/").inc()
        collector.get_all_current_metrics()
        assert 'requests_total{path="/"} 4' in page(server)
    with pytest.raises(OSError):
        get(server.url)


def test_a_native_histogram_is_one_for_who_asks_for_protobuf(collector: MetricsCollector) -> None:
    Histogram("classic_seconds", registry=collector).observe(0.5)
    Histogram("native_seconds", registry=collector, native=True).observe(0.5)
    collector.get_all_current_metrics()
    accept = (
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
    )
    # Schema 5, and then the threshold of its zeros.
    native = b"\x28\x0a\x31"
    with qbus.start_http_server(0, registry=collector) as server:
        for name, is_native in (("classic_seconds", False), ("native_seconds", True)):
            body = get(f"{server.url}metrics?name[]={name}", Accept=accept)
            assert (native in body) == is_native, body


def test_a_forked_child_leaves_it_alone(collector: MetricsCollector) -> None:
    server = qbus.start_http_server(0, registry=collector)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        server.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    # The parent's goes on.
    assert b"<title>qbus</title>" in get(server.url)
    server.close()
    server.close()


def test_what_cannot_be_served_says_so(collector: MetricsCollector) -> None:
    with qbus.start_http_server(0, registry=collector) as server:
        port = int(server.url.rstrip("/").rsplit(":", 1)[1])
        with pytest.raises(BusError, match=str(port)):
            qbus.start_http_server(port, registry=collector)
    with pytest.raises(MetricError, match="127.0.0.1:9464"):
        qbus.start_http_server(70000, registry=collector)
    with pytest.warns(RuntimeWarning, match="without a password"):
        qbus.start_http_server(0, "0.0.0.0", registry=collector).close()
