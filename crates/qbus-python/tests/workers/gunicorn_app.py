"""An application that counts its requests, and shows the total."""

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import stage  # noqa: F401

import qbus

requests = qbus.Counter("requests", "Requests served.", ["path"])
seconds = qbus.Summary("request_seconds", "How long they took.")


def application(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environment["PATH_INFO"]
    with seconds.time():
        requests.labels(path).inc()
    total = requests_total() if path == "/total" else None
    body = json.dumps({"pid": os.getpid(), "total": total}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def requests_total() -> float:
    """Of all workers."""
    return qbus.snapshot().get("requests_total", {"path": "/"}).value
