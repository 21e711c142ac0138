"""Put on PYTHONPATH by `qbus run`: installs the shim, then does what was to be done without it."""


def _run() -> None:
    import importlib.machinery
    import importlib.util
    import os
    import sys

    here = os.path.dirname(os.path.abspath(__file__))

    def load(name: str, path: str) -> None:
        # What is in the folder beside it is not for the program to find.
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise

    try:
        if importlib.util.find_spec("qbus") is None:
            # Another environment than the one that qbus is installed in: it needs nothing else.
            load("qbus", os.path.join(os.path.dirname(os.path.dirname(here)), "__init__.py"))
        from qbus.shim import install

        install()
    except (ImportError, SyntaxError) as error:
        # Of an interpreter that qbus is not built for: the program runs without.
        if os.environ.get("QBUS_SHIM_VERBOSE"):
            print(f"qbus: no shim in {sys.executable}: {error}", file=sys.stderr)
    # Another's that comes before runs this one: only those after it are left.
    places = [os.path.abspath(place or ".") for place in sys.path]
    later = sys.path[places.index(here) + 1 :] if here in places else sys.path
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", later)
    if spec is not None and spec.origin is not None:
        load("sitecustomize", spec.origin)


_run()
