"""Functions that were given where the name of one is wanted: a child imports its body, nothing else
can be handed to it.
"""

import sys
from pathlib import Path
from typing import Any

from harness.errors import UsageError


def as_text(value: object, root: Path, path: object = None) -> object:
    """The value itself, if it is no function. Raises UsageError, with the text to write, for
    whatever can be called.

    ``path`` is the folder that the test names for its packages.
    """
    if not callable(value):
        return value
    raise UsageError(
        f"{_called(value)} is a function, and each child has to import its own; "
        f"{_advice(value, root, path)}"
    )


def _called(value: Any) -> str:  # noqa: ANN401 - whatever was passed
    return str(
        getattr(value, "__qualname__", None) or f"an object of the type {type(value).__qualname__}"
    )


def _advice(value: object, root: Path, path: object) -> str:
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not name.isidentifier():
        return (
            "define it with def at the top level of a module, and write its name, as "
            "'package.module:function'"
        )
    text, folder = f"{module}:{name}", _folder_below(module, root)
    if not folder or (isinstance(path, str) and Path(path) == Path(folder)):
        return f"write its name, {text!r}"
    return f"write its name, {text!r}, with path={folder!r}"


def _folder_below(module: str, root: Path) -> str:
    """The folder that the module is imported from, from the root on; empty where that is the root,
    or lies elsewhere.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not Path(file).is_relative_to(root):
        return ""
    parts = module.count(".") + (Path(file).name == "__init__.py")
    folder = (
        str(Path(file).parents[parts].relative_to(root)) if len(Path(file).parents) > parts else ""
    )
    return "" if folder == "." or "site-packages" in folder else folder
