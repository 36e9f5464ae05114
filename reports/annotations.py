"""Causes as annotations of a pull request: GitHub's workflow commands, put on the file that
changed most.

Pure functions over the text of findings.json and a list of changed files. Sentences quote what
measured code said, so all of it is untrusted: a command is one line, and nothing in a sentence can
end it or begin another.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from harness.errors import RunDirectoryError
from harness.judge import FindingKind
from harness.judge.gate import SCHEMA_VERSION
from harness.system.git import MERGE_BASE
from harness.words import count

from .changed import ChangedFile

MOST_OF_A_LEVEL = 10
"""Errors, and warnings, that GitHub shows of one step (docs.github.com, workflow commands); the
last one counts the rest."""
_MOST_CHARACTERS = 4000
"""Chosen: a screen of text; GitHub cuts messages at 64 KiB."""
_MOST_NAMED = 3
"""Other changed files that a message names. Chosen: one line."""
_LEVELS: Mapping[str, str] = {
    FindingKind.REGRESSION: "error",
    FindingKind.FAILED: "error",
    FindingKind.INCOMPLETE: "error",
    FindingKind.NO_BASELINE: "warning",
    FindingKind.MOVED: "warning",
    FindingKind.IMPROVEMENT: "warning",
}
# Folders that hold no code under test.
_BESIDE = frozenset({"test", "tests", "testing", "doc", "docs", "examples", "benchmarks"})
# Control characters that terminals obey, and halves of surrogate pairs, which no output can encode.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One cause, as findings.json has it."""

    id: str
    """The same in every run in which the same thing goes wrong."""
    kind: str
    """Of the gravest of its findings."""
    rule: str
    """Of the check that says it best."""
    sentence: str
    """What, where, how much and since when; what that check says, and how much follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What findings.json says: the verdict, and every cause, the gravest first."""

    verdict: str
    exit_code: int
    sentence: str
    causes: tuple[Reported, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where findings are put: a file and a line, or neither; and why there."""

    file: str = ""
    line: int = 1
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One annotation, not escaped yet."""

    level: str
    title: str
    message: str
    file: str = ""
    line: int = 1


def parse_findings(text: str, name: str, *, judging: str) -> Findings:
    """Read the text of findings.json. Raises RunDirectoryError when it is damaged, or of another
    version.

    ``judging`` is the command that writes it anew.
    """
    try:
        document = json.loads(text)
        version = document["schema_version"]
        if version != SCHEMA_VERSION:
            raise RunDirectoryError(
                f"{name} is of version {version!r}, and this program reads "
                f"{SCHEMA_VERSION}; judge the run again: {judging}"
            )
        return Findings(
            verdict=str(document["verdict"]),
            exit_code=int(document["exit_code"]),
            sentence=str(document["sentence"]),
            causes=tuple(_reported(cause, document["checks"]) for cause in document["causes"]),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunDirectoryError(
            f"{name} is damaged ({error!r}); judge the run again: {judging}"
        ) from error


def _reported(cause: Mapping[str, Any], checks: Sequence[Mapping[str, Any]]) -> Reported:
    first = checks[cause["checks"][0]]
    told = [cause["told"], first["sentence"], cause["following"]]
    return Reported(
        id=str(cause["id"]),
        kind=str(cause["finding"]),
        rule=str(first["rule"]),
        sentence="\n".join(str(part) for part in told if part),
    )


def spot(
    changed: Sequence[ChangedFile],
    *,
    since: str,
    subjects: Collection[str],
    beside: Collection[str],
) -> Spot:
    """Where to put findings: on the file of the packages under test that changed most.

    ``changed`` has most changed lines first. ``subjects`` are the packages under test, as paths
    from the root of the repository (``"src/mypkg"``, ``"tools/single.py"``); without one, any
    Python file outside of tests is taken for the loader. ``beside`` are files that decide with
    them, policy and scenarios: the ends of their paths.
    """
    named = " or ".join(sorted(subjects)) or "the code under test"
    then = (
        f"the merge base with {since.removeprefix(MERGE_BASE)}"
        if since.startswith(MERGE_BASE)
        else since
    )
    own = [file for file in changed if _is_of(file.path, subjects)]
    placed = [file for file in own if file.first_line is not None]
    if placed:
        first, others = placed[0], [file.path for file in own if file is not placed[0]]
        why = f"Put here because {first.path} is the only file of {named} that differs from {then}."
        if others:
            why = (
                f"Put here because, of the {len(own)} files of {named} that differ from "
                f"{then}, {first.path} is the one with most changed lines that can be "
                f"shown; the others: {_some(others)}."
            )
        return Spot(file=first.path, line=first.first_line or 1, why=why)
    gone = f" but {_some([file.path for file in own])}, which cannot be shown," if own else ""
    nothing = f"No file of {named}{gone} differs from {then}"
    decisive = [
        file
        for file in changed
        if file.first_line is not None and any(_ends_with(file.path, name) for name in beside)
    ]
    if decisive:
        first = decisive[0]
        return Spot(
            file=first.path,
            line=first.first_line or 1,
            why=f"{nothing}; {first.path}, which decides what is measured and promised, does.",
        )
    return Spot(
        why=f"{nothing}: look at what it is built on (versions are in run.json), the scenarios "
        "and the machine."
    )


def annotations(found: Findings, place: Spot) -> Iterator[Annotation]:
    """One annotation for each cause, as many of each level as GitHub shows; the last one counts
    those that are left out.
    """
    if not found.causes and found.exit_code != 0:
        yield _annotation(
            "error",
            f"Memory gate: {_plain(found.verdict)} (exit code {found.exit_code})",
            found.sentence,
            place,
        )
    for level in dict.fromkeys(_LEVELS.values()):
        own = [cause for cause in found.causes if _LEVELS.get(cause.kind, "error") == level]
        shown = own if len(own) <= MOST_OF_A_LEVEL else own[: MOST_OF_A_LEVEL - 1]
        for cause in shown:
            title = (
                f"Memory gate: {_plain(cause.kind)} ({_plain(cause.rule)}); exit code "
                f"{found.exit_code}"
            )
            yield _annotation(level, title, cause.sentence, place)
        left_out = len(own) - len(shown)
        if left_out:
            title = f"Memory gate: {count(left_out, 'more cause')}; exit code {found.exit_code}"
            yield _annotation(
                level,
                title,
                f"{count(left_out, 'more cause')} in the summary and in the page of the run.",
                place,
            )


def command(annotation: Annotation) -> str:
    """The workflow command, on one line. GitHub decodes %25, %0D, %0A everywhere, %3A and %2C in
    properties only.
    """
    where = {"file": annotation.file, "line": str(annotation.line)} if annotation.file else {}
    properties = {**where, "title": annotation.title}
    listed = ",".join(f"{name}={_escaped_property(value)}" for name, value in properties.items())
    return f"::{annotation.level} {listed}::{_escaped(annotation.message)}"


def _annotation(level: str, title: str, sentence: str, place: Spot) -> Annotation:
    text = sentence if len(sentence) <= _MOST_CHARACTERS else f"{sentence[:_MOST_CHARACTERS]} [...]"
    return Annotation(
        level=level, title=title, message=f"{text}\n{place.why}", file=place.file, line=place.line
    )


def _is_of(path: str, subjects: Collection[str]) -> bool:
    """Whether a file of the repository belongs to a package under test."""
    file = PurePosixPath(path)
    if not subjects:
        return file.suffix == ".py" and not _BESIDE & set(file.parts)
    return any(file.is_relative_to(subject) for subject in subjects)


def _ends_with(path: str, name: str) -> bool:
    parts, end = PurePosixPath(path).parts, PurePosixPath(name).parts
    return bool(end) and parts[-len(end) :] == end


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return f"{', '.join(paths[:_MOST_NAMED])}{more}"


def _plain(word: str) -> str:
    return word.replace("_", " ")


def _escaped(text: str) -> str:
    """As the data of a command: one line, whatever is in it."""
    shown = _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    return shown.replace("%", "%25").replace("\n", "%0A")


def _escaped_property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
