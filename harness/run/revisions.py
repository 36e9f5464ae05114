"""Which code the children of a run measure: the packages under test, as they are in the project
now, or as they were at a revision.

A revision is unpacked from git, kept by its commit, and checked before it is used.
"""

import compileall
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Any, Self

from harness.errors import RunDirectoryError, UsageError
from harness.run.launchers import HOME
from harness.system import git
from harness.system.git import MERGE_BASE

REVISIONS_FOLDER = Path("artifacts", "revisions")
"""Where unpacked revisions are kept, by commit, under the project's root."""

_LARGEST_READ_BYTES = 16 << 20
"""Chosen: far more than any file of code; of larger ones, which are data, the size has to do."""
_DISTRIBUTION = "ptycho-memory"
_PACKAGE = "harness"
_CONTAINER = "ptycho-lazy"
"""The project's other distribution (ptycho/pyproject.toml). Its package has a name that others have
too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Packages under test, by name, and the one folder that each may be imported from; without
    any, Python imports what it finds.
    """

    packages: Mapping[str, Path] = field(default_factory=dict)

    @property
    def import_paths(self) -> tuple[Path, ...]:
        """The folders, each once."""
        return tuple(dict.fromkeys(self.packages.values()))


@dataclass(frozen=True, slots=True)
class PackageUnderTest:
    """One package under test, by its place in a repository: ``"mypkg"``, ``"src/mypkg"`` or
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


def read_subjects(texts: Sequence[str]) -> tuple[PackageUnderTest, ...]:
    """The packages that an option or a file names, each once.

    Raises UsageError for a path that leaves the repository, that Python cannot import, or two of
    one name.
    """
    found: dict[str, PackageUnderTest] = {}
    for text in texts:
        subject = PackageUnderTest(PurePosixPath(text.strip()))
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


def code_in(root: Path, subjects: Sequence[PackageUnderTest]) -> Code:
    """The packages in the tree below ``root``."""
    return Code(packages={subject.name: subject.in_folder(root).resolve() for subject in subjects})


# The packages at a revision.


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A commit, and the folder that holds the packages under test as they were then."""

    asked: str
    """As the user named it."""
    commit: str
    """All 40 digits of it."""
    date: str
    """Of its author, ISO 8601."""
    subject: str
    """First line of its message."""
    folder: Path
    """The tree's root for the packages: what was at ``src/mypkg`` of the project is at
    ``folder/src/mypkg``."""
    left_empty: tuple[str, ...]
    """Submodules in the packages, by their paths in the repository: empty folders, as git itself
    leaves them."""

    def code(self, subjects: Sequence[PackageUnderTest]) -> Code:
        """Where the packages are imported from."""
        return code_in(self.folder, subjects)


def unpack_revision(
    project: Path, asked: str, subjects: Sequence[PackageUnderTest], keep_in: Path
) -> Revision:
    """Put the packages under test as they were at ``asked`` into ``keep_in/COMMIT``, and compile
    them.

    ``asked`` is a revision that git understands, or ``"merge-base:origin/main"``. ``project`` is a
    folder of the repository, from which the packages' paths start. A kept copy is used again if not
    a byte of it has changed. Neither the working tree nor the index is touched, and no hook runs.
    Raises UsageError, one sentence with what to do, where there is no repository, no such revision
    or package.
    """
    top = Path(
        git.ask(project, "rev-parse", "--show-toplevel", what=f"compare with {asked}")
    ).resolve()
    commit = git.resolve(project, asked)
    inside = project.resolve().relative_to(top)
    folder = (keep_in / commit).resolve()
    _claim(keep_in)
    left_empty = []
    for subject in subjects:
        wanted = inside / subject.path
        files, submodules = _files(top, commit, wanted, asked)
        left_empty += submodules
        if not _is_unchanged(top, files, folder / subject.path, wanted):
            _unpack(top, commit, wanted, folder / subject.path, files=files, empty=submodules)
    date, first_line = git.describe(project, commit)
    return Revision(
        asked=asked,
        commit=commit,
        date=date,
        subject=first_line,
        folder=folder,
        left_empty=tuple(dict.fromkeys(left_empty)),
    )


def commits_between(
    project: Path, good: str, bad: str, subjects: Sequence[PackageUnderTest]
) -> tuple[str, ...]:
    """Commits after ``good`` up to ``bad`` that touch the packages, oldest first, along first
    parents.

    Raises UsageError where ``good`` is not an ancestor of ``bad``.
    """
    if git.try_to_ask(project, "merge-base", "--is-ancestor", good, bad) is None:
        raise UsageError(
            f"{good[:7]} is not an ancestor of {bad[:7]}, so there is no line of "
            "commits between them; start at their last common commit, "
            f"{MERGE_BASE}{good[:7]}"
        )
    paths = [str(subject.path) for subject in subjects]
    text = git.ask(
        project,
        "rev-list",
        "--first-parent",
        "--reverse",
        f"{good}..{bad}",
        "--",
        *paths,
        what="list the commits",
    )
    return tuple(text.split())


