"""The ``qbus`` command of this package."""

import os
import shutil
import signal
import sys

from qbus._qbus import run_command
from qbus.shim import FOLDER


def main() -> int:
    """Runs the command as it was typed; its exit code."""
    # The command ends by itself on an interrupt, or tidies up first: Python has no part in that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    typed = sys.argv
    os.environ["QBUS_SHIM"] = FOLDER
    program = shutil.which(typed[0]) or os.path.abspath(typed[0])
    return run_command(program, [os.path.basename(typed[0]), *typed[1:]])


if __name__ == "__main__":
    sys.exit(main())
