"""What specifies the Python API (seed.md, beside this file): each of its Python blocks runs."""

import ast
import csv
import io
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import centralized_metrics_collector
import qbus
from centralized_metrics_collector import MetricsCollector, MetricType, get_metrics_collector

SEED = (Path(__file__).parent / "seed.md").read_text()


def blocks(language: str) -> dict[str, list[str]]:
    """The blocks of a language by the heading that they stand under."""
    found: dict[str, list[str]] = {}
    heading = ""
    for part in re.finditer(
        r"^#+ (?P<heading>[^\n]*)$|^```(?P<language>\w*)\n(?P<text>.*?)^```$", SEED, re.M | re.S
    ):
        if part["heading"] is not None:
            heading = part["heading"]
        elif part["language"] == language:
            found.setdefault(heading, []).append(part["text"])
    return found


PYTHON = blocks("python")
LABELS = {"model": "qwen3-vl", "input_size": "large"}
LATENCY = "Model inference latency in seconds"


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What a reader of the document has at hand: its imports, and the process's collector,
    empty."""
    monkeypatch.chdir(tmp_path)
    collector = get_metrics_collector()
    collector.reset()
    names = {
        name: getattr(centralized_metrics_collector, name)
        for name in centralized_metrics_collector.__all__
    }
    return {**names, "time": time, "collector": collector}


def run(heading: str, namespace: dict[str, Any], block: int = 0) -> None:
    exec(compile(PYTHON[heading][block], f"seed.md: {heading}", "exec"), namespace)


def test_every_python_block_is_run_here() -> None:
    run_here = re.findall(r'run\("([^"]+)"', Path(__file__).read_text())
    assert sorted(set(run_here)) == sorted(PYTHON)
    assert all(len(of_heading) == 1 for of_heading in PYTHON.values())
    assert len(PYTHON) == 10


def test_installation_and_setup(namespace: dict[str, Any]) -> None:
    run("Installation and Setup", namespace)
    try:
        assert namespace["collector"].get_statistics()["is_collecting"]
    finally:
        namespace["collector"].stop_collection()
    assert not namespace["collector"].get_statistics()["is_collecting"]


def test_basic_metric_collection(
    namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run("Basic Metric Collection", namespace)
    assert capsys.readouterr().out == "Latency: 0.125s\n"
    metric = namespace["metric"]
    assert (metric.name, metric.value, metric.labels) == ("model_inference_latency", 0.125, LABELS)
    assert metric.type is MetricType.GAUGE
    assert metric.description == LATENCY
    assert abs(metric.timestamp - time.time()) < 60


def test_performance_tracking(
    namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run("Performance Tracking", namespace)
    out = capsys.readouterr().out
    assert re.fullmatch(r"Duration: \d+\.\d{4}s\nMemory delta: -?\d+ bytes\n", out), out
    assert 0 <= namespace["perf_result"]["duration"] < 60


def test_memory_delta_is_resident_memory(namespace: dict[str, Any]) -> None:
    collector = namespace["collector"]
    collector.add_performance_tracker("allocation")
    kept = bytearray(64 << 20)
    kept[::4096] = b"x" * len(kept[::4096])
    delta = collector.end_performance_tracker("allocation")["memory_delta"]
    assert 60 << 20 < delta < 80 << 20
    del kept


def test_exporting_metrics(namespace: dict[str, Any], tmp_path: Path) -> None:
    run("Basic Metric Collection", namespace)
    run("Exporting Metrics", namespace)
    assert json.loads(namespace["json_data"])["metrics"][0]["name"] == "model_inference_latency"
    table = (tmp_path / "metrics.csv").read_bytes().decode()
    assert namespace["csv_data"] == table
    assert table.startswith("name,value,type,labels,description,timestamp,datetime\r\n")
    assert "# TYPE model_inference_latency gauge\n" in namespace["prometheus_data"]


def test_queue(namespace: dict[str, Any]) -> None:
    run("High-Frequency Metrics with Queue", namespace)
    assert namespace["success"] is True
    metric = namespace["collector"].get_metric("request_count", {"endpoint": "/api/predict"})
    assert (metric.value, metric.type) == (1.0, MetricType.COUNTER)


def test_validation_and_error_handling(namespace: dict[str, Any]) -> None:
    run("Validation and Error Handling", namespace)
    assert namespace["is_valid"] is True
    assert namespace["collector"].validate_metric("positive_metric", -1) is False
    with pytest.raises(
        ValueError, match="positive_metric: its validation rule refuses the value -1"
    ):
        namespace["collector"].add_metric("positive_metric", -1, MetricType.GAUGE)


def test_integration_with_existing_components(namespace: dict[str, Any]) -> None:
    run("Integration with Existing Components", namespace)
    assert namespace["monitor_model_performance"](sum, [1, 2, 3]) == 6
    metric = namespace["collector"].get_metric("model_inference_time", {"model": "qwen3-vl"})
    assert 0 <= metric.value < 60


def test_configuration(namespace: dict[str, Any]) -> None:
    run("Configuration", namespace)
    configured = namespace["collector"]
    assert isinstance(configured, MetricsCollector)
    assert configured.get_statistics()["buffer_capacity"] == 10000
    configured.close()


def test_with_model_training(namespace: dict[str, Any]) -> None:
    run("With Model Training", namespace)
    namespace["num_epochs"] = 3
    steps: list[str] = []
    optimizer = SimpleNamespace(
        zero_grad=lambda: steps.append("zero"), step=lambda: steps.append("step")
    )

    def criterion(output: float, target: float) -> SimpleNamespace:
        return SimpleNamespace(backward=lambda: steps.append("backward"))

    namespace["train_with_metrics"](lambda data: data * 2, [(1, 2), (3, 4)], optimizer, criterion)
    assert len(steps) == 18
    current = namespace["collector"].get_all_current_metrics()
    assert 'training_epoch_time{epoch="2"}' in current
    assert 'training_batch_time{epoch="2",batch="1"}' in current
    assert len([name for name in current if name.startswith("training_")]) == 9


def test_with_memory_management(namespace: dict[str, Any]) -> None:
    run("With Memory Management", namespace)
    allocated = iter([1000, 1500])
    namespace["torch"] = SimpleNamespace(
        cuda=SimpleNamespace(memory_allocated=lambda: next(allocated))
    )
    namespace["memory_management_with_metrics"]()
    metric = namespace["collector"].get_metric(
        "memory_operation_delta", {"operation": "memory_intensive_task"}
    )
    assert metric.value == 500


@pytest.fixture
def of_document(namespace: dict[str, Any]) -> MetricsCollector:
    """The metric whose exports the document shows."""
    collector: MetricsCollector = namespace["collector"]
    assert collector.add_metric(
        "model_inference_latency", 0.125, MetricType.GAUGE, LABELS, LATENCY, timestamp=1696161600.0
    )
    return collector


def test_prometheus_format_byte_for_byte(of_document: MetricsCollector) -> None:
    (shown,) = blocks("")["Prometheus Format"]
    assert of_document.export("prometheus", timestamps=True) == shown


def test_json_format(of_document: MetricsCollector) -> None:
    (shown,) = blocks("json")["JSON Format"]
    document = json.loads(shown.replace("[...]", "[]"))
    exported = json.loads(of_document.export_to_json())
    assert document.keys() <= exported.keys()
    (of_metric,), (metric,) = document["metrics"], exported["metrics"]
    assert list(of_metric) == list(metric)
    # Times are of one width, and say that they are UTC.
    of_metric["datetime"] += ".000000000Z"
    assert metric == of_metric
    assert list(exported["history"]) == list(document["history"])
    (point,) = exported["history"]["model_inference_latency"]
    assert (point["value"], point["timestamp"]) == (0.125, 1696161600.0)
    assert json.loads(of_document.export_to_json(include_history=False))["history"] == {}


def test_csv_format(of_document: MetricsCollector) -> None:
    (shown,) = blocks("")["CSV Format"]
    (of_row,) = csv.DictReader(io.StringIO(shown))
    (row,) = csv.DictReader(io.StringIO(of_document.export_to_csv(), newline=""))
    assert list(row) == list(of_row)
    # A JSON object, which Python's literals read as well.
    assert json.loads(row.pop("labels")) == ast.literal_eval(of_row.pop("labels"))
    assert row.pop("datetime") == of_row.pop("datetime") + ".000000000Z"
    assert row == of_row


def test_api_reference_is_complete(namespace: dict[str, Any]) -> None:
    signatures = re.findall(r"^#### `(\w+)\((.*)\)`$", SEED, re.M)
    assert len(signatures) == 22
    collector = namespace["collector"]
    for name, arguments in signatures:
        owner = collector if hasattr(collector, name) else centralized_metrics_collector
        found = MetricsCollector if name == "__init__" else getattr(owner, name)
        names = [
            argument.split("=")[0].strip(" *") for argument in arguments.split(",") if argument
        ]
        assert signature_names(found)[: len(names)] == names, name


def signature_names(function: Any) -> list[str]:
    import inspect

    return list(inspect.signature(function).parameters)


def test_naming_conventions(namespace: dict[str, Any]) -> None:
    add = namespace["collector"].add_metric
    assert add("system_cpu_percent", 1, MetricType.GAUGE)
    for name in ["1st", "a-b", "", "naïve", "a" * 256]:
        with pytest.raises(qbus.MetricError, match="is no metric name"):
            add(name, 1, MetricType.GAUGE)
