"""The packages under test as they were at a revision: unpacked from git, kept by commit, and
checked before they are used.
"""

import compileall
import dataclasses
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from harness.errors import RunDirectoryError, UsageError
from harness.run.packages import Code, Subject, code_in, read_subjects

MERGE_BASE = "merge-base:"
"""Before a revision: not that itself, but the last commit that it and HEAD have in common."""
_TIMEOUT_S = 120.0
"""Chosen: no question to a local repository takes as long; one that waits for a password or a lock
does."""
_SUBMODULE = "160000"  # the mode of a commit in a tree (gitformat-index(5))
_UNSHALLOW = (
    "fetch the history (git fetch --unshallow; in a workflow: actions/checkout with fetch-depth: 0)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A commit, and the folder in which the packages under test lie as they were then."""

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

    def code(self, subjects: Sequence[Subject]) -> Code:
        """Where the packages are imported from."""
        return code_in(self.folder, subjects)


def unpack_revision(
    project: Path, asked: str, subjects: Sequence[Subject], keep_in: Path
) -> Revision:
    """Put the packages under test as they were at ``asked`` into ``keep_in/COMMIT``, and compile
    them.

    ``asked`` is whatever git understands, or ``"merge-base:origin/main"``. ``project`` is a folder
    of the repository, from which the packages' paths start. A kept copy is used again if not a byte
    of it has changed. Neither the working tree nor the index is touched, and no hook runs. Raises
    UsageError, one sentence with what to do, where there is no repository, no such revision or
    package.
    """
    top = Path(
        _ask(project, "rev-parse", "--show-toplevel", what=f"compare with {asked}")
    ).resolve()
    commit = resolve(project, asked)
    inside = project.resolve().relative_to(top)
    folder = (keep_in / commit).resolve()
    _claim(keep_in)
    left_empty = []
    for subject in subjects:
        wanted = inside / subject.path
        files, submodules = _files(top, commit, wanted, asked)
        left_empty += submodules
        if not _is_whole(top, files, folder / subject.path, wanted):
            _unpack(top, commit, wanted, folder / subject.path, files=files, empty=submodules)
    date, first_line = describe(project, commit)
    return Revision(
        asked=asked,
        commit=commit,
        date=date,
        subject=first_line,
        folder=folder,
        left_empty=tuple(dict.fromkeys(left_empty)),
    )


def describe(project: Path, commit: str) -> tuple[str, str]:
    """Date of the author, ISO 8601, and first line of the message of a commit. Raises UsageError
    where there is none.
    """
    date, _, first_line = _ask(
        project, "log", "-1", "--format=%aI %s", commit, what="describe the revision"
    ).partition(" ")
    return date, first_line


def resolve(project: Path, asked: str) -> str:
    """The commit that the user means, in 40 digits. Raises UsageError where there is none, with
    what to do.
    """
    named = asked.removeprefix(MERGE_BASE)
    if not named or named.startswith("-"):
        raise UsageError(
            f"{asked!r} is not a revision; name a commit, branch or tag, or {MERGE_BASE}origin/main"
        )
    _ask(project, "rev-parse", "--git-dir", what=f"look for {named}")
    found = _try(
        project, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{named}^{{commit}}"
    )
    shallow = _try(project, "rev-parse", "--is-shallow-repository") == "true"
    if not found:
        why = "git branch --all and git tag list some"
        if shallow:
            why = f"this clone is shallow, so it may just be missing: {_UNSHALLOW}"
        elif not _try(project, "rev-list", "--all", "--max-count=1"):
            why = "nothing was ever committed here: commit the packages under test first"
        raise UsageError(f"{project} has no revision {named!r}; {why}")
    if named == asked:
        return found
    common = _try(project, "merge-base", "HEAD", found)
    if not common:
        why = (
            f"this clone is shallow: {_UNSHALLOW}"
            if shallow
            else "their histories have nothing in common; name a revision instead"
        )
        raise UsageError(f"HEAD and {named} have no merge base here; {why}")
    return common


def commits_between(
    project: Path, good: str, bad: str, subjects: Sequence[Subject]
) -> tuple[str, ...]:
    """Commits after ``good`` up to ``bad`` that touch the packages, oldest first, along first
    parents.

    Raises UsageError where ``good`` is not an ancestor of ``bad``.
    """
    done = _git(project, "merge-base", "--is-ancestor", good, bad)
    if done.returncode != 0:
        raise UsageError(
            f"{good[:7]} is not an ancestor of {bad[:7]}, so that there is no line of "
            "commits between them; start at their last common commit, "
            f"{MERGE_BASE}{good[:7]}"
        )
    paths = [str(subject.path) for subject in subjects]
    text = _ask(
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
    entries = _entries(top, commit, [wanted], asked)
    files = {path: identity for mode, identity, path in entries if mode != _SUBMODULE}
    if not files:
        submodules = [
            path
            for mode, _, path in _entries(top, commit, [wanted, *wanted.parents[:-1]], asked)
            if mode == _SUBMODULE
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
            "if the package lay elsewhere"
        )
    return files, [path for mode, _, path in entries if mode == _SUBMODULE]


def _entries(
    top: Path, commit: str, wanted: Sequence[Path], asked: str
) -> list[tuple[str, str, str]]:
    """Mode, identity and path of all files and submodules at or below the paths."""
    paths = [str(path) for path in wanted]
    listing = _ask(
        top, "ls-tree", "-r", "-z", commit, "--", *paths, what=f"list {paths[0]} at {asked}"
    )
    found = [entry.partition("\t") for entry in listing.split("\0") if entry]
    return [
        (mode, identity, path)
        for attributes, _, path in found
        for mode, _, identity in [attributes.split()[:3]]
    ]


def _is_whole(top: Path, files: Mapping[str, str], there: Path, wanted: Path) -> bool:
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
    strangers = {path for path in kept if "__pycache__" not in path.parts} - set(places.values())
    links = [path for path in places.values() if path.is_symlink()]
    if strangers or links:  # links are rare, and cheap to make again
        return False
    names = "".join(f"{place}\n" for place in places.values())
    found = _git(top, "hash-object", "--no-filters", "--stdin-paths", text=names)
    return found.returncode == 0 and found.stdout.split() == list(files.values())


def _unpack(
    top: Path, commit: str, wanted: Path, there: Path, *, files: Iterable[str], empty: Iterable[str]
) -> None:
    """Through an index of its own: unlike git archive it knows no export-ignore, which may leave
    out what is measured.
    """
    try:
        there.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=there.parent, prefix=".unpacking-") as made:
            own = {"GIT_INDEX_FILE": str(Path(made, "index"))}
            _ask(top, "read-tree", commit, what="read the revision", environment=own)
            _ask(
                top,
                "-c",
                "core.autocrlf=false",
                "checkout-index",
                "-z",
                "--stdin",
                f"--prefix={made}/tree/",
                what="unpack the revision",
                environment=own,
                text="".join(f"{path}\0" for path in files),
            )
            for path in empty:
                Path(made, "tree", path).mkdir(parents=True, exist_ok=True)
            whole = Path(made, "tree", wanted)
            compileall.compile_dir(whole, quiet=2) if whole.is_dir() else compileall.compile_file(
                whole, quiet=2
            )
            if there.exists():
                there.rename(Path(made, "before"))
            try:
                whole.rename(there)
            except OSError:
                if not there.exists():
                    raise  # else somebody has put the same there meanwhile
    except OSError as error:
        raise UsageError(
            f"{wanted} at {commit[:7]} cannot be unpacked to {there} ({error.strerror}); "
            "make room there, or make it writable"
        ) from error


def _claim(folder: Path) -> None:
    """Make the folder of kept revisions: neither git nor pytest is to take what lies there for the
    project's own.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        (folder / "conftest.py").write_text('collect_ignore_glob = ["*"]\n', encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"revisions cannot be kept in {folder} ({error.strerror}); make it writable"
        ) from error


def _ask(
    folder: Path,
    *arguments: str,
    what: str,
    environment: Mapping[str, str] | None = None,
    text: str = "",
) -> str:
    """What git says. Raises UsageError with git's own words where it refuses."""
    done = _git(folder, *arguments, environment=environment, text=text)
    if done.returncode != 0:
        said = (
            done.stderr.strip().partition("\n")[0]
            or f"git {arguments[0]} ended with {done.returncode}"
        )
        hint = (
            "; revisions are taken from git, so work in a clone of the repository"
            if "not a git repository" in said
            else ""
        )
        raise UsageError(f"cannot {what} in {folder}: {said}{hint}")
    return done.stdout if "\0" in done.stdout else done.stdout.strip()


def _try(folder: Path, *arguments: str) -> str:
    """What git says; empty where it refuses."""
    done = _git(folder, *arguments)
    return done.stdout.strip() if done.returncode == 0 else ""


def _git(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", **(environment or {})},
            input=text,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(
            f"git cannot be run in {folder} ({type(error).__name__}); revisions are "
            "compared by means of it"
        ) from error


# Two codes measured in one run: ``now``, and what it is compared with, ``then``, in a run
# directory inside the other's.


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
