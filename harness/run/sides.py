"""Two codes measured in one run: ``now``, and what it is compared with, ``then``, in a run
directory inside the other's.
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from harness.errors import RunDirectoryError, UsageError
from harness.run.packages import Code, Subject, code_in, read_subjects
from harness.run.revisions import Revision, unpack_revision

THEN_FOLDER = "then"
"""The run directory of the earlier code, inside that of the later."""
REVISIONS_FOLDER = Path("artifacts", "revisions")
"""Where unpacked revisions are kept, by commit, under the project's root."""

_LARGEST_READ_BYTES = 16 << 20
"""Chosen: far more than any file of code; of larger ones, which are data, the size has to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two: which code it is, and where its packages under test lie."""

    asked: str
    """The revision as the user named it; empty for the working tree."""
    commit: str
    """Of the revision; empty for the working tree."""
    date: str
    title: str
    """First line of the commit's message."""
    folder: str
    """Root of the tree."""
    subjects: tuple[str, ...]
    """The packages under test, by their paths from there."""
    content: Mapping[str, str]
    """A checksum of all files of each package, by its name: equal ones are equal code."""
    left_empty: tuple[str, ...] = ()
    """Submodules in the packages whose files are not there, because they are in repositories of
    their own."""

    @property
    def code(self) -> Code:
        """Where its children take the packages from, and from nowhere else."""
        return code_in(Path(self.folder), read_subjects(self.subjects))

    def to_json(self) -> dict[str, Any]:
        """As run.json has it."""
        packages = {name: str(folder) for name, folder in self.code.packages.items()}
        return {**dataclasses.asdict(self), "content": dict(self.content), "packages": packages}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """What ``to_json`` wrote. Raises RunDirectoryError where it is something else."""
        try:
            values = {"left_empty": (), **found}
            values = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        except (KeyError, TypeError) as error:
            raise RunDirectoryError(
                f"run.json does not say which code was compared ({error}); start a new run"
            ) from error
        return cls(
            **{
                **values,
                "subjects": tuple(values["subjects"]),
                "left_empty": tuple(values["left_empty"]),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What a run compares."""

    now: Side
    then: Side

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` reads it."""
        return {"now": self.now.to_json(), "then": self.then.to_json()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """What ``to_json`` wrote. Raises RunDirectoryError where it is something else."""
        return cls(now=Side.from_json(found["now"]), then=Side.from_json(found["then"]))


def working_tree(project: Path, subjects: Sequence[Subject]) -> Side:
    """The packages as they lie in the project now. Raises UsageError where one is not there."""
    for subject in subjects:
        if not (project / subject.path).exists():
            raise UsageError(
                f"{project} has no {subject.path}, which memory_subject names as a package "
                "under test; correct memory_subject"
            )
    return _side(project, subjects, asked="", commit="", date="", title="")


def revision_side(
    project: Path, asked: str, subjects: Sequence[Subject], *, name: str | None = None
) -> Side:
    """The packages as they were at a revision, unpacked; ``name`` is what the user called it, where
    that is not ``asked``.

    Raises UsageError as ``unpack_revision`` does.
    """
    revision: Revision = unpack_revision(project, asked, subjects, project / REVISIONS_FOLDER)
    return _side(
        revision.folder,
        subjects,
        asked=name or revision.asked,
        commit=revision.commit,
        date=revision.date,
        title=revision.subject,
        left_empty=revision.left_empty,
    )


def checked_subjects(texts: Sequence[str]) -> tuple[Subject, ...]:
    """The packages under test. Raises UsageError where none is named, or one cannot be a
    package.
    """
    subjects = read_subjects(texts)
    if not subjects:
        raise UsageError(
            "two revisions can only be compared where memory_subject says which packages are "
            "under test; add it to pytest's "
            'settings, as memory_subject = ["mypkg"] (src/mypkg where it lies in a folder)'
        )
    return subjects


def _side(
    folder: Path,
    subjects: Sequence[Subject],
    *,
    asked: str,
    commit: str,
    date: str,
    title: str,
    left_empty: tuple[str, ...] = (),
) -> Side:
    return Side(
        asked=asked,
        commit=commit,
        date=date,
        title=title,
        folder=str(folder.resolve()),
        subjects=tuple(str(subject.path) for subject in subjects),
        content={subject.name: _content(folder / subject.path) for subject in subjects},
        left_empty=left_empty,
    )


def _content(package: Path) -> str:
    """A checksum of the names, sizes and bytes of all files, without what Python compiles, nor the
    bytes of what is no code.

    Of a link it is what the link says: where that leads outside of the package, a revision does not
    have it.
    """
    paths = (
        [package]
        if package.is_file()
        else sorted(path for path in package.rglob("*") if path.is_symlink() or path.is_file())
    )
    digest = hashlib.sha256()
    for path in paths:
        if "__pycache__" not in path.parts:
            content, size_bytes = _read(path)
            digest.update(f"{path.relative_to(package.parent)}\0{size_bytes}\0".encode() + content)
    return digest.hexdigest()


def _read(path: Path) -> tuple[bytes, int]:
    if path.is_symlink():
        target = os.fsencode(path.readlink())
        return target, len(target)
    size_bytes = path.stat().st_size
    return (path.read_bytes() if size_bytes <= _LARGEST_READ_BYTES else b""), size_bytes
