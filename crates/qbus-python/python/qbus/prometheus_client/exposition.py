"""Pages: as text, over HTTP, to a file, to a push gateway."""

import base64
import gzip
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn
from typing import Any, Optional, Union
from urllib.error import HTTPError
from urllib.parse import parse_qs, quote_plus, urlparse
from urllib.request import (
    BaseHandler,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    Request,
    build_opener,
)
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from ._text import generate_latest
from .openmetrics import exposition as openmetrics
from .registry import REGISTRY, Collector
from .registry import CollectorRegistry as CollectorRegistry
from .utils import floatToGoString as floatToGoString
from .utils import parse_version

try:
    import snappy  # type: ignore[import-not-found,unused-ignore]

    SNAPPY_AVAILABLE = True
except ImportError:
    snappy = None
    SNAPPY_AVAILABLE = False

__all__ = (
    "CONTENT_TYPE_LATEST",
    "CONTENT_TYPE_PLAIN_0_0_4",
    "CONTENT_TYPE_PLAIN_1_0_0",
    "MetricsHandler",
    "delete_from_gateway",
    "generate_latest",
    "instance_ip_grouping_key",
    "make_asgi_app",
    "make_wsgi_app",
    "push_to_gateway",
    "pushadd_to_gateway",
    "start_http_server",
    "start_wsgi_server",
    "write_to_textfile",
)

# It is called as prometheus_client calls it, by whoever pickles it.
generate_latest.__module__ = __name__

CONTENT_TYPE_PLAIN_0_0_4 = "text/plain; version=0.0.4; charset=utf-8"
CONTENT_TYPE_PLAIN_1_0_0 = "text/plain; version=1.0.0; charset=utf-8"
CONTENT_TYPE_LATEST = CONTENT_TYPE_PLAIN_1_0_0
_Headers = list[tuple[str, str]]
_Handler = Callable[..., Callable[[], None]]

def _parameter(tokens: Iterable[str], wanted: str) -> str:
    for token in tokens:
        key, equals, value = token.strip().partition("=")
        if equals and key == wanted:
            return value
    return ""


def _get_version(accept_header: list[str]) -> str:
    return _parameter(accept_header, "version")


def _get_escaping(accept_header: list[str]) -> str:
    found = _parameter(accept_header, "escaping")
    known = (openmetrics.ALLOWUTF8, openmetrics.DOTS, openmetrics.VALUES)
    return found if found in known else openmetrics.UNDERSCORES


def choose_encoder(accept_header: Optional[str]) -> tuple[Callable[[Any], bytes], str]:
    """How to write a page for that Accept header, and its content type."""
    for accepted in (accept_header or "").split(","):
        tokens = accepted.split(";")
        kind, version, escaping = tokens[0].strip(), _get_version(tokens), _get_escaping(tokens)
        is_new = bool(version) and parse_version(version) >= (1, 0, 0)
        if kind == "application/openmetrics-text":
            if not version:
                encoder = partial(
                    openmetrics.generate_latest, escaping=openmetrics.UNDERSCORES, version="1.0.0"
                )
                return encoder, openmetrics.CONTENT_TYPE_LATEST
            if is_new:
                encoder = partial(openmetrics.generate_latest, escaping=escaping, version=version)
                described = f"version={version}; charset=utf-8; escaping={escaping}"
                return encoder, f"application/openmetrics-text; {described}"
        elif kind == "text/plain" and is_new:
            text = partial(generate_latest, escaping=escaping)
            return text, f"{CONTENT_TYPE_LATEST}; escaping={escaping}"
    return generate_latest, CONTENT_TYPE_PLAIN_0_0_4


def gzip_accepted(accept_encoding_header: Optional[str]) -> bool:
    """Whether a compressed page is accepted."""
    accepted = (accept_encoding_header or "").split(",")
    return any(token.split(";")[0].strip().lower() == "gzip" for token in accepted)


def _bake_output(
    registry: Any,
    accept_header: Optional[str],
    accept_encoding_header: Optional[str],
    params: dict[str, list[str]],
    disable_compression: bool,
) -> tuple[str, _Headers, bytes]:
    encoder, content_type = choose_encoder(accept_header)
    if "name[]" in params:
        registry = registry.restricted_registry(params["name[]"])
    output = encoder(registry)
    headers = [("Content-Type", content_type)]
    if not disable_compression and gzip_accepted(accept_encoding_header):
        output = gzip.compress(output)
        headers.append(("Content-Encoding", "gzip"))
    return "200 OK", headers, output


