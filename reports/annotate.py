"""The annotations of one run directory: lines for GitHub's log, or a report for GitLab."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import RunDirectoryError, UsageError
from harness.judge.gate import FINDINGS_FILE
from harness.records import RUN_FILE
from reports.annotations import Spot, annotations, command, parse_findings, spot
from reports.changed import changed_files, folder_in_repository
from reports.code_quality import code_quality_text

FORMATS = ("github", "gitlab")
"""Workflow commands for the log; a code quality report."""


def annotate(
    run: Path, *, since: str | None, subjects: Collection[str], policy: Path, folder: Path, form: str = FORMATS[0]
) -> Iterator[str]:
    """The findings of ``run`` as lines, put where the working tree around ``folder`` differs from ``since``.

    ``subjects`` are the packages under test, as paths from ``folder``; none: those that the run knows. Raises
    RunDirectoryError when the run was not judged; UsageError when git cannot compare, after the last annotation.
    """
    text = _read(run / FINDINGS_FILE, f"{run} was not judged; judge it first: python -m harness gate {run}")
    found = parse_findings(text, str(run / FINDINGS_FILE))
    manifest = _manifest(run / RUN_FILE)
    refused = None
    place = Spot(why="Not put on a file, because no revision to compare with was given (--changed-since).")
    if since is not None:
        try:
            prefix = folder_in_repository(folder)
            place = spot(
                changed_files(folder, since),
                since=since,
                subjects=[str(prefix / subject) for subject in subjects or _subjects(manifest)],
                beside=[policy.as_posix(), *_bodies(manifest)],
            )
        except UsageError as error:
            refused, place = error, Spot(why=f"Not put on a file: {error}.")
    if form == "gitlab":
        yield code_quality_text(found, place, otherwise=policy.as_posix())
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
    """run.json as far as it can be read: a damaged one has no say in where findings are put, and the gate has said so."""
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _subjects(manifest: Mapping[str, Any]) -> list[str]:
    settings = manifest.get("settings")
    named = settings.get("subjects") if isinstance(settings, dict) else None
    return [str(name) for name in named] if isinstance(named, list) else []


def _bodies(manifest: Mapping[str, Any]) -> list[str]:
    """The files of the scenario bodies, by the ends of their paths."""
    planned = manifest.get("planned")
    bodies = {str(point.get("body", "")) for point in planned if isinstance(point, dict)} if isinstance(planned, list) else set()
    return sorted({f"{body.partition(':')[0].replace('.', '/')}.py" for body in bodies if body})
