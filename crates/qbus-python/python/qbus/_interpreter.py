"""The interpreter that this package is in: that it is the main one, and how it ends."""

import atexit
import os
import sys
from typing import Any


def _refuse_sub_interpreter() -> None:
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
    else:
        import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]
    current: Any = interpreters.get_current()
    main: Any = interpreters.get_main()
    if sys.version_info >= (3, 13):
        # Pairs of a number and who made it.
        current, main = current[0], main[0]
    if current != main:
        raise ImportError(
            "qbus cannot be imported in a sub-interpreter: import it in the main one, or run each "
            "application in a process of its own"
        )


_refuse_sub_interpreter()


def pause() -> None:
    """Does nothing: the interpreter changes threads where a function begins, if one waits for
    it."""


def prepare() -> None:
    """Gets ready for the end: to be called when all of the package is imported."""
    from qbus import _qbus
    from qbus._collector import close_in_the_end

    _qbus.prepare()
    # What is registered first runs last: whatever else runs at exit can use metrics still.
    atexit.register(_qbus.end)
    close_in_the_end()
    os.register_at_fork(after_in_child=_qbus.forked)
