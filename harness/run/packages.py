"""Which code the children of a run are to measure: the packages under test, and the folders that
they are taken from.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from harness.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Packages under test, by name, and the one folder that each may be imported from; none:
    whatever Python finds.
    """

    packages: Mapping[str, Path] = field(default_factory=dict)

    @property
    def import_paths(self) -> tuple[Path, ...]:
        """The folders, each once."""
        return tuple(dict.fromkeys(self.packages.values()))


@dataclass(frozen=True, slots=True)
class Subject:
    """One package under test as it lies in a repository: ``"mypkg"``, ``"src/mypkg"`` or
    ``"tools/single.py"``.
    """

    path: PurePosixPath

    @property
    def name(self) -> str:
        """What it is imported as."""
        return self.path.stem if self.path.suffix == ".py" else self.path.name

    def in_folder(self, root: Path) -> Path:
        """The folder that has to come first for it to be imported, of a tree that starts at
        ``root``.
        """
        return root / self.path.parent


def read_subjects(texts: Sequence[str]) -> tuple[Subject, ...]:
    """The packages that an option or a file names, each once.

    Raises UsageError for a path that leaves the repository, that Python cannot import, or two of
    one name.
    """
    found: dict[str, Subject] = {}
    for text in texts:
        subject = Subject(PurePosixPath(text.strip()))
        if (
            not subject.name.isidentifier()
            or subject.path.is_absolute()
            or ".." in subject.path.parts
        ):
            raise UsageError(
                f"memory_subject {text!r} is not a package of the repository; write its "
                "path from the root, as mypkg or src/mypkg"
            )
        if found.setdefault(subject.name, subject) != subject:
            raise UsageError(
                f"memory_subject names {found[subject.name].path} and {subject.path}, two "
                "packages of one name; keep one"
            )
    return tuple(found.values())


def code_in(root: Path, subjects: Sequence[Subject]) -> Code:
    """The subjects as they lie in a tree that starts at ``root``."""
    return Code(packages={subject.name: subject.in_folder(root).resolve() for subject in subjects})


# What belongs to this harness: how its own modules are started, and which packages of this
# project lie beside it.


HOME = Path(__file__).resolve().parents[2]
"""The folder that this harness was imported from: the root of its checkout, or site-packages."""
_DISTRIBUTION = "ptycho-memory"
_PACKAGE = "harness"
_CONTAINER = "ptycho-lazy"
"""The project's other distribution (ptycho/pyproject.toml). Its package has a name that others have
too."""
# Neither the working directory nor PYTHONPATH may put another package of the same name in its place
# (-P leaves the first out, the front of sys.path beats the second). Once it is imported, its folder
# has no place of its own any more.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import harness; del sys.path[0]; "
    "from importlib import import_module; sys.exit(import_module(sys.argv.pop(1)).main())"
)


def own_command(module: str, *arguments: str) -> list[str]:
    """The command that runs ``main()`` of a module of ours in a fresh interpreter, whatever its
    working directory holds.
    """
    return [sys.executable, "-P", "-c", _START, str(HOME), module, *arguments]


@cache
def packages_that_came_along() -> tuple[str, ...]:
    """Names of this project's packages that lie beside this one: in a checkout all of them, in an
    installation the container's.

    Raises UsageError where this one lies in neither.
    """
    found = _beside()
    if found is None:
        raise UsageError(
            f"{_PACKAGE} was imported from {HOME}, which is neither a checkout nor an "
            "installation, so that nothing says which packages came with it; install it "
            f"with pip (pip install {_DISTRIBUTION})"
        )
    return tuple(sorted(found))


def packages_that_would_shadow(root: Path) -> tuple[str, ...]:
    """Those that came along and that Python would take instead of a folder of ``root``, of the same
    name.

    That is so where the folder has no __init__.py: such a package stands behind every one that has
    it, wherever that lies.
    """
    if root.resolve() == HOME:
        return ()
    names = sorted(_beside() or ())
    return tuple(
        name
        for name in names
        if not (root / name / "__init__.py").exists() and _has_code(root / name)
    )


def _has_code(folder: Path) -> bool:
    return any(True for pattern in ("*.py", "*/*.py") for _ in folder.glob(pattern))


def _beside() -> set[str] | None:
    """None where nothing says what came with this package."""
    if _PACKAGE in _installed(_DISTRIBUTION):
        return _installed(_CONTAINER)
    if (HOME / "pyproject.toml").exists():
        return {path.parent.name for path in HOME.glob("*/__init__.py")} - {_PACKAGE}
    return None


def _installed(name: str) -> set[str]:
    """Packages that a distribution has put beside this one; none of an editable installation, whose
    files lie elsewhere.
    """
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return set()
    folders = [
        Path(str(file.locate())).parent
        for file in files
        if len(file.parts) == 2 and file.name == "__init__.py"
    ]
    return {folder.name for folder in folders if folder.resolve().parent == HOME}
