"""Pages from an ASGI server."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from .registry import REGISTRY, Collector


def make_asgi_app(
    registry: Collector = REGISTRY, disable_compression: bool = False
) -> Callable[..., Any]:
    """An ASGI application that serves the page of a registry.

    >>> app = make_asgi_app()  # for app.mount("/metrics", app) of a web framework, say
    """
    from .exposition import _bake_output

    async def prometheus_app(
        scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        assert scope.get("type") == "http"

        def header(wanted: str) -> str:
            pairs = scope.get("headers") or ()
            return ",".join(
                value.decode() for name, value in pairs if name.decode().lower() == wanted
            )

        status, headers, output = _bake_output(
            registry,
            header("accept"),
            header("accept-encoding"),
            parse_qs(scope.get("query_string", b"").decode()),
            disable_compression,
        )
        if (await receive()).get("type") == "http.request":
            start = {
                "type": "http.response.start",
                "status": int(status.split(" ")[0]),
                "headers": [tuple(part.encode() for part in pair) for pair in headers],
            }
            await send(start)
            await send({"type": "http.response.body", "body": output})

    return prometheus_app
