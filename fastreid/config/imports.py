"""Modules and files of the user's own, which register what a configuration then names."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from fastreid.utils.errors import UserError

_FILES: dict[str, ModuleType] = {}  # imported files by their absolute paths


def absolute_imports(modules: Sequence[str], folder: Path) -> list[str]:
    """Return `modules` with absolute paths in place of Python files that lie relative to `folder`."""
    return [
        os.path.abspath(folder / name) if _is_file(name) and (folder / name).is_file() else name
        for name in modules
    ]


def is_imported(module: str) -> bool:
    """Tell whether the module or file is imported already."""
    return os.path.abspath(module) in _FILES if _is_file(module) else module in sys.modules


def import_user_modules(modules: Sequence[str], source: str) -> None:
    """Import modules (``my_package.my_net``) and files (``my_net.py``), once each.

    Modules are also found in the current folder.

    Args:
        source: who named them, for messages.

    Raises:
        UserError: for one that is not there or fails.
    """
    for name in modules:
        if is_imported(name):
            continue
        try:
            _import_file(name) if _is_file(name) else _import_module(name)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"IMPORTS {name} ({source}) cannot be imported: {type(error).__name__}: {reason}",
                "name a module that Python finds, or the path of a .py file",
            ) from error


def _is_file(name: str) -> bool:
    return str(name).endswith(".py")


def _import_module(name: str) -> None:
    sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(name)
    finally:
        sys.path.remove(os.getcwd())


def _import_file(path: str) -> None:
    path = os.path.abspath(path)
    name = f"fastreid_imports.{Path(path).stem}_{len(_FILES)}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _FILES[path] = module