def _files(top: Path, commit: str, wanted: Path, asked: str) -> tuple[Mapping[str, str], list[str]]:
    """Identity in git's store of every file of a package at a commit, by its path in the
    repository; and its submodules.
    """
    entries = git.entries(top, commit, [wanted], asked)
    files = {path: identity for mode, identity, path in entries if mode != git.SUBMODULE}
    if not files:
        submodules = [
            path
            for mode, _, path in git.entries(top, commit, [wanted, *wanted.parents[:-1]], asked)
            if mode == git.SUBMODULE
        ]
        if around := next(
            (
                path
                for path in submodules
                if wanted.is_relative_to(path) or Path(path).is_relative_to(wanted)
            ),
            "",
        ):
            raise UsageError(
                f"{asked} ({commit[:7]}) has no code in {wanted}, which memory_subject "
                f"names as a package under test: {around} is a submodule, whose code is in "
                "a repository of its own; compare revisions in a clone of that one"
            )
        raise UsageError(
            f"{asked} ({commit[:7]}) has no {wanted}, which memory_subject names as a "
            "package under test; compare with a later revision, or correct memory_subject "
            "if the package was elsewhere"
        )
    return files, [path for mode, _, path in entries if mode == git.SUBMODULE]


def _is_unchanged(top: Path, files: Mapping[str, str], there: Path, wanted: Path) -> bool:
    """Whether a kept copy is what git has, file by file; what Python has compiled beside them does
    not count.
    """
    places = {
        path: there / Path(path).relative_to(wanted) if Path(path) != wanted else there
        for path in files
    }
    if not all(place.is_file() or place.is_symlink() for place in places.values()):
        return False

    kept = {
        path for path in ([there] if there.is_file() else there.rglob("*")) if not path.is_dir()
    }
    unknown = {path for path in kept if "__pycache__" not in path.parts} - set(places.values())
    links = [path for path in places.values() if path.is_symlink()]
    if unknown or links:  # links are rare, and cheap to make again
        return False
    return git.identities(top, places.values()) == list(files.values())


def _unpack(
    top: Path, commit: str, wanted: Path, there: Path, *, files: Iterable[str], empty: Iterable[str]
) -> None:
    """Put ``wanted`` of a commit to ``there``, in one step, and compile it."""
    try:
        there.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=there.parent, prefix=".unpacking-") as made:
            tree = Path(made, "tree")
            git.unpack(top, commit, files, tree, index=Path(made, "index"))
            for path in empty:
                (tree / path).mkdir(parents=True, exist_ok=True)

            unpacked = tree / wanted
            compile_it = compileall.compile_dir if unpacked.is_dir() else compileall.compile_file
            compile_it(unpacked, quiet=2)
            _put(unpacked, there, aside=Path(made, "before"))
    except OSError as error:
        raise UsageError(
            f"{wanted} at {commit[:7]} cannot be unpacked to {there} ({error.strerror}); "
            "make room there, or make it writable"
        ) from error


def _put(unpacked: Path, there: Path, *, aside: Path) -> None:
    if there.exists():
        there.rename(aside)
    try:
        unpacked.rename(there)
    except OSError:
        if not there.exists():
            raise  # else another process has put the same there meanwhile


def _claim(folder: Path) -> None:
    """Make the folder of kept revisions, which git and pytest are to ignore. Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        (folder / "conftest.py").write_text('collect_ignore_glob = ["*"]\n', encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"revisions cannot be kept in {folder} ({error.strerror}); make it writable"
        ) from error


# Two codes measured in one run: ``now``, and what it is compared with, ``then``, in a run
# directory inside the other's.


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two: which code it is, and where its packages under test are."""

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


def working_tree(project: Path, subjects: Sequence[PackageUnderTest]) -> Side:
    """The packages as they lie in the project now. Raises UsageError where one is not there."""
    for subject in subjects:
        if not (project / subject.path).exists():
            raise UsageError(
                f"{project} has no {subject.path}, which memory_subject names as a package "
                "under test; correct memory_subject"
            )
    return _side(project, subjects, asked="", commit="", date="", title="")


def revision_side(
    project: Path, asked: str, subjects: Sequence[PackageUnderTest], *, name: str | None = None
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


def checked_subjects(texts: Sequence[str]) -> tuple[PackageUnderTest, ...]:
    """The packages under test. Raises UsageError where none is named, or one cannot be a
    package.
    """
    subjects = read_subjects(texts)
    if not subjects:
        raise UsageError(
            "two revisions can only be compared where memory_subject says which packages are "
            "under test; add it to pytest's "
            'settings, as memory_subject = ["mypkg"] (src/mypkg if it is in a folder)'
        )
    return subjects


def _side(
    folder: Path,
    subjects: Sequence[PackageUnderTest],
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


# The packages of this project beside the harness: a child must not import them in place of its
# own.


@cache
def own_packages() -> tuple[str, ...]:
    """Names of this project's packages beside the harness: in a checkout all of them, in an
    installation those of the container.

    Raises UsageError where the harness is in neither.
    """
    found = _beside()
    if found is None:
        raise UsageError(
            f"{_PACKAGE} was imported from {HOME}, which is neither a checkout nor an "
            "installation, so nothing says which packages came with it; install it "
            f"with pip (pip install {_DISTRIBUTION})"
        )
    return tuple(sorted(found))


def shadowing_packages(root: Path) -> tuple[str, ...]:
    """Those of ``own_packages`` that Python would import in place of a folder of ``root``.

    A package without __init__.py comes after every package of its name that has one.
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
    """None where nothing says which packages came with the harness."""
    if _PACKAGE in _installed(_DISTRIBUTION):
        return _installed(_CONTAINER)
    if (HOME / "pyproject.toml").exists():
        return {path.parent.name for path in HOME.glob("*/__init__.py")} - {_PACKAGE}
    return None


def _installed(name: str) -> set[str]:
    """Packages that a distribution has put beside the harness; none of an editable installation,
    whose files are elsewhere.
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
