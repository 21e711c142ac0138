"""A worker process in Python: it answers requests, and says how it fares.

    qbus agg -b inference &
    QBUS=inference python worker.py 1000
    qbus dump -b inference --match 'request*'

Start as many as you like: their counters and histograms add up. Without QBUS it has a bus of its
own, and prints the page itself.
"""

import os
import sys
import time

import qbus

REQUESTS = qbus.Counter("requests_total", "Requests answered.", ["endpoint"])
SECONDS = qbus.Histogram(
    "request_seconds",
    "Time from request to answer.",
    unit="seconds",
    buckets=[0.0005, 0.001, 0.0025, 0.005, 0.01],
)
IN_FLIGHT = qbus.Gauge("requests_in_flight", "Requests that are being answered.")


@SECONDS.time()
@IN_FLIGHT.track_inprogress()
def predict(request: int) -> None:
    time.sleep(0.0001 + request % 10 * 0.00005)


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    # Looked up once: what remains of it is one increment.
    answered = REQUESTS.labels("/predict")
    for request in range(requests):
        predict(request)
        answered.inc()
    if not os.environ.get("QBUS"):
        print(qbus.generate_latest().decode(), end="")


if __name__ == "__main__":
    main()
