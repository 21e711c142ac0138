"""The soak, short: QBUS_SOAK_SECONDS=600 makes it ten minutes, QBUS_SOAK_SEED takes the same calls again."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path


def test_random_calls_of_everything_have_exact_totals(bus: str) -> None:
    seconds = os.environ.get("QBUS_SOAK_SECONDS", "5")
    seed = os.environ.get("QBUS_SOAK_SEED") or str(random.randrange(10**6))
    aggregator = subprocess.Popen(
        [sys.executable, "-m", "qbus._command", "agg", "-b", bus, "--no-host", "--no-gpu"],
        stderr=subprocess.PIPE,
    )
    try:
        assert aggregator.stderr is not None
        assert b"aggregating" in aggregator.stderr.readline()
        ran = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("soak.py")), seconds, seed],
            env={**os.environ, "QBUS": bus},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        aggregator.kill()
        aggregator.wait()
        aggregator.stderr.close()
    assert (ran.returncode, ran.stderr) == (0, ""), f"seed {seed}"
    assert json.loads(ran.stdout)["processes"] >= 3