def make_wsgi_app(
    registry: Collector = REGISTRY, disable_compression: bool = False
) -> Callable[..., Any]:
    """A WSGI application that serves the page of a registry.

    >>> from wsgiref.util import setup_testing_defaults
    >>> request = {}
    >>> setup_testing_defaults(request)
    >>> page = make_wsgi_app()(request, lambda status, headers: print(status))
    200 OK
    """

    def prometheus_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        method = environ["REQUEST_METHOD"]
        status, headers, output = "200 OK", [], b""  # type: tuple[str, _Headers, bytes]
        if method == "OPTIONS":
            headers = [("Allow", "OPTIONS,GET")]
        elif method != "GET":
            status, headers = "405 Method Not Allowed", [("Allow", "OPTIONS,GET")]
            output = f"# HTTP {status}: {method}; use OPTIONS or GET\n".encode()
        elif environ["PATH_INFO"] != "/favicon.ico":
            status, headers, output = _bake_output(
                registry,
                environ.get("HTTP_ACCEPT"),
                environ.get("HTTP_ACCEPT_ENCODING"),
                parse_qs(environ.get("QUERY_STRING", "")),
                disable_compression,
            )
        start_response(status, headers)
        return [output]

    return prometheus_app


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class ThreadingWSGIServer(ThreadingMixIn, WSGIServer):
    """A thread for each request."""

    daemon_threads = True


def _get_best_family(address: str, port: int) -> tuple[Any, str]:
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    return family, str(place[0])


def _get_ssl_ctx(
    certfile: str,
    keyfile: str,
    protocol: int,
    cafile: Optional[str] = None,
    capath: Optional[str] = None,
    client_auth_required: bool = False,
    tls_min_version: Optional[ssl.TLSVersion] = None,
    tls_max_version: Optional[ssl.TLSVersion] = None,
) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol=protocol)

    def load(what: str, load: Callable[[], None]) -> None:
        try:
            load()
        except OSError as error:
            raise type(error)(f"Cannot load {what}: {error}") from error

    if cafile is not None or capath is not None:
        what = f"CA certificate chain from file {cafile!r} or directory {capath!r}"
        load(what, lambda: context.load_verify_locations(cafile, capath))
    else:
        load(
            "default CA certificate chain",
            lambda: context.load_default_certs(ssl.Purpose.CLIENT_AUTH),
        )
    if client_auth_required:
        context.verify_mode = ssl.CERT_REQUIRED
    what = f"server certificate file {certfile!r} or its private key file {keyfile!r}"
    load(what, lambda: context.load_cert_chain(certfile=certfile, keyfile=keyfile))
    if tls_min_version is not None:
        context.minimum_version = tls_min_version
    if tls_max_version is not None:
        context.maximum_version = tls_max_version
    return context


def start_wsgi_server(
    port: int,
    addr: str = "0.0.0.0",
    registry: Collector = REGISTRY,
    certfile: Optional[str] = None,
    keyfile: Optional[str] = None,
    client_cafile: Optional[str] = None,
    client_capath: Optional[str] = None,
    protocol: int = ssl.PROTOCOL_TLS_SERVER,
    client_auth_required: bool = False,
    tls_min_version: Optional[ssl.TLSVersion] = None,
    tls_max_version: Optional[ssl.TLSVersion] = None,
) -> tuple[WSGIServer, threading.Thread]:
    """Serves the page of a registry from a daemon thread.

    >>> server, thread = start_wsgi_server(0, "127.0.0.1")
    >>> server.shutdown(); server.server_close(); thread.join()
    """

    class TmpServer(ThreadingWSGIServer):
        pass

    TmpServer.address_family, addr = _get_best_family(addr, port)
    app = make_wsgi_app(registry)
    httpd = make_server(addr, port, app, TmpServer, handler_class=_SilentHandler)
    if certfile and keyfile:
        context = _get_ssl_ctx(
            certfile,
            keyfile,
            protocol,
            client_cafile,
            client_capath,
            client_auth_required,
            tls_min_version,
            tls_max_version,
        )
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    return httpd, thread


start_http_server = start_wsgi_server


