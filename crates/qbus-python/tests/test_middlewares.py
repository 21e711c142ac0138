"""What people put into their web applications, over prometheus_client, as it is: each page is of
all workers."""

from pathlib import Path

import pytest
from processes_scene import until
from test_servers import ask, free_port, gunicorn, has, is_up, running, uvicorn, value

FASTAPI = """
from fastapi import FastAPI
from prometheus_fastapi_instrumentator import Instrumentator, metrics

application = FastAPI()


@application.get("/item/{number}")
def item(number: int):
    return {"number": number}


instrumentator = Instrumentator(should_instrument_requests_inprogress=True)
instrumentator.add(metrics.latency(buckets=(0.1, 60))).add(metrics.requests())
instrumentator.instrument(application).expose(application)
"""

STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette_exporter import PrometheusMiddleware, handle_metrics

routes = [Route("/item/{n}", lambda _: PlainTextResponse("")), Route("/metrics", handle_metrics)]
application = Starlette(routes=routes)
application.add_middleware(PrometheusMiddleware, prefix="served", group_paths=True, buckets=[60])
"""

FLASK = """
from flask import Flask
from prometheus_flask_exporter import PrometheusMetrics

application = Flask(__name__)
metrics = PrometheusMetrics(application)
metrics.info("built", "What was built.", version="1.0")


@application.route("/item/<n>")
@metrics.counter("items", "Items.", labels={"status": lambda answer: answer.status_code})
@metrics.histogram("item_seconds", "Their time.", buckets=(60,))
@metrics.gauge("items_in_progress", "Items in progress.")
def item(n):
    return n
"""

DJANGO = """
import django
from django.conf import settings

middleware = "django_prometheus.middleware.Prometheus{}Middleware"
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="none",
    INSTALLED_APPS=["django_prometheus"],
    MIDDLEWARE=[middleware.format("Before"), middleware.format("After")],
    CACHES={"default": {"BACKEND": "django_prometheus.cache.backends.locmem.LocMemCache"}},
)
django.setup()

from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import include, path


def item(request, n):
    cache.get(str(n))
    return HttpResponse("")


urlpatterns = [path("item/<int:n>", item), path("", include("django_prometheus.urls"))]
application = get_wsgi_application()
"""

#: How often it is asked.
TIMES = 40


@pytest.mark.parametrize(
    ("server", "modules", "application", "series"),
    [
        (
            uvicorn,
            ["fastapi", "prometheus_fastapi_instrumentator"],
            FASTAPI,
            [
                'http_requests_total{handler="/item/{number}",method="GET",status="2xx"}',
                'http_request_duration_seconds_count{handler="/item/{number}",method="GET",'
                'status="2xx"}',
            ],
        ),
        (
            uvicorn,
            ["starlette", "starlette_exporter"],
            STARLETTE,
            [
                'served_requests_total{app_name="starlette",method="GET",path="/item/{n}",'
                'status_code="200"}',
                'served_request_duration_seconds_count{app_name="starlette",method="GET",'
                'path="/item/{n}",status_code="200"}',
            ],
        ),
        (
            gunicorn,
            ["flask", "prometheus_flask_exporter"],
            FLASK,
            ['items_total{status="200"}', "item_seconds_count"],
        ),
        (
            gunicorn,
            ["django", "django_prometheus"],
            DJANGO,
            [
                'django_http_requests_total_by_view_transport_method_total{method="GET",'
                'transport="http",view="app.item"}',
                'django_cache_get_total{backend="locmem"}',
            ],
        ),
    ],
    ids=["fastapi", "starlette", "flask", "django"],
)
def test_a_middleware(
    server: object,
    modules: list[str],
    application: str,
    series: list[str],
    bus: str,
    tmp_path: Path,
) -> None:
    assert callable(server)
    # A server is called as its module is.
    needed = [server.__name__, *modules]
    for module in needed:
        if not has(module):
            pytest.skip(f"{module} is not installed")
    (tmp_path / "app.py").write_text(application)
    port = free_port()
    with running(bus, tmp_path, server(port)) as process:
        until("it is up", lambda: is_up(process, port))
        for number in range(TIMES):
            ask(port, f"/item/{number}")
        # An answer may be out before its time is observed.
        for one in series:
            until(f"all are in {one}", lambda: value(ask(port, "/metrics"), one) == TIMES)
        pages = [ask(port, "/metrics") for _ in range(5)]
        assert [value(page, one) for page in pages for one in series] == [TIMES] * len(series) * 5
