"""Git, run in one place: one time-out, one error, and never a question to a person."""

import os
import re
import subprocess
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.errors import GitError, UsageError

MERGE_BASE = "merge-base:"
"""Before a revision: not that itself, but the last commit that it and HEAD have in common."""
TIMEOUT_S = 120.0
"""Chosen: no question to a local repository takes as long; one that waits for a password or a lock
does."""
SUBMODULE = "160000"
"""Mode of a commit in a tree (gitformat-index(5))."""
_UNSHALLOW = (
    "fetch the history (git fetch --unshallow; in a workflow: actions/checkout with fetch-depth: 0)"
)
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    # Git refreshes its index while it is asked for changes; a measurement that is killed then would
    # leave a lock behind.
    "GIT_OPTIONAL_LOCKS": "0",
}


class Entry(NamedTuple):
    """A file or a submodule of a tree."""

    mode: str
    identity: str
    """The name of its content in git's store, 40 digits."""
    path: str
    """From the root of the repository."""


def run(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> bytes:
    """What git prints when it is run in ``folder``. Raises GitError where it cannot be run or
    refuses.
    """
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**os.environ, **_ENVIRONMENT, **(environment or {})},
            input=stdin,
            capture_output=True,
            check=True,
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        exit_code, said = None, ()
        if isinstance(error, subprocess.CalledProcessError):
            exit_code = error.returncode
            said = tuple(error.stderr.decode(errors="replace").strip().splitlines())
        failure = type(error).__name__
        raise GitError(
            f"git {arguments[0]} failed in {folder}: {said[-1] if said else failure}",
            failure=failure,
            exit_code=exit_code,
            said=said,
        ) from error
    return done.stdout


def text(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
) -> str:
    """What git prints, as text; bytes that are no UTF-8 stay as surrogates, as in Python's paths.
    Raises GitError.
    """
    printed = run(
        folder, *arguments, environment=environment, stdin=stdin.encode(errors="surrogateescape")
    )
    return printed.decode(errors="surrogateescape")


def ask(
    folder: Path,
    *arguments: str,
    what: str,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
) -> str:
    """What git answers to a question about revisions, without the last line's end.

    Raises UsageError with git's own words where it refuses: "cannot ``what`` in ...".
    """
    try:
        return text(folder, *arguments, environment=environment, stdin=stdin).strip()
    except GitError as error:
        _raise_where_it_cannot_be_run(folder, error)
        said = error.said[0] if error.said else f"git {arguments[0]} ended with {error.exit_code}"
        hint = (
            "; revisions are taken from git, so work in a clone of the repository"
            if "not a git repository" in said
            else ""
        )
        raise UsageError(f"cannot {what} in {folder}: {said}{hint}") from error


def try_to_ask(folder: Path, *arguments: str, stdin: str = "") -> str | None:
    """What git answers; None where it refuses. Raises UsageError where it cannot be run."""
    try:
        return text(folder, *arguments, stdin=stdin).strip()
    except GitError as error:
        _raise_where_it_cannot_be_run(folder, error)
        return None


def _raise_where_it_cannot_be_run(folder: Path, error: GitError) -> None:
    if error.exit_code is None:
        raise UsageError(
            f"git cannot be run in {folder} ({error.failure}), which comparing revisions needs"
        ) from error


def describe(project: Path, commit: str) -> tuple[str, str]:
    """Date of the author, ISO 8601, and first line of the message of a commit. Raises UsageError
    where there is none.
    """
    date, _, first_line = ask(
        project, "log", "-1", "--format=%aI %s", commit, what="describe the revision"
    ).partition(" ")
    return date, first_line


def project_name(folder: Path) -> str:
    """What people call the project in ``folder``: its repository as the remote ``origin`` has it,
    else ``name`` of its pyproject.toml, else the folder.

    Of the remote's address nothing but the last name is used: it may hold a password.
    """
    try:
        origin = text(folder, "config", "--get", "remote.origin.url").strip()
    except GitError:
        origin = ""
    is_url, _, place = origin.removesuffix("/").removesuffix(".git").rstrip("/").rpartition("://")
    # without a path the last name would be the host, or whoever logs in there
    path = place.partition("/")[2] if is_url else place
    name = re.split(r"[/:]", path)[-1]
    if re.fullmatch(r"[\w.-]*\w[\w.-]*", name):
        return name
    try:
        declared = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        named = declared["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        named = None
    return named if isinstance(named, str) and named.isprintable() else folder.resolve().name


def resolve(project: Path, asked: str) -> str:
    """The commit that the user means, in 40 digits. Raises UsageError where there is none, with
    what to do.
    """
    named = asked.removeprefix(MERGE_BASE)
    if not named or named.startswith("-"):
        raise UsageError(
            f"{asked!r} is not a revision; name a commit, branch or tag, or {MERGE_BASE}origin/main"
        )
    ask(project, "rev-parse", "--git-dir", what=f"look for {named}")
    found = try_to_ask(
        project, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{named}^{{commit}}"
    )
    shallow = try_to_ask(project, "rev-parse", "--is-shallow-repository") == "true"
    if not found:
        why = "git branch --all and git tag list some"
        if shallow:
            why = f"this clone is shallow, so it may just be missing: {_UNSHALLOW}"
        elif not try_to_ask(project, "rev-list", "--all", "--max-count=1"):
            why = "nothing was ever committed here: commit the packages under test first"
        raise UsageError(f"{project} has no revision {named!r}; {why}")
    if named == asked:
        return found
    common = try_to_ask(project, "merge-base", "HEAD", found)
    if not common:
        why = (
            f"this clone is shallow: {_UNSHALLOW}"
            if shallow
            else "their histories have nothing in common; name a revision instead"
        )
        raise UsageError(f"HEAD and {named} have no merge base here; {why}")
    return common


def entries(top: Path, commit: str, paths: Sequence[Path], asked: str) -> list[Entry]:
    """All files and submodules at or below the paths, at a commit that the user named ``asked``."""
    names = [str(path) for path in paths]
    listing = ask(
        top, "ls-tree", "-r", "-z", commit, "--", *names, what=f"list {names[0]} at {asked}"
    )
    found = []
    for entry in filter(None, listing.split("\0")):
        attributes, _, path = entry.partition("\t")
        mode, _, identity = attributes.split()[:3]
        found.append(Entry(mode, identity, path))
    return found


def identities(top: Path, files: Iterable[Path]) -> list[str] | None:
    """The names that git's store would give to files as they are; None where it refuses."""
    names = "".join(f"{file}\n" for file in files)
    found = try_to_ask(top, "hash-object", "--no-filters", "--stdin-paths", stdin=names)
    return None if found is None else found.split()


def unpack(top: Path, commit: str, files: Iterable[str], into: Path, *, index: Path) -> None:
    """Write files of a commit below ``into``, as they are in git's store.

    Through an index of its own: unlike git archive it knows no export-ignore, which may leave out
    what is measured. Neither the working tree nor the repository's index is touched.
    """
    environment = {"GIT_INDEX_FILE": str(index)}
    ask(top, "read-tree", commit, what="read the revision", environment=environment)
    ask(
        top,
        "-c",
        "core.autocrlf=false",
        "checkout-index",
        "-z",
        "--stdin",
        f"--prefix={into}/",
        what="unpack the revision",
        environment=environment,
        stdin="".join(f"{path}\0" for path in files),
    )