class MetricsHandler(BaseHTTPRequestHandler):
    """A handler of http.server that serves the page of a registry.

    >>> from http.server import HTTPServer
    >>> with HTTPServer(("127.0.0.1", 0), MetricsHandler) as server:
    ...     server.server_port > 0
    True
    """

    registry: Any = REGISTRY

    def do_GET(self) -> None:
        """Answers with the page."""
        status, headers, output = _bake_output(
            self.registry,
            self.headers.get("Accept"),
            self.headers.get("Accept-Encoding"),
            parse_qs(urlparse(self.path).query),
            False,
        )
        self.send_response(int(status.split(" ")[0]))
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(output)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing."""

    @classmethod
    def factory(cls, registry: Any) -> type:
        """The handler of another registry."""
        return type(cls.__name__, (cls,), {"registry": registry})


def write_to_textfile(
    path: str,
    registry: Collector,
    escaping: str = openmetrics.ALLOWUTF8,
    tmpdir: Optional[str] = None,
) -> None:
    """Writes the page to a file, whole or not at all. ``tmpdir`` is on the same file system.

    Links are followed, and what is no regular file (a device, a pipe) is written to.

    >>> import pathlib, tempfile
    >>> from qbus.prometheus_client import CollectorRegistry, Gauge
    >>> registry = CollectorRegistry()
    >>> Gauge("backup_size_bytes", "Its size.", registry=registry).set(7)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "backup.prom")
    ...     write_to_textfile(str(path), registry)
    ...     path.read_text().splitlines()[-1]
    'backup_size_bytes 7.0'
    """
    page = generate_latest(registry, escaping)
    path = os.path.realpath(path)
    is_there = os.path.exists(path)
    if is_there and not os.path.isfile(path):
        with open(path, "wb") as file:
            file.write(page)
        return
    unique = f".{os.getpid()}.{threading.current_thread().ident}"
    place = path if tmpdir is None else os.path.join(tmpdir, os.path.basename(path))
    try:
        with open(place + unique, "wb") as file:
            file.write(page)
        if is_there:
            shutil.copymode(path, place + unique)
        # Closed by now: whoever reads the file from here on finds all of it.
        os.replace(place + unique, path)
    except Exception:
        if os.path.exists(place + unique):
            os.remove(place + unique)
        raise


class _PrometheusRedirectHandler(HTTPRedirectHandler):
    """Follows redirects with the method and the data of the request."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request:
        method = getattr(req, "method", None) or req.get_method()
        is_read = code in (301, 302, 303, 307) and method in ("GET", "HEAD")
        if not is_read and not (code in (301, 302, 303) and method in ("POST", "PUT")):
            raise HTTPError(req.full_url, code, msg, headers, fp)
        return Request(
            newurl.replace(" ", "%20"),
            data=req.data,
            headers=req.headers,
            origin_req_host=req.origin_req_host,
            unverifiable=True,
            method=method,
        )


def _make_handler(
    url: str,
    method: str,
    timeout: Optional[float],
    headers: Sequence[tuple[str, str]],
    data: bytes,
    base_handler: Union[BaseHandler, type],
) -> Callable[[], None]:
    def handle() -> None:
        request = Request(url, data=data, method=method)
        for header in headers:
            request.add_header(*header)
        answer = build_opener(base_handler).open(request, timeout=timeout)
        if answer.code >= 400:
            raise OSError(f"the push gateway answers {answer.code} {answer.msg}")

    return handle


def default_handler(
    url: str, method: str, timeout: Optional[float], headers: _Headers, data: bytes
) -> Callable[[], None]:
    """Sends over HTTP or HTTPS."""
    return _make_handler(url, method, timeout, headers, data, HTTPHandler)


def passthrough_redirect_handler(
    url: str, method: str, timeout: Optional[float], headers: _Headers, data: bytes
) -> Callable[[], None]:
    """As default_handler, and follows redirects of any method: for gateways that are trusted."""
    return _make_handler(url, method, timeout, headers, data, _PrometheusRedirectHandler)


def basic_auth_handler(
    url: str,
    method: str,
    timeout: Optional[float],
    headers: _Headers,
    data: bytes,
    username: Optional[str] = None,
    password: Optional[str] = None,
) -> Callable[[], None]:
    """As default_handler, with basic authentication."""

    def handle() -> None:
        if username is not None and password is not None:
            token = base64.b64encode(f"{username}:{password}".encode())
            headers.append(("Authorization", b"Basic " + token))  # type: ignore[arg-type]
        default_handler(url, method, timeout, headers, data)()

    return handle


def tls_auth_handler(
    url: str,
    method: str,
    timeout: Optional[float],
    headers: _Headers,
    data: bytes,
    certfile: str,
    keyfile: str,
    cafile: Optional[str] = None,
    protocol: int = ssl.PROTOCOL_TLS_CLIENT,
    insecure_skip_verify: bool = False,
) -> Callable[[], None]:
    """As default_handler, with a certificate of the client."""
    context = ssl.SSLContext(protocol=protocol)
    if cafile is not None:
        context.load_verify_locations(cafile)
    else:
        context.load_default_certs()
    if insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(certfile=certfile, keyfile=keyfile)
    return _make_handler(url, method, timeout, headers, data, HTTPSHandler(context=context))


