"""The soak, short: QBUS_SOAK_SECONDS=600 makes it ten minutes, QBUS_SOAK_SEED takes the same calls
again."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from processes_scene import aggregator


def test_random_calls_of_everything_have_exact_totals(bus: str) -> None:
    seconds = os.environ.get("QBUS_SOAK_SECONDS", "5")
    seed = os.environ.get("QBUS_SOAK_SEED") or str(random.randrange(10**6))
    with aggregator(bus):
        ran = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("soak.py")), seconds, seed],
            env={**os.environ, "QBUS": bus},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (0, ""), f"seed {seed}"
    assert json.loads(ran.stdout)["processes"] >= 3
