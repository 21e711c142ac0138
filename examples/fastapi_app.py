"""An inference server with a page of metrics for Prometheus.

    pip install fastapi uvicorn
    qbus agg -b inference &
    QBUS=inference uvicorn fastapi_app:app --workers 4

Any worker answers /metrics for all of them: the page is that of the bus. Without QBUS each worker
would show its own numbers, so name a bus as soon as there are two.
"""

import time

import qbus
from fastapi import FastAPI, Response

REQUESTS = qbus.Counter("requests_total", "Requests answered.", ["endpoint"])
SECONDS = qbus.Histogram("request_seconds", "Time from request to answer.", unit="seconds")
TOKENS = qbus.Counter("tokens_total", "Tokens generated.")

app = FastAPI()


@app.get("/predict")
def predict(prompt: str) -> dict[str, int]:
    with SECONDS.time():
        time.sleep(0.001)
        tokens = len(prompt.split())
    TOKENS.inc(tokens)
    REQUESTS.labels("/predict").inc()
    return {"tokens": tokens}


@app.get("/metrics")
def metrics() -> Response:
    return Response(qbus.generate_latest(), media_type="text/plain; version=0.0.4; charset=utf-8")
