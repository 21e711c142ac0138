"""Real servers, with programs that import prometheus_client and know nothing of qbus: one page for
all workers."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import pytest
from processes_scene import until

#: Longer than a start takes on a busy machine.
PATIENCE = 60

METRICS = """
import os
from prometheus_client import Counter, Gauge, Histogram, generate_latest

requests = Counter("requests", "Requests.", ["path"])
seconds = Histogram("request_seconds", "Their time.", buckets=[1, 60])
running = Gauge("running", "Requests that run.", multiprocess_mode="livesum")
pid = Gauge("last_pid", "Who answered.", multiprocess_mode="all")


def work(path):
    with running.track_inprogress(), seconds.time():
        requests.labels(path).inc()
        pid.set(os.getpid())
"""

WSGI = (
    METRICS
    + """
def application(environ, start_response):
    body = b"done"
    if environ["PATH_INFO"] == "/metrics":
        body = generate_latest()
    else:
        work(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
)

ASGI = (
    METRICS
    + """
from prometheus_client import make_asgi_app

page = make_asgi_app()


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/metrics":
        return await page(scope, receive, send)
    work(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})
"""
)

TASKS = (
    METRICS
    + """
import pathlib
from celery import Celery

folder = pathlib.Path(__file__).parent
for name in ("queue", "control"):
    (folder / name).mkdir(exist_ok=True)
application = Celery("tasks", broker="filesystem://")
application.conf.update(
    broker_transport_options={
        "data_folder_in": str(folder / "queue"),
        "data_folder_out": str(folder / "queue"),
        "control_folder": str(folder / "control"),
    },
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@application.task(name="work", ignore_result=True)
def task():
    work("task")
"""
)


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(bus: str, folder: Path, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server under `qbus run`; it ends with 0 when it is asked to."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QBUS")}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            python("qbus._command", "run", "-b", bus, "--", *command),
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield server
    except BaseException:
        print(log.read_text())
        raise
    finally:
        server.terminate()
        try:
            code = server.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            raise
    text = log.read_text()
    assert code == 0, text
    assert "RefusedWarning" not in text and "Traceback" not in text, text


def get(port: int, path: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def ask(port: int, path: str) -> str:
    """As `get`, of the next worker where one has had its last request."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return get(port, path)
        except (OSError, HTTPException):
            assert time.monotonic() < end
            time.sleep(0.01)


def is_up(server: "subprocess.Popen[bytes]", port: int) -> bool:
    assert server.poll() is None
    try:
        get(port, "/metrics")
    except (OSError, HTTPException):
        return False
    return True


def value(page: str, series: str) -> float:
    found = [line.rpartition(" ")[2] for line in page.splitlines() if line.startswith(f"{series} ")]
    return float(found[0]) if found else 0.0


def gunicorn(port: int) -> list[str]:
    # Each worker is replaced several times: what it counted stays.
    return python(
        "gunicorn", "-w", "3", "--max-requests", "20", "-b", f"127.0.0.1:{port}", "app:application"
    )


def uvicorn(port: int) -> list[str]:
    return python("uvicorn", "--workers", "2", "--port", str(port), "app:application")


def gunicorn_uvicorn(port: int) -> list[str]:
    where = ["-b", f"127.0.0.1:{port}", "app:application"]
    return python("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-w", "2", *where)


def uwsgi(port: int) -> list[str]:
    return [str(Path(sys.executable).with_name("pyuwsgi"))] + [
        *(
            "--http-socket",
            f"127.0.0.1:{port}",
            "--wsgi-file",
            "app.py",
            "--master",
            "--die-on-term",
        ),
        *("--processes", "3", "--max-requests", "30", "--need-app", "--virtualenv", sys.prefix),
    ]


@pytest.mark.parametrize(
    ("server", "module", "application"),
    [
        (gunicorn, "gunicorn", WSGI),
        (uvicorn, "uvicorn", ASGI),
        (gunicorn_uvicorn, "uvicorn_worker", ASGI),
        (uwsgi, "pyuwsgi", WSGI),
    ],
    ids=["gunicorn", "uvicorn", "gunicorn-uvicorn", "uwsgi"],
)
def test_a_web_server(
    server: Callable[[int], list[str]], module: str, application: str, bus: str, tmp_path: Path
) -> None:
    if not has(module):
        pytest.skip(f"{module} is not installed")
    (tmp_path / "app.py").write_text(application)
    port = free_port()
    with running(bus, tmp_path, server(port)) as process:
        until("it is up", lambda: is_up(process, port))
        for _ in range(150):
            ask(port, "/")
        for page in [ask(port, "/metrics") for _ in range(5)]:
            assert value(page, 'requests_total{path="/"}') >= 150, page
            assert value(page, "request_seconds_count") >= 150, page
            assert value(page, "running") == 0, page


def has(module: str) -> bool:
    return (
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)",
            ]
        ).returncode
        == 0
    )


def test_celery(bus: str, tmp_path: Path) -> None:
    if not has("celery"):
        pytest.skip("celery is not installed")
    (tmp_path / "tasks.py").write_text(TASKS)
    worker = python("celery", "-A", "tasks", "worker", "--pool", "prefork", "--concurrency", "3")
    worker += [
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        "--max-tasks-per-child",
        "10",
    ]
    with running(bus, tmp_path, worker):
        send = "from tasks import task\nfor _ in range(60): task.delay()"
        subprocess.run([sys.executable, "-c", send], cwd=tmp_path, check=True, timeout=PATIENCE)

        def page() -> str:
            dumped = subprocess.run(
                python("qbus._command", "dump", "-b", bus), capture_output=True, text=True
            )
            return dumped.stdout

        until("all tasks are done", lambda: value(page(), 'requests_total{path="task"}') == 60)
        until("all are observed", lambda: value(page(), "request_seconds_count") == 60)