def push_to_gateway(
    gateway: str,
    job: str,
    registry: Any,
    grouping_key: Optional[dict[str, Any]] = None,
    timeout: Optional[float] = 30,
    handler: _Handler = default_handler,
    compression: Optional[str] = None,
) -> None:
    """Replaces all metrics of a job and grouping key at a push gateway (PUT).

    >>> from qbus.prometheus_client import CollectorRegistry
    >>> def handler(url, method, timeout, headers, data):
    ...     return lambda: print(method, url)
    >>> push_to_gateway("localhost:9091", "backup", CollectorRegistry(), handler=handler)
    PUT http://localhost:9091/metrics/job/backup
    """
    _use_gateway("PUT", gateway, job, registry, grouping_key, timeout, handler, compression)


def pushadd_to_gateway(
    gateway: str,
    job: str,
    registry: Any,
    grouping_key: Optional[dict[str, Any]] = None,
    timeout: Optional[float] = 30,
    handler: _Handler = default_handler,
    compression: Optional[str] = None,
) -> None:
    """Replaces the metrics of the same names, job and grouping key at a push gateway (POST).

    >>> from qbus.prometheus_client import CollectorRegistry
    >>> def handler(url, method, timeout, headers, data):
    ...     return lambda: print(method, url)
    >>> pushadd_to_gateway("localhost:9091", "backup", CollectorRegistry(), handler=handler)
    POST http://localhost:9091/metrics/job/backup
    """
    _use_gateway("POST", gateway, job, registry, grouping_key, timeout, handler, compression)


def delete_from_gateway(
    gateway: str,
    job: str,
    grouping_key: Optional[dict[str, Any]] = None,
    timeout: Optional[float] = 30,
    handler: _Handler = default_handler,
) -> None:
    """Deletes the metrics of a job and grouping key at a push gateway (DELETE).

    >>> def handler(url, method, timeout, headers, data):
    ...     return lambda: print(method, url)
    >>> delete_from_gateway("localhost:9091", "backup", handler=handler)
    DELETE http://localhost:9091/metrics/job/backup
    """
    _use_gateway("DELETE", gateway, job, None, grouping_key, timeout, handler)


def _use_gateway(
    method: str,
    gateway: str,
    job: str,
    registry: Any,
    grouping_key: Optional[dict[str, Any]],
    timeout: Optional[float],
    handler: _Handler,
    compression: Optional[str] = None,
) -> None:
    if urlparse(gateway).scheme not in ("http", "https"):
        gateway = f"http://{gateway}"
    pairs = [("job", job), *((str(k), str(v)) for k, v in sorted((grouping_key or {}).items()))]
    path = "".join("/{}/{}".format(*_escape_grouping_key(*pair)) for pair in pairs)
    data, headers = b"", [("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)]
    if method != "DELETE":
        page = generate_latest(REGISTRY if registry is None else registry)
        data, headers = _compress_payload(page, compression)
    handler(
        url=f"{gateway.rstrip('/')}/metrics{path}",
        method=method,
        timeout=timeout,
        headers=headers,
        data=data,
    )()


def _compress_payload(data: bytes, compression: Optional[str]) -> tuple[bytes, _Headers]:
    headers = [("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)]
    if compression is None:
        return data, headers
    encoding = compression.lower()
    if encoding not in ("gzip", "snappy"):
        raise ValueError(f"Unsupported compression type: {compression}")
    headers.append(("Content-Encoding", encoding))
    if encoding == "gzip":
        return gzip.compress(data), headers
    if not SNAPPY_AVAILABLE:
        raise RuntimeError("Snappy compression requires the python-snappy package to be installed.")
    compressor = snappy.StreamCompressor()
    compressed = compressor.compress(data)
    flush = getattr(compressor, "flush", None)
    return compressed + (flush() if callable(flush) else b""), headers


def _escape_grouping_key(k: str, v: str) -> tuple[str, str]:
    if v == "":
        return f"{k}@base64", "="
    if "/" in v or " " in v:
        return f"{k}@base64", base64.urlsafe_b64encode(v.encode()).decode()
    return k, quote_plus(v)


def instance_ip_grouping_key() -> dict[str, Any]:
    """A grouping key with the address of this host as the instance.

    >>> list(instance_ip_grouping_key())
    ['instance']
    """
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect(("localhost", 0))
        return {"instance": probe.getsockname()[0]}


from .asgi import make_asgi_app  # noqa: E402
