"""The pages, found where they are: inside this package in an installation, beside it in the
repository.

Nobody else's package of the name ``reports`` can come in their place, nor is one replaced: here
they are ``harness.reports``.
"""

import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from reports.annotate import annotate
    from reports.writing import write_outputs
else:

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if _NAME not in sys.modules:
            _load(Path(__file__).parent)
        return getattr(import_module(f"{_NAME}.{_MODULES[name]}"), name)


__all__ = ["annotate", "write_outputs"]

_MODULES = {"annotate": "annotate", "write_outputs": "writing"}
"""Which module of theirs has each: loaded when it is asked for, because matplotlib and jinja2 come
with it."""
_FOLDER = "reports"
_NAME = f"harness.{_FOLDER}"


def _load(home: Path) -> None:
    """The package of the pages, as a part of this one. Raises UsageError where there is none."""
    file = next(
        (
            path
            for path in (home / _FOLDER / "__init__.py", home.parent / _FOLDER / "__init__.py")
            if path.exists()
        ),
        None,
    )
    spec = file and importlib.util.spec_from_file_location(
        _NAME, file, submodule_search_locations=[str(file.parent)]
    )
    if not spec or spec.loader is None:
        raise UsageError(
            f"{home} has no pages, neither in it nor beside it; install the project with pip"
        )
    package = sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
