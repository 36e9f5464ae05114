"""What belongs to this harness: how its own modules are started, and which packages came along with it."""

import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from harness.errors import UsageError

HOME = Path(__file__).resolve().parents[2]
"""The folder that this harness was imported from: the root of its checkout, or site-packages."""
_DISTRIBUTION = "ptycho-memory"
_PACKAGE = "harness"
# Neither the working directory nor PYTHONPATH may put another package of the same name in its place (-P leaves the first
# out, the front of sys.path beats the second). Once it is imported, its folder has no place of its own any more.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import harness; del sys.path[0]; "
    "from importlib import import_module; sys.exit(import_module(sys.argv.pop(1)).main())"
)


def own_command(module: str, *arguments: str) -> list[str]:
    """The command that runs ``main()`` of a module of ours in a fresh interpreter, whatever its working directory holds."""
    return [sys.executable, "-P", "-c", _START, str(HOME), module, *arguments]


@cache
def packages_that_came_along() -> tuple[str, ...]:
    """Names of the packages that lie beside this one because they came with it, in an installation or in a checkout.

    Raises UsageError where nothing tells which they are.
    """
    names = sorted(set(_of_installation() or _of_checkout()) - {_PACKAGE})
    if not names and not _is_checkout():
        raise UsageError(
            f"{_PACKAGE} was imported from {HOME}, where no list of installed files tells what came with it; "
            f"install it with pip (pip install {_DISTRIBUTION})"
        )
    return tuple(names)


def packages_that_would_shadow(root: Path) -> tuple[str, ...]:
    """Those that came along and that Python would take instead of a folder of ``root``, of the same name.

    That is so where the folder has no __init__.py: such a package stands behind every one that has it, wherever that lies.
    """
    if root.resolve() == HOME:
        return ()
    names = sorted(set(_of_installation() or _of_checkout()) - {_PACKAGE})
    return tuple(name for name in names if not (root / name / "__init__.py").exists() and _has_code(root / name))


def _has_code(folder: Path) -> bool:
    return any(True for pattern in ("*.py", "*/*.py") for _ in folder.glob(pattern))


def _of_installation() -> set[str]:
    """Packages of the distribution whose files these are; none in an editable installation, whose files lie elsewhere."""
    try:
        files = distribution(_DISTRIBUTION).files or []
    except PackageNotFoundError:
        return set()
    packages = {file.parts[0]: Path(str(file.locate())) for file in files if len(file.parts) == 2 and file.name == "__init__.py"}
    if _PACKAGE not in packages or packages[_PACKAGE].resolve().parents[1] != HOME:
        return set()
    return set(packages)


def _of_checkout() -> Iterator[str]:
    if _is_checkout():
        yield from (path.parent.name for path in HOME.glob("*/__init__.py"))


def _is_checkout() -> bool:
    return (HOME / "pyproject.toml").exists()
