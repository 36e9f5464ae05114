"""Which files differ from a revision, how much and from which line on, as git tells it: where
annotations are put.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.errors import GitError, UsageError
from harness.system import git
from harness.system.git import MERGE_BASE

_HUNK = re.compile(rb"^@@ -\d+(?:,\d+)? \+(\d+)(?:,\d+)? @@", re.MULTILINE)
# What a person's settings, or attributes of the repository, would change in git's output.
_PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedFile:
    """One file that differs from the revision."""

    path: str
    """Relative to the root of the repository, with slashes."""
    changed_lines: int
    """Lines that were added and lines that were removed; 0 for a binary file."""
    first_line: int | None
    """The first line that differs, as the file is now; None where it has no lines: deleted, or
    binary."""


def changed_files(folder: Path, since: str) -> tuple[ChangedFile, ...]:
    """What differs between ``since`` and the working tree around ``folder``, most changed lines
    first.

    Raises UsageError when it is no git repository, or does not have the revision.
    """
    top = Path(
        _git(folder, "rev-parse", "--show-toplevel").decode(errors="surrogateescape").rstrip("\n")
    )
    commit = _commit(folder, since)
    counts = _git(folder, "diff", *_PLAIN, "--numstat", "-z", commit)
    found = []
    for record in counts.split(b"\0"):
        if not record:
            continue
        added, removed, path = record.split(b"\t", 2)
        lines = sum(int(number) for number in (added, removed) if number != b"-")
        found.append((lines, path.decode(errors="surrogateescape")))
    found.sort(key=lambda file: (-file[0], file[1]))
    return tuple(
        ChangedFile(
            path=path,
            changed_lines=lines,
            first_line=_first_line(top, commit, path) if lines else None,
        )
        for lines, path in found
    )


def folder_in_repository(folder: Path) -> PurePosixPath:
    """``folder`` as a path from the root of its repository. Raises UsageError when it is in
    none.
    """
    return PurePosixPath(
        _git(folder, "rev-parse", "--show-prefix").decode(errors="surrogateescape").rstrip("\n")
    )


def _commit(folder: Path, since: str) -> str:
    """The commit's name in full, so that nothing a person typed is read as an option or a path."""
    reference = since.removeprefix(MERGE_BASE)
    try:
        named = _git(
            folder,
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            f"{reference}^{{commit}}",
        )
        if not since.startswith(MERGE_BASE):
            return named.decode().strip()
        return _git(folder, "merge-base", "HEAD", named.decode().strip()).decode().split()[0]
    except UsageError as error:
        raise UsageError(
            f"--changed-since {since}: git does not have it here; in CI, check out the "
            "whole history (fetch-depth: 0, GIT_DEPTH: 0)"
        ) from error


def _first_line(top: Path, commit: str, path: str) -> int | None:
    if not (top / path).is_file():
        return None
    hunk = _HUNK.search(
        _git(top, "diff", *_PLAIN, "--unified=0", commit, "--", f":(literal){path}")
    )
    # Where lines were only taken away at the very start, git names line 0.
    return max(int(hunk.group(1)), 1) if hunk else None


def _git(folder: Path, *arguments: str) -> bytes:
    try:
        return git.run(folder, *arguments)
    except GitError as error:
        raise UsageError(_why(error, arguments[0])) from error


def _why(error: GitError, command: str) -> str:
    if error.failure == "FileNotFoundError":
        return (
            "git is not installed, so nobody can say which files changed; leave --changed-since out"
        )
    if error.failure == "TimeoutExpired":
        return f"git {command} took more than {git.TIMEOUT_S:g} s; leave --changed-since out"
    return (
        f"git {command} failed: {error.said[-1] if error.said else f'exit code {error.exit_code}'}"
    )
