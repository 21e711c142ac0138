"""Put on PYTHONPATH by `qbus run`: installs the shim, then does what was to be done without it."""


def _run() -> None:
    import importlib.machinery
    import importlib.util
    import os
    import sys

    here = os.path.dirname(os.path.abspath(__file__))
    try:
        from qbus.shim import install

        install()
    except ImportError as error:
        # Of another interpreter, that qbus is not installed for: the program runs without.
        if os.environ.get("QBUS_SHIM_VERBOSE"):
            print(f"qbus: no shim in {sys.executable}: {error}", file=sys.stderr)
    others = [place for place in sys.path if os.path.abspath(place or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


_run()
