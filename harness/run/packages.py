"""Which code the children of a run are to measure: the packages under test, and the folders that
they are taken from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
