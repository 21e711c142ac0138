"""Has a program that imports prometheus_client get qbus.prometheus_client, unmodified.

``FOLDER`` on PYTHONPATH does that, in the process and in all that it starts: `qbus run` puts it
there. The file ``sitecustomize.py`` in it calls install(), and then the sitecustomize that would
have run without.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import FunctionType, ModuleType
from typing import Any, Optional

#: What is to stand on PYTHONPATH.
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "site")
_OURS = "qbus.prometheus_client"
_THEIRS = "prometheus_client"


class _Loader(importlib.abc.Loader):
    """Gives a module of this package under the name of theirs."""

    #: Whether it has given the package.
    _has_given = False

    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        if self._name == _OURS:
            # Who has taken it out of sys.modules, as tests do, wants it as it is at first.
            if _Loader._has_given and f"{_THEIRS}.registry" not in sys.modules:
                for name in [name for name in sys.modules if _is_ours(name)]:
                    del sys.modules[name]
            _Loader._has_given = True
        module = importlib.import_module(self._name)
        # It keeps the spec under which it was loaded first.
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
        _name_members()


def _is_ours(name: str) -> bool:
    return name == _OURS or name.startswith(f"{_OURS}.")


def _name_members() -> None:
    """Has classes and functions say that they are theirs, as logs and pickles have it; and that is
    where they are found, for who looks without importing (cloudpickle)."""
    for name, module in list(sys.modules.items()):
        if _is_ours(name):
            sys.modules.setdefault(_THEIRS + name[len(_OURS) :], module)
            for found in list(vars(module).values()):
                if isinstance(found, (type, FunctionType)) and found.__module__ == name:
                    found.__module__ = _THEIRS + name[len(_OURS) :]


class _Finder(importlib.abc.MetaPathFinder):
    """Answers for prometheus_client and all of its modules."""

    def find_spec(
        self, fullname: str, path: Optional[Sequence[str]], target: Any = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        if fullname != _THEIRS and not fullname.startswith(f"{_THEIRS}."):
            return None
        name = _OURS + fullname[len(_THEIRS) :]
        try:
            found = importlib.util.find_spec(name)
        except ImportError:
            return None
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return importlib.machinery.ModuleSpec(fullname, _Loader(name), is_package=is_package)


def install() -> None:
    """Puts the finder before all others, once. What was imported before stays as it is."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
