"""The exports in the tools that people load them with, without an option that they would have to
know."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qbus import MetricsCollector


@pytest.fixture
def exports(collector: MetricsCollector, tmp_path: Path) -> Path:
    """A table and a document of all types, with what has no digits, and texts like formulas."""
    for value in (1, 2):
        # Three points of one time: no time tells them apart.
        collector.add_metric("jobs_total", value, "counter", {"kind": "a,\"b\""}, timestamp=1.0)
        collector.add_metric("level", value / 4, "gauge", {}, "=cmd()", timestamp=1.5 * value)
        collector.add_metric("run_seconds", value / 10, "histogram", {"op": "read"})
        collector.add_metric("wait_seconds", value / 10, "summary")
    collector.add_metric("none", float("nan"), "gauge")
    collector.add_metric("most", float("inf"), "gauge")
    collector.add_metric("least", float("-inf"), "gauge")
    collector.export_to_csv(tmp_path / "metrics.csv", include_history=True)
    (tmp_path / "metrics.json").write_text(collector.export_to_json(include_history=True))
    return tmp_path


def check(names: list[str], values: list[float], points: list[int]) -> None:
    """Of the rows of the table: numbers are numbers, and no two rows are the same."""
    rows = list(zip(names, values, points))
    now = {name: value for name, value, point in rows if point == 0}
    assert (now["most"], now["least"], now["level"]) == (float("inf"), float("-inf"), 0.5)
    assert now["none"] != now["none"]
    history = [(value, point) for name, value, point in rows if name == "level"]
    assert history == [(0.5, 0), (0.25, 1), (0.5, 2)]


def test_pandas(exports: Path) -> None:
    pandas: Any = pytest.importorskip("pandas")
    table = pandas.read_csv(exports / "metrics.csv", parse_dates=["datetime"])
    assert table.datetime.dtype.kind == "M" and table.value.dtype.kind == "f"
    assert not table.duplicated(["name", "labels", "point"]).any()
    check(list(table.name), list(table.value), list(table.point))
    document = json.loads((exports / "metrics.json").read_text())
    metrics = pandas.json_normalize(document["metrics"])
    assert metrics.value.dtype.kind == metrics["sum"].dtype.kind == metrics["min"].dtype.kind == "f"
    assert pandas.to_datetime(metrics.datetime).dtype.kind == "M"


def test_polars(exports: Path) -> None:
    polars: Any = pytest.importorskip("polars")
    table = polars.read_csv(exports / "metrics.csv", try_parse_dates=True)
    assert isinstance(table.schema["datetime"], polars.Datetime)
    assert (table.schema["value"], table.schema["point"]) == (polars.Float64, polars.Int64)
    check(list(table["name"]), list(table["value"]), list(table["point"]))
    document = json.loads((exports / "metrics.json").read_text())
    metrics = polars.DataFrame(document["metrics"])
    assert metrics.schema["value"] == metrics.schema["min"] == polars.Float64
    read = polars.read_json(exports / "metrics.json").select(polars.col("metrics").explode())
    buckets = (
        read.unnest("metrics").filter(polars.col("name") == "run_seconds")["buckets"].explode()
    )
    assert buckets.struct.field("le").to_list()[-1] == "+Inf"


def test_duckdb(exports: Path) -> None:
    duckdb: Any = pytest.importorskip("duckdb")
    columns = duckdb.sql(f"describe select * from '{exports / 'metrics.csv'}'").fetchall()
    types = {name: found for name, found, *_ in columns}
    assert (types["value"], types["point"]) == ("DOUBLE", "BIGINT")
    assert types["datetime"] == "TIMESTAMP WITH TIME ZONE"
    rows = duckdb.sql(f"select name, value, point from '{exports / 'metrics.csv'}'").fetchall()
    check(*map(list, zip(*rows)))
    metrics = f"select unnest(metrics) as m from '{exports / 'metrics.json'}'"
    found = duckdb.sql(
        f"select m.value, m.labels.kind from ({metrics}) where m.name = 'jobs_total'"
    )
    assert found.fetchall() == [(3.0, 'a,"b"')]
    bounds = duckdb.sql(
        f"select b.le from ({metrics}), unnest(m.buckets) as t(b) where m.name = 'run_seconds'"
    )
    assert ("+Inf",) in bounds.fetchall()


def test_jq(exports: Path) -> None:
    if shutil.which("jq") is None:
        pytest.skip("there is no jq")
    ask = [
        "[.metrics[].value | type] | unique",
        '.metrics[] | select(.name == "run_seconds") | [.buckets[].le | type] | unique',
        "[.metrics[] | .not_finite | values] | sort",
    ]
    asked = (
        subprocess.run(["jq", "-c", of, exports / "metrics.json"], capture_output=True)
        for of in ask
    )
    answers = [json.loads(answer.stdout) for answer in asked]
    assert answers == [["null", "number"], ["string"], ["+Inf", "-Inf", "NaN"]]
