"""What the scripts beside it share. Each is a program of its own, which a test of test_processes.py
runs, asks what it saw, and tells to go on.
"""

import json
import os
import sys
from typing import Any

#: Seconds: longer than anything takes on a busy machine.
PATIENCE = 60


def _note_pid() -> None:
    # The test looks for what any of the processes left behind.
    file = os.open(os.environ["STAGE_PIDS"], os.O_WRONLY | os.O_APPEND)
    os.write(file, f"{os.getpid()}\n".encode())
    os.close(file)


_note_pid()
os.register_at_fork(after_in_child=_note_pid)


def show(**found: Any) -> None:
    """Tells the test."""
    print(json.dumps(found), flush=True)


def pause() -> None:
    """Waits for the test."""
    sys.stdin.readline()
