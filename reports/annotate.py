"""The annotations of one run directory: lines for GitHub's log, or a report for GitLab."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import RunDirectoryError, UsageError
from harness.judge import FindingKind
from harness.judge.advice import DEFAULT_BASELINES, Asked, Commands
from harness.judge.gate import foreign
from harness.judge.policy import DEFAULT_POLICY
from harness.records import ROWS_FILE, RUN_FILE
from harness.system import FINDINGS_FILE
from harness.words import nearest_path

from .annotations import Findings, Reported, Spot, annotations, command, parse_findings, spot
from .changed import changed_files, folder_in_repository

# Causes as GitLab's code quality report, which its merge requests show beside the files that
# changed.


_SEVERITIES: Mapping[str, str] = {
    FindingKind.REGRESSION: "critical",
    FindingKind.FAILED: "critical",
    FindingKind.INCOMPLETE: "critical",
    FindingKind.NO_BASELINE: "minor",
    FindingKind.MOVED: "minor",
    FindingKind.IMPROVEMENT: "minor",
}


def code_quality_text(found: Findings, place: Spot, *, otherwise: str) -> str:
    """The report: JSON, one entry for each cause. GitLab leaves out what has no path;
    ``otherwise`` is one.
    """
    reported = found.causes
    if not reported and found.exit_code != 0:
        reported = (
            Reported(id="run", kind=found.verdict, rule="verdict", sentence=found.sentence),
        )
    return json.dumps([_entry(cause, place, otherwise) for cause in reported], indent=1)


def _entry(cause: Reported, place: Spot, otherwise: str) -> dict[str, object]:
    # Of the id alone, which has no amounts in it: GitLab matches the two sides of a merge request
    # by it.
    fingerprint = hashlib.sha256(cause.id.encode(errors="backslashreplace")).hexdigest()
    return {
        "description": f"{cause.sentence} {place.why}",
        "check_name": f"memory gate: {cause.rule}",
        "fingerprint": fingerprint,
        "severity": _SEVERITIES.get(cause.kind, "critical"),
        "location": {"path": place.file or otherwise, "lines": {"begin": place.line}},
    }


FORMATS = ("github", "gitlab")
"""Workflow commands for the log; a code quality report."""


def annotate(
    run: Path,
    *,
    since: str | None,
    subjects: Collection[str],
    policy: Path | None,
    folder: Path,
    baselines: Path | None = None,
    form: str = FORMATS[0],
) -> Iterator[str]:
    """The causes of the findings of ``run`` as lines, put where the working tree around ``folder``
    differs from ``since``.

    Findings of another run, or of this one before more was measured, are refused. ``subjects`` are
    the packages under test, as paths from ``folder``; none: those that the run compared, or
    imported. Without ``since`` it is the revision that the run was compared with. Raises
    RunDirectoryError when the run was not judged; UsageError when git cannot compare, after the
    last annotation.
    """
    judging = Commands(
        run=run, asked=Asked(policy=policy, baselines=baselines or DEFAULT_BASELINES)
    ).gate()
    if not run.is_dir():
        raise RunDirectoryError(f"{run} is not a run directory; {nearest_path(run)}")
    text = _read(run / FINDINGS_FILE, f"{run} was not judged; judge it first: {judging}")
    found = parse_findings(text, str(run / FINDINGS_FILE), judging=judging)
    if why := foreign(json.loads(text), run):
        raise RunDirectoryError(f"{run}: {why}; judge it first: {judging}")
    manifest = _manifest(run / RUN_FILE)
    limits = (policy or DEFAULT_POLICY).as_posix()
    since = since or _compared_with(manifest)
    refused = None
    place = Spot(
        why="Not put on a file, because no revision to compare with was given (--changed-since)."
    )
    if since is not None:
        try:
            prefix = folder_in_repository(folder)
            place = spot(
                changed_files(folder, since),
                since=since,
                subjects=[
                    str(prefix / subject)
                    for subject in subjects or _subjects(manifest, run, folder)
                ],
                beside=[limits, *_bodies(manifest, run)],
            )
        except UsageError as error:
            refused, place = error, Spot(why=f"Not put on a file: {error}.")
    if form == "gitlab":
        yield code_quality_text(found, place, otherwise=limits)
    else:
        yield from map(command, annotations(found, place))
    if refused is not None:
        raise refused


def _read(path: Path, otherwise: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunDirectoryError(otherwise) from error


def _manifest(path: Path) -> Mapping[str, Any]:
    """run.json as far as it can be read: a damaged one has no say in where findings are put, and
    the gate has said so.
    """
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _compared_with(manifest: Mapping[str, Any]) -> str | None:
    against = manifest.get("against")
    commit = against.get("commit") if isinstance(against, dict) else None
    return commit if isinstance(commit, str) and commit else None


def _subjects(manifest: Mapping[str, Any], run: Path, folder: Path) -> list[str]:
    """The packages whose two versions the run compared; else those below ``folder`` that it
    imported, bodies aside.
    """
    code = manifest.get("code")
    named = code.get("subjects") if isinstance(code, dict) else None
    if isinstance(named, list) and named:
        return [str(name) for name in named]
    # The harness runs in every child, and is not what it measures.
    beside = {
        "harness",
        *(body.partition("/")[0].removesuffix(".py") for body in _bodies(manifest, run)),
    }
    found = [
        packages for row in _rows(run, "code") if isinstance(packages := row.get("packages"), dict)
    ]
    files = {
        Path(str(file))
        for packages in found
        for name, file in packages.items()
        if name.partition(".")[0] not in beside
    }
    packages = {file.parent if file.name == "__init__.py" else file for file in files}
    root = folder.resolve()
    return sorted(
        str(package.relative_to(root)) for package in packages if package.is_relative_to(root)
    )


def _bodies(manifest: Mapping[str, Any], run: Path) -> list[str]:
    """The files of the bodies of all points, planned and announced, by the ends of their paths."""
    planned = manifest.get("planned")
    points = [
        *(planned if isinstance(planned, list) else []),
        *(row.get("record") for row in _rows(run, "point")),
    ]
    bodies = {str(point.get("body", "")) for point in points if isinstance(point, dict)}
    return sorted({f"{body.partition(':')[0].replace('.', '/')}.py" for body in bodies if body})


def _rows(run: Path, kind: str) -> Iterator[dict[str, Any]]:
    """The rows of one kind, as far as they can be read."""
    try:
        lines = (run / ROWS_FILE).read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        if f'"{kind}"'.encode() not in line:
            continue
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("kind") == kind:
            yield row
