"""Nothing that is called again and again leaves memory behind.

QBUS_GROWTH_CALLS=1000000 makes it a million calls of each that is cheap.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from processes_scene import aggregator

WORKER = Path(__file__).parent / "workers" / "growing.py"
CALLS = os.environ.get("QBUS_GROWTH_CALLS", "20000")
#: What caches may still come to; and of many calls less than every tenth one leaves a block, or 8
#: bytes.
BLOCKS, BYTES = 300, 64 * 1024


def test_nothing_grows(bus: str) -> None:
    with aggregator(bus):
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", str(WORKER), CALLS],
            env={**os.environ, "QBUS": bus},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (0, "")
    found = json.loads(ran.stdout)
    assert len(found) >= 60
    grown = {
        name: (times, blocks, heap, *rest)
        for name, (times, blocks, heap, *rest) in found.items()
        if blocks > max(BLOCKS, times // 10) or heap > max(BYTES, times * 8) or max(rest) > 0
    }
    assert grown == {}, (
        "calls; blocks of Python, bytes of the heap, descriptors, threads and files that they left"
    )
